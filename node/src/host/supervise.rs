//! Keeping the enclave running while the agent runs, and leaving it running after that: when this task is dropped, the
//! enclave stays.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{EnclaveHost, HostError, Running};

/// How often to look, and how soon to try again.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two looks at a running enclave.
    pub look: Duration,
    /// After a first start or failure; it doubles with each that follows.
    pub pause: Duration,
    /// The longest such pause.
    pub longest: Duration,
    /// How long an enclave must have run for its end to count as a first failure again.
    pub steady: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(5),
            pause: Duration::from_secs(1),
            longest: Duration::from_mins(1),
            steady: Duration::from_mins(2),
        }
    }
}

/// The enclave as last seen.
struct Seen {
    id: String,
    since: Instant,
}

/// Starts the enclave whenever none runs, for ever. An enclave that runs but must not is reported, not stopped: that is
/// for a person to decide.
pub async fn supervise(host: &dyn EnclaveHost, pace: Pace) {
    let mut seen: Option<Seen> = None;
    let mut pause = pace.pause;
    loop {
        let looked = host.running().await;
        if matches!(looked, Ok(None))
            && let Some(gone) = seen.take()
        {
            warn!(id = %gone.id, "enclave vanished; starting it again with new keys");
            if gone.since.elapsed() >= pace.steady {
                pause = pace.pause;
            }
        }
        let wait = match looked {
            Ok(Some(running)) => {
                notice(&mut seen, &running);
                pace.look
            }
            Ok(None) => {
                match host.start().await {
                    Ok(running) => notice(&mut seen, &running),
                    Err(error) => complain(&error, pause, "enclave not started"),
                }
                backed_off(&mut pause, pace)
            }
            Err(error) => {
                complain(&error, pause, "enclave is not as configured");
                backed_off(&mut pause, pace)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

fn notice(seen: &mut Option<Seen>, running: &Running) {
    if seen.as_ref().is_none_or(|seen| seen.id != running.id) {
        info!(id = %running.id, cid = running.cid, "enclave is running");
        *seen = Some(Seen { id: running.id.clone(), since: Instant::now() });
    }
}

fn complain(error: &HostError, pause: Duration, what: &str) {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let error = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    warn!(%error, again_in = ?pause, "{what}");
}

/// The pause to make now; the next is longer.
fn backed_off(pause: &mut Duration, pace: Pace) -> Duration {
    let now = *pause;
    *pause = (now * 2).min(pace.longest);
    now
}
