//! What processes weigh.

/// Resident memory and CPU seconds, on average, of the processes of this program that were started here: others of its
/// name may run on the same machine.
pub(crate) fn weigh(program: &str) -> (f64, f64) {
    let own = std::process::id().to_string();
    let (mut rss, mut cpu, mut count) = (0.0, 0.0, 0.0);
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| std::fs::read_to_string(process.path().join(file)).unwrap_or_default();
        let command = read("cmdline");
        if !command.split('\0').next().unwrap_or_default().ends_with(program) {
            continue;
        }
        let stat = read("stat");
        // After the name, which may have anything in it: state, parent, …
        let mut stat = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(1);
        if stat.next() != Some(own.as_str()) {
            continue;
        }
        let kilobytes = read("status")
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse::<f64>().ok());
        let ticks: f64 = stat.skip(9).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        rss += kilobytes.unwrap_or(0.0) / 1024.0;
        cpu += ticks / 100.0;
        count += 1.0;
    }
    (rss / count, cpu / count)
}
