entity clock is end clock;
architecture behaviour of clock is
  signal level : bit := '0';
begin
  process
  begin
    level <= not level;
    wait;
  end process;
end behaviour;
