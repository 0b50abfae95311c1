//! What Linux says about this process (`proc(5)`).

use std::fs;

use crate::metrics::ProcessRow;

/// Clock ticks per second in `/proc/self/stat`: `USER_HZ`, 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// This process now; `None` where there is no `/proc`.
pub(super) fn read() -> Option<ProcessRow> {
    let file = |path| fs::read_to_string(path).ok();
    let mut row = parse(
        &file("/proc/self/stat")?,
        &file("/proc/self/status")?,
        &file("/proc/stat")?,
        &file("/proc/self/limits").unwrap_or_default(),
    )?;
    let entries = fs::read_dir("/proc/self/fd").ok();
    // One of them is the directory itself.
    row.open_fds = entries.map(|entries| (entries.count() as u64).saturating_sub(1));
    Some(row)
}

fn parse(stat: &str, status: &str, system: &str, limits: &str) -> Option<ProcessRow> {
    // The name in parentheses may hold anything; fields are counted from behind it (state is 3).
    let (_name, fields) = stat.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_ascii_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let number_of = |text: &str, key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let booted = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let booted: f64 = booted.trim().parse().ok()?;
    Some(ProcessRow {
        cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS,
        resident_bytes: number_of(status, "VmRSS:")? * 1024,
        virtual_bytes: number_of(status, "VmSize:")? * 1024,
        start_seconds: booted + ticks(22)? / TICKS,
        threads: number_of(status, "Threads:")?,
        open_fds: None,
        max_fds: number_of(limits, "Max open files"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0 1000 9 9 9\n";
        let status = "Name:\tx\nVmSize:\t  2000 kB\nVmRSS:\t  1000 kB\nThreads:\t3\n";
        let system = "cpu 1 2 3\nbtime 1700000000\n";
        let limits = "Limit  Soft  Hard\nMax open files            1024   4096   files\n";
        let row = parse(stat, status, system, limits).unwrap();
        assert_eq!(
            row,
            ProcessRow {
                cpu_seconds: 2.0,
                resident_bytes: 1_024_000,
                virtual_bytes: 2_048_000,
                start_seconds: 1_700_000_010.0,
                threads: 3,
                open_fds: None,
                max_fds: Some(1024),
            }
        );
        assert_eq!(parse("12 (a", status, system, limits), None);
        assert_eq!(parse("12 (a) S 1", status, system, limits), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_there() {
        let row = read().unwrap();
        assert!(row.resident_bytes > 0 && row.threads > 0 && row.open_fds > Some(0));
    }
}
