//! Limits on waiting: how a limit reads in a message, and work on disks that may never return.
//!
//! Nothing can interrupt a thread that waits for a file system that is gone. The agent leaves such a thread behind, so
//! this module must never use the runtime's threads, for which the runtime would wait when the agent is told to stop.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};

/// How long something was waited for, as people read it: `within 15 s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within(pub Duration);

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "within {} s", self.0.as_secs_f64())
    }
}

/// Why work on a disk has no result.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The deadline passed. The work that was begun may still complete later.
    #[error("the file system did not answer {0}")]
    Late(Within),
    /// The system gives this program no thread to wait on.
    #[error("no thread could be started for it")]
    Thread(#[source] std::io::Error),
    /// The work ended without a result.
    #[error("the operation was interrupted; repeat it")]
    CutOff,
}

/// Threads for work on disks. There are never more than a fixed number, so a file system that is gone costs no more
/// than that.
#[derive(Debug, Clone)]
pub(crate) struct Threads(Arc<Semaphore>);

impl Threads {
    pub(crate) fn at_most(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// Does the work on a thread of its own, and waits no longer than `limit` for a free thread and the result.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiskError> {
        let done = async {
            let place = Arc::clone(&self.0).acquire_owned().await.map_err(|_| DiskError::CutOff)?;
            let (tell, told) = oneshot::channel();
            let work = move || {
                let _place = place;
                // Nobody listens any more once the deadline has passed.
                let _ = tell.send(work());
            };
            std::thread::Builder::new().name("disk".to_owned()).spawn(work).map_err(DiskError::Thread)?;
            told.await.map_err(|_| DiskError::CutOff)
        };
        tokio::time::timeout(limit, done).await.unwrap_or(Err(DiskError::Late(Within(limit))))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn work_that_never_ends_is_left_at_the_deadline_and_keeps_its_thread() {
        let threads = Threads::at_most(1);
        let (release, stuck) = mpsc::channel::<()>();
        let late = threads.run(SOON, move || stuck.recv()).await.unwrap_err();
        assert_eq!(late.to_string(), "the file system did not answer within 0.1 s");
        let behind = threads.run(SOON, || ()).await.unwrap_err();
        assert!(matches!(behind, DiskError::Late(_)), "{behind}");

        drop(release);
        threads.run(PATIENCE, || ()).await.unwrap();
    }

    #[tokio::test]
    async fn work_that_is_cut_off_frees_its_thread() {
        let threads = Threads::at_most(1);
        let cut_off = threads.run(PATIENCE, || std::panic::resume_unwind(Box::new("cut off"))).await;
        let cut_off: Result<(), DiskError> = cut_off;
        assert!(matches!(cut_off.unwrap_err(), DiskError::CutOff));
        threads.run(PATIENCE, || ()).await.unwrap();
    }

    #[test]
    fn limits_read_as_people_write_them() {
        assert_eq!(Within(Duration::from_mins(1)).to_string(), "within 60 s");
        assert_eq!(Within(Duration::from_millis(1500)).to_string(), "within 1.5 s");
    }
}
