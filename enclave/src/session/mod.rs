//! Protocol sessions between enclaves: the one driver for any [`Protocol`] of rounds.
//!
//! Sans-I/O and synchronous: bytes and the time come in, actions go out. The driver does the ready barrier, the
//! session's id, rounds with deadlines, sealing, echo and limits, once for all protocols. It must never let bytes that
//! no party signed have any effect, never run a phase twice, and never know what a protocol computes.
//!
//! A shell owns a [`Session`] on a thread that may block: [`Session::receive`] computes for as long as a protocol phase
//! takes (a second natively). It calls [`Session::start`] once, `receive` for all bytes that the bus brings under the
//! session's label, from whomever, and [`Session::tick`] a few times a second; does all [`Action`]s in their order; and
//! drops the session after `Finished` or `Failed`, one of which always comes. What a peer may have missed is repeated
//! until it answers or its time is up; for a session that has finished, [`Finished`] answers.

mod action;
mod barrier;
mod driver;
mod echo;
mod envelope;
mod exact;
mod finished;
mod plan;
mod proto;
mod protocol;
mod said;

pub use self::action::{Action, Outcome, SessionFailure, SessionProgress};
pub use self::driver::Session;
pub use self::envelope::{BootKeys, Dropped, MAX_ENVELOPE};
pub use self::exact::{check_quiet, check_senders, check_silent, decode, encode};
pub use self::finished::Finished;
pub use self::plan::{Millis, SessionPlan};
pub use self::protocol::{Factory, Inbound, Outgoing, Protocol, ProtocolAbort, Round, Step};
