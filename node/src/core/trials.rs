//! What a ceremony will need is tried before this node attests, and again while it does not work: a write to the store,
//! a data key from the KMS, a file in the vault. A trouble inferred only from a failure would be found after people
//! have signed, and would linger after it was cured.

use enclave_link::message::{self, TryKms, to_enclave};
use tracing::{info, warn};

use super::{Asked, Core, Effect, Failure, StoreReply, Waiting};

/// How long a success counts when this node attests, in milliseconds.
const FRESH_MS: u64 = 30_000;
/// How often a working KMS is tried again, in milliseconds: a policy may change at any time, and a call costs little.
const KMS_CHECK_MS: u64 = 30_000;
/// How soon to try again what failed, in milliseconds.
const RETRY_MS: u64 = 10_000;
/// The same, if a ceremony waits for it.
const HURRY_MS: u64 = 1000;
/// How long to wait for an answer, in milliseconds: longer than any of the calls behind it may take.
const LOST_MS: u64 = 60_000;

/// What came of a trial, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Trial {
    #[default]
    Untried,
    Asked(u64),
    Passed(u64),
    Failed(u64),
}

impl Trial {
    /// Whether it is to be tried now, if successes are tried again after `fresh` and failures after `retry`.
    fn is_due(self, now: u64, fresh: u64, retry: u64) -> bool {
        let (since, wait) = match self {
            Self::Untried => return true,
            Self::Asked(at) => (at, LOST_MS),
            Self::Passed(at) => (at, fresh),
            Self::Failed(at) => (at, retry),
        };
        now.saturating_sub(since) >= wait
    }

    fn is_good(self, now: u64) -> bool {
        matches!(self, Self::Passed(at) if now.saturating_sub(at) < FRESH_MS)
    }

    fn of<T, E>(result: &Result<T, E>, now: u64) -> Self {
        if result.is_ok() { Self::Passed(now) } else { Self::Failed(now) }
    }
}

/// The trials of a node.
#[derive(Debug, Default)]
pub(super) struct Trials {
    store: Trial,
    kms: Trial,
    /// Whether this enclave has had any answer to a trial of the KMS.
    kms_answered: bool,
    /// Why the KMS endpoint could not be reached at the last attempt.
    kms_unreached: Option<Failure>,
    vault: Trial,
}

impl Trials {
    pub(super) fn kms_reached(&mut self, reached: Result<(), Failure>) {
        self.kms_unreached = reached.err();
    }
}

impl Core {
    /// Tries again what is due whether or not a ceremony waits for it.
    pub(super) fn try_again(&mut self) {
        let now = self.now.steady;
        if self.trials.kms.is_due(now, KMS_CHECK_MS, RETRY_MS) {
            self.try_kms();
        }
        let due = |check| self.trials.vault.is_due(now, check, RETRY_MS.min(check));
        if self.pace.vault_check_ms.is_some_and(due) {
            self.try_vault();
        }
    }

    /// Whether the store accepted a write a moment ago.
    pub(super) fn store_is_ready(&self) -> bool {
        self.trials.store.is_good(self.now.steady)
    }

    /// Whether the enclave was given a data key a moment ago; otherwise it is told to ask for one.
    pub(super) fn kms_is_ready(&mut self) -> bool {
        let now = self.now.steady;
        let is_good = self.trials.kms.is_good(now);
        if !is_good && self.trials.kms.is_due(now, FRESH_MS, HURRY_MS) {
            self.try_kms();
        }
        is_good
    }

    /// Whether the vault accepted a file a moment ago; otherwise it is tried.
    pub(super) fn vault_took_a_file(&mut self) -> bool {
        let now = self.now.steady;
        let is_good = self.trials.vault.is_good(now);
        if !is_good && self.trials.vault.is_due(now, FRESH_MS, HURRY_MS) {
            self.try_vault();
        }
        is_good
    }

    fn try_vault(&mut self) {
        if self.pace.vault_check_ms.is_some() {
            self.trials.vault = Trial::Asked(self.now.steady);
            self.effect(Effect::Preflight);
        } else {
            let trouble = "the charter asks for backups, but this node has no [vault] in its configuration";
            self.vault_tried(Err(trouble.into()));
        }
    }

    pub(super) fn vault_tried(&mut self, result: Result<(), Failure>) {
        self.trials.vault = Trial::of(&result, self.now.steady);
        match result {
            Ok(()) => self.observed.vault.cleared(),
            Err(trouble) => {
                if self.observed.vault.text() != &*trouble {
                    warn!(%trouble, "backups could not be written: this node does not attest");
                }
                self.observed.vault.rose(&trouble, self.now);
            }
        }
        self.duties_due = true;
    }

    fn try_kms(&mut self) {
        if self.own.is_some() {
            self.trials.kms = Trial::Asked(self.now.steady);
            // Why an earlier trial failed says nothing of this one, which may fail before there is a connection.
            self.trials.kms_unreached = None;
            let ticket = self.ticket(Waiting::TrialCredentials);
            self.effect(Effect::FetchCredentials(ticket));
        }
    }

    /// Credentials for a trial, or why there are none.
    pub(super) fn trial_credentials(&mut self, lent: Result<message::Credentials, Failure>) {
        match lent {
            Ok(lent) => {
                let charter = self.identity.charter.text().as_bytes().to_vec();
                let request = self.request_id(Asked::Kms);
                let node = self.node().into();
                let order = TryKms { request, node, charter, credentials: Some(lent) };
                self.tell_enclave(to_enclave::Kind::TryKms(order));
            }
            Err(trouble) => self.kms_tried(Err(trouble)),
        }
    }

    pub(super) fn kms_tried(&mut self, result: Result<(), Failure>) {
        // Of a connection that never came about, the enclave sees only the end.
        let result = result.map_err(|trouble| self.trials.kms_unreached.clone().unwrap_or(trouble));
        self.trials.kms = Trial::of(&result, self.now.steady);
        self.trials.kms_answered = true;
        match result {
            Ok(()) => {
                if !self.observed.kms.text().is_empty() {
                    info!("the KMS gives data keys again");
                }
                self.observed.kms.cleared();
            }
            Err(trouble) => {
                if self.observed.kms.text() != &*trouble {
                    warn!(%trouble, "the enclave gets no data key: this node does not attest");
                }
                self.observed.kms.rose(&trouble, self.now);
            }
        }
        self.duties_due = true;
    }

    /// What is wrong with the KMS; not yet to know is no better.
    pub(super) fn kms_trouble(&self) -> String {
        match self.observed.kms.told() {
            told if told.is_empty() && !self.trials.kms_answered => "not tried yet".to_owned(),
            told => told,
        }
    }

    /// Another enclave may be refused what the one before was given.
    pub(super) fn forget_kms_answer(&mut self) {
        self.trials.kms_answered = false;
        self.forget_kms_trial();
    }

    /// The next trial is due at once: another enclave may have another image, to which the KMS answers differently,
    /// and what an enclave gave up may have failed at the KMS.
    pub(super) fn forget_kms_trial(&mut self) {
        self.trials.kms = Trial::Untried;
    }

    pub(super) fn store_tried(&mut self, result: &Result<StoreReply, Failure>) {
        self.trials.store = Trial::of(result, self.now.steady);
    }
}
