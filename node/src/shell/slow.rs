//! What may take long: credentials and the vault, each call in a task of its own with a deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ceremonies::ids::UnixMillis;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::CredentialSource;
use crate::core::{Event, Failure, Object, Ticket};
use crate::credentials;
use crate::vault::Vault;

/// How long a source of credentials may take; its own deadline is shorter and its error says more.
const CREDENTIALS: Duration = Duration::from_secs(30);
/// How long the vault may take to report whether it is ready.
const PREFLIGHT: Duration = Duration::from_secs(30);
/// How long the vault may take for one file.
const PUT: Duration = Duration::from_mins(2);

/// Those who do it.
pub(super) struct Slow {
    source: Arc<CredentialSource>,
    vault: Option<Arc<Vault>>,
    events: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
}

async fn within<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let done = tokio::time::timeout(limit, call).await;
    done.unwrap_or_else(|_| Err(format!("{what} did not answer within {} s", limit.as_secs()).into()))
}

impl Slow {
    pub(super) fn new(source: CredentialSource, vault: Option<Vault>, events: mpsc::Sender<Event>) -> Self {
        Self { source: Arc::new(source), vault: vault.map(Arc::new), events, tasks: JoinSet::new() }
    }

    /// Forgets the tasks that have ended.
    pub(super) fn reap(&mut self) {
        while self.tasks.try_join_next().is_some() {}
    }

    fn spawn(&mut self, event: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        self.tasks.spawn(async move {
            // The agent may be gone; then nobody waits for the answer.
            let _ = events.send(event.await).await;
        });
    }

    pub(super) fn fetch_credentials(&mut self, ticket: Ticket) {
        let source = Arc::clone(&self.source);
        self.spawn(async move {
            let fetched = async { credentials::fetch(&source).await.map_err(|error| Failure::of(&error)) };
            Event::Credentials(ticket, within(CREDENTIALS, "the source of AWS credentials", fetched).await)
        });
    }

    pub(super) fn preflight(&mut self) {
        let vault = self.vault.clone();
        self.spawn(async move {
            let checked = async {
                let vault = vault.ok_or("this node has no [vault] in its configuration")?;
                vault.preflight().await.map_err(|error| Failure::of(&error))
            };
            Event::Preflighted(within(PREFLIGHT, "the vault", checked).await)
        });
    }

    pub(super) fn put(&mut self, ticket: Ticket, objects: Vec<Object>, until: UnixMillis) {
        let vault = self.vault.clone();
        self.spawn(async move {
            let put = async {
                let vault = vault.ok_or("this node has no [vault] in its configuration")?;
                let mut put = Vec::new();
                for object in &objects {
                    let stored = vault.put(&object.key, &object.bytes, until);
                    let stored = stored.await.map_err(|error| Failure::of(&error))?;
                    put.push((stored.version, stored.locked_until));
                }
                Ok(put)
            };
            Event::Put(ticket, within(PUT, "the vault", put).await)
        });
    }
}
