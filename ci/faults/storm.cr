# Fibers that allocate and check, under signals from outside: storm SECONDS.
seconds = ARGV[0].to_i
handled = Atomic(Int32).new(0)
Signal::USR1.trap { handled.add(1) }
Signal::USR2.trap { handled.add(1); String.build { |s| 20.times { |i| s << i } } }

def check(seed : Int32)
  lists = Array.new(50) { |i| Array.new(i) { |k| "#{seed} #{i} #{k}" } }
  20.times do |round|
    i = (seed * 7 + round) % 50
    lists[i] = Array.new(i) { |k| "#{seed} #{i} #{k}" }
    Fiber.yield
    lists.each_with_index { |list, i| list.each_with_index { |s, k| abort "FAILED: #{s}" if s != "#{seed} #{i} #{k}" } }
  end
end

finished = Channel(Int32).new
rounds = 0
stop_at = Time.monotonic + seconds.seconds
puts Process.pid
STDOUT.flush
while Time.monotonic < stop_at
  20.times { |i| spawn { check(rounds * 20 + i); finished.send i } }
  20.times { finished.receive }
  rounds += 1
end
abort "FAILED: hardly a signal arrived" if handled.get < seconds * 100
puts "#{handled.get} signals in #{seconds} s, #{rounds * 20} fibers"
