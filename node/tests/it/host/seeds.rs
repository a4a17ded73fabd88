//! Playing schedules by their seeds.

use std::any::Any;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A number from the environment.
pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// Does something with each of these seeds, on all cores, until it says that it is enough.
pub(crate) fn with_each(seeds: Range<u64>, does: impl Fn(u64) -> ControlFlow<()> + Sync) {
    let (next, is_enough) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let work = || {
        while !is_enough.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            is_enough.fetch_or(does(seed).is_break(), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
}

/// What a panic said.
pub(crate) fn told_by(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Does something with everything printed that the cores log.
pub(crate) fn aloud<T>(does: impl FnOnce() -> T) -> T {
    let agents = tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stdout);
    tracing::subscriber::with_default(agents.finish(), does)
}
