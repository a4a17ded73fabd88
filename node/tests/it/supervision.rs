//! Keeping the enclave running: when it is started again, how soon, and what is never done to it.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use node::host::{EnclaveHost, HostError, Pace, Running, supervise};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::tool::allowed;

/// How an enclave fares once it is started.
#[derive(Clone, Copy)]
enum Fate {
    /// It does not start.
    Refused,
    /// It ends after this time.
    Lives(Duration),
    /// It turns out to be in debug mode.
    Debug,
}

#[derive(Default)]
struct Inside {
    fates: Vec<Fate>,
    started: Vec<Instant>,
    ended_on_purpose: usize,
}

/// A host whose enclaves fare as planned, on a clock that the test moves.
struct Planned {
    inside: Mutex<Inside>,
    plan_over: Notify,
}

impl Planned {
    fn new(fates: impl IntoIterator<Item = Fate>) -> Self {
        let inside = Inside { fates: fates.into_iter().collect(), ..Inside::default() };
        Self { inside: Mutex::new(inside), plan_over: Notify::new() }
    }

    /// Supervises until every fate but the last has come true, and one hour longer. Answers the seconds
    /// between the starts.
    async fn pauses(&self) -> Vec<u64> {
        let over = async {
            self.plan_over.notified().await;
            tokio::time::sleep(Duration::from_hours(1)).await;
        };
        tokio::select! {
            () = supervise(self, Pace::default()) => panic!("supervision ended"),
            () = over => {}
        }
        let inside = self.inside.lock().unwrap();
        assert_eq!(inside.ended_on_purpose, 0);
        inside.started.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect()
    }
}

#[async_trait]
impl EnclaveHost for Planned {
    async fn running(&self) -> Result<Option<Running>, HostError> {
        let inside = self.inside.lock().unwrap();
        let Some(since) = inside.started.last() else { return Ok(None) };
        let id = format!("enclave-{}", inside.started.len());
        match inside.fates[inside.started.len() - 1] {
            Fate::Lives(time) if since.elapsed() < time => {
                Ok(Some(Running { id, cid: 16, measurement: allowed() }))
            }
            Fate::Lives(_) | Fate::Refused => Ok(None),
            Fate::Debug => Err(HostError::Debug { id }),
        }
    }

    async fn start(&self) -> Result<Running, HostError> {
        {
            let mut inside = self.inside.lock().unwrap();
            inside.started.push(Instant::now());
            if inside.started.len() == inside.fates.len() {
                self.plan_over.notify_one();
            }
            if let Fate::Refused = inside.fates[inside.started.len() - 1] {
                return Err(HostError::NothingAllowed);
            }
        }
        self.running().await?.ok_or(HostError::NothingAllowed)
    }

    async fn terminate(&self) -> Result<Option<String>, HostError> {
        self.inside.lock().unwrap().ended_on_purpose += 1;
        Ok(None)
    }

    async fn console(&self) -> Result<(), HostError> {
        Ok(())
    }
}

const DAY: Duration = Duration::from_hours(24);

#[tokio::test(start_paused = true)]
async fn enclave_that_runs_is_started_once() {
    assert_eq!(Planned::new([Fate::Lives(DAY)]).pauses().await, Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn start_that_fails_is_tried_again_ever_more_slowly_up_to_a_minute() {
    let fates = [Fate::Refused; 8].into_iter().chain([Fate::Lives(DAY)]);
    assert_eq!(Planned::new(fates).pauses().await, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[tokio::test(start_paused = true)]
async fn enclave_that_ends_soon_is_started_again_ever_more_slowly() {
    let soon = Fate::Lives(Duration::from_millis(500));
    let pauses = Planned::new([soon, soon, soon, Fate::Lives(DAY)]).pauses().await;
    assert_eq!(pauses, [1, 2, 4]);
}

#[tokio::test(start_paused = true)]
async fn enclave_that_ran_long_is_started_again_as_soon_as_it_is_missed() {
    let long = Fate::Lives(Duration::from_hours(1));
    let pauses = Planned::new([Fate::Refused, Fate::Refused, long, Fate::Refused, Fate::Lives(DAY)]);
    let pauses = pauses.pauses().await;
    assert_eq!(pauses[..2], [1, 2]);
    let missed_after = pauses[2] - 3600;
    assert!(missed_after <= Pace::default().look.as_secs(), "{pauses:?}");
    assert_eq!(pauses[3], Pace::default().pause.as_secs());
}

#[tokio::test(start_paused = true)]
async fn enclave_that_must_not_run_is_neither_ended_nor_joined_by_another() {
    assert_eq!(Planned::new([Fate::Debug]).pauses().await, Vec::<u64>::new());
}
