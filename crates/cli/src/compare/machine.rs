//! What a comparison ran on, as far as the system says.

use super::record::Machine;
use std::fs;

impl Machine {
    /// This one. What cannot be found out is empty.
    pub(crate) fn this() -> Self {
        let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let release = text("/etc/os-release");
        let load = text("/proc/loadavg");
        Self {
            processor: field(&text("/proc/cpuinfo"), "model name", ':'),
            processors,
            memory_bytes: field(&text("/proc/meminfo"), "MemTotal", ':')
                .split(' ')
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .map_or(0, |kib| kib * 1024),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: field(&release, "PRETTY_NAME", '=')
                .trim_matches('"')
                .to_owned(),
            load: load
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or_default(),
        }
    }
}

/// What follows the separator in the first line that begins with the name.
fn field(text: &str, name: &str, separator: char) -> String {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "a\t: 1\nmodel name\t: X: Y\nmodel name: Z\n";
        assert_eq!(field(text, "model name", ':'), "X: Y");
        assert_eq!(field(text, "none", ':'), "");
        let this = Machine::this();
        assert!(this.processors > 0 && this.memory_bytes > 0);
    }
}
