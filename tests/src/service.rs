//! A process that is kept running, and that tests and drills may kill.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::warn;

/// Pause before a process that ended is started again, as a service manager would.
const RESTART_PAUSE: Duration = Duration::from_millis(300);
/// How long a process may take to stop when asked.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A launched process, with what must live as long as it does.
pub struct Launched {
    /// The process.
    pub child: Child,
    /// Dropped when the process has ended.
    pub companion: Option<Box<dyn std::any::Any + Send>>,
}

/// Starts the process anew.
pub type Launcher = Arc<dyn Fn() -> Result<Launched> + Send + Sync>;

enum Order {
    /// SIGKILL; it is started again.
    Kill(oneshot::Sender<()>),
    /// SIGKILL; it stays down until resumed.
    Hold(oneshot::Sender<()>),
    /// Start it again.
    Resume(oneshot::Sender<()>),
    /// A signal that does not end it.
    Signal(Signal),
    /// SIGTERM, then the end of the service.
    Stop(oneshot::Sender<()>),
}

/// A supervised process. Dropping it kills the process.
pub struct Service {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    /// Launches the process and keeps it running.
    ///
    /// # Errors
    /// When the first launch fails.
    pub fn start(name: String, start: Launcher) -> Result<Self> {
        let launched = start().with_context(|| format!("starting {name}"))?;
        let (orders, received) = mpsc::channel(8);
        let task = tokio::spawn(supervise(name, start, launched, received));
        Ok(Self { orders, task })
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, wait) = oneshot::channel();
        if self.orders.send(order(done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// Kills the process (SIGKILL). It is started again.
    pub async fn kill(&self) {
        self.order(Order::Kill).await;
    }

    /// Kills the process and keeps it down.
    pub async fn hold(&self) {
        self.order(Order::Hold).await;
    }

    /// Starts a process that was held down.
    pub async fn resume(&self) {
        self.order(Order::Resume).await;
    }

    /// Freezes the process (SIGSTOP).
    pub async fn freeze(&self) {
        let _ = self.orders.send(Order::Signal(Signal::STOP)).await;
    }

    /// Resumes a frozen process (SIGCONT).
    pub async fn thaw(&self) {
        let _ = self.orders.send(Order::Signal(Signal::CONT)).await;
    }

    /// Stops the process (SIGTERM, then SIGKILL) for good.
    pub async fn stop(&self) {
        self.order(Order::Stop).await;
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // A process that has just ended cannot be signalled.
        let _ = kill_process(pid, signal);
    }
}

async fn supervise(name: String, start: Launcher, launched: Launched, mut orders: mpsc::Receiver<Order>) {
    let mut running = Some(launched);
    let mut held = false;
    loop {
        if let Some(launched) = &mut running {
            tokio::select! {
                ended = launched.child.wait() => {
                    warn!(%name, ?ended, "exited; starting it again");
                    running = None;
                    tokio::time::sleep(RESTART_PAUSE).await;
                }
                order = orders.recv() => match order {
                    Some(Order::Kill(done)) => {
                        let _ = launched.child.kill().await;
                        running = None;
                        let _ = done.send(());
                        tokio::time::sleep(RESTART_PAUSE).await;
                    }
                    Some(Order::Hold(done)) => {
                        let _ = launched.child.kill().await;
                        (running, held) = (None, true);
                        let _ = done.send(());
                    }
                    Some(Order::Resume(done)) => drop(done.send(())),
                    Some(Order::Signal(number)) => signal(&launched.child, number),
                    Some(Order::Stop(done)) => {
                        signal(&launched.child, Signal::CONT);
                        signal(&launched.child, Signal::TERM);
                        if tokio::time::timeout(STOP_PATIENCE, launched.child.wait()).await.is_err() {
                            let _ = launched.child.kill().await;
                        }
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
            }
        } else if held {
            match orders.recv().await {
                Some(Order::Resume(done)) => {
                    held = false;
                    let _ = done.send(());
                }
                Some(Order::Stop(done)) => {
                    let _ = done.send(());
                    return;
                }
                Some(Order::Kill(done) | Order::Hold(done)) => drop(done.send(())),
                Some(Order::Signal(_)) => {}
                None => return,
            }
        } else {
            match start() {
                Ok(launched) => running = Some(launched),
                Err(error) => {
                    warn!(%name, error = format!("{error:#}"), "not started");
                    tokio::time::sleep(RESTART_PAUSE).await;
                }
            }
        }
    }
}

/// A command whose output goes to a log file, and that ends with its service.
///
/// # Errors
/// When the log file cannot be opened.
pub fn logged(program: &std::path::Path, log: &std::path::Path) -> Result<Command> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening {}", log.display()))?;
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    Ok(command)
}
