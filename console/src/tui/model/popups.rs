//! What waits in front of a screen for the person, with half-typed text.

use ceremonies::charter::CeremonyKind;
use ceremonies::ids::{CeremonyId, NodeIndex, WalletName};
use zeroize::Zeroizing;

use crate::config::Me;
use crate::room::Signature;

/// Something in front of everything else that waits for the person.
pub enum Popup {
    /// The keys.
    Help,
    /// A message to be read.
    Message {
        /// What kind of message.
        title: String,
        /// The message.
        text: String,
    },
    /// All that is known of a node.
    Node(NodeIndex),
    /// All that is known of a wallet.
    Wallet(WalletName),
    /// A fingerprint in words and as a code.
    Fingerprint {
        /// What it is of.
        title: String,
        /// The words.
        words: String,
        /// What the code holds: capitals, which a code packs tighter.
        code: String,
    },
    /// A new ceremony.
    Open(OpenForm),
    /// Who signs.
    Who(Who),
    /// Typed text that a step or the withdrawal asks for.
    Type(Typing),
    /// Agree or disagree.
    Verdict {
        /// Who signs.
        me: Me,
    },
    /// The statement, and the typed word that signs it.
    Review(Review),
    /// The key's passphrase; never shown.
    Passphrase {
        /// What it will sign.
        review: Box<Review>,
        /// What has been typed.
        typed: Zeroizing<String>,
    },
    /// Leave a running ceremony?
    Quit,
}

/// What the fields of a new ceremony are called, in their order.
pub(in crate::tui) const FIELDS: [&str; 4] = ["kind", "wallet", "purpose", "lost"];

/// A new ceremony, as far as it has been filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenForm {
    /// Which kind.
    pub kind: CeremonyKind,
    /// The wallet's name.
    pub wallet: String,
    /// Why it is held.
    pub purpose: String,
    /// The nodes that lost their shares, for a recovery: `4`, or `2, 4`.
    pub lost: String,
    /// The field that is typed into: 0 kind, 1 wallet, 2 purpose, and for a recovery or rebuild 3 the lost nodes.
    pub field: usize,
    /// Why it was not taken as it stood the last time; empty if nothing is known against it.
    pub trouble: String,
}

impl OpenForm {
    /// How many fields it has.
    #[must_use]
    pub fn fields(&self) -> usize {
        if self.kind.recovers() { 4 } else { 3 }
    }

    /// What the field that is typed into is called.
    #[must_use]
    pub fn field_name(&self) -> &'static str {
        FIELDS.get(self.field).copied().unwrap_or_default()
    }

    /// The text that is typed into; the kind is chosen.
    pub(in crate::tui) fn text(&mut self) -> Option<&mut String> {
        match self.field {
            1 => Some(&mut self.wallet),
            2 => Some(&mut self.purpose),
            3 => Some(&mut self.lost),
            _ => None,
        }
    }
}

/// Who of this console's people signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Those who could.
    pub people: Vec<Me>,
    /// The one in front.
    pub selected: usize,
    /// What for.
    pub purpose: WhoFor,
}

/// What somebody is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhoFor {
    /// The step that is open.
    Step,
    /// To end the ceremony.
    Withdraw,
}

/// Text being typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typing {
    /// What is asked.
    pub question: TypingFor,
    /// Who will sign.
    pub me: Me,
    /// What has been typed.
    pub text: String,
    /// Why it was not taken the last time; empty if nothing is known against it.
    pub trouble: String,
}

/// What text is typed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypingFor {
    /// The words as heard.
    Words,
    /// Why one disagrees.
    Disagreement,
    /// Why the ceremony ends.
    Withdrawal,
    /// Why a signed transaction is not sent.
    Withholding,
}

/// Which lines of a statement a frame has shown, and how many there are as that terminal wraps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// The first.
    pub first: usize,
    /// How many.
    pub height: usize,
    /// Of how many.
    pub lines: usize,
}

impl Page {
    /// Whether it has shown the last line.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.height > 0 && self.first + self.height >= self.lines
    }
}

/// What a frame has shown. Only what a frame has shown can be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Whether the terminal was large enough for anything.
    pub fits: bool,
    /// The part of a statement that was shown, with the place for the word under it.
    pub page: Option<Page>,
    /// How many lines of the open ceremony do not fit: how far it can be scrolled.
    pub beyond: usize,
    /// How many lines of a text in front of everything do not fit.
    pub beyond_popup: usize,
}

/// What is about to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// The statement, exactly.
    pub statement: String,
    /// What is done with the signature.
    pub act: ReviewAct,
    /// Who signs.
    pub me: Me,
    /// What stands against the ceremony now.
    pub doubts: Vec<String>,
    /// Which other transactions can be carried out only in the place of this one.
    pub rivals: Vec<String>,
    /// The word typed so far.
    pub typed: String,
    /// The statement's first visible line.
    pub scroll: usize,
    /// What the last frame has shown of it.
    pub page: Page,
    /// How many lines, from the first, have been on the screen as it wraps them now.
    pub seen: usize,
    /// Whether every line has been.
    pub read: bool,
    /// Whether the code is shown instead of the text.
    pub code: bool,
}

/// What a signature is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReviewAct {
    /// A ceremony is opened with this manifest.
    Open(Vec<u8>),
    /// A step is signed, or the ceremony is ended.
    Sign(CeremonyId, Box<SignatureFor>),
    /// A backup is handed in at its node, and its release is signed.
    Release(CeremonyId, Box<SignatureFor>, Vec<u8>),
}

/// A signature without its text.
#[derive(Debug, Clone)]
pub struct SignatureFor(pub Signature);

impl PartialEq for SignatureFor {
    fn eq(&self, other: &Self) -> bool {
        self.0.step == other.0.step
            && self.0.person == other.0.person
            && self.0.role == other.0.role
            && self.0.answer == other.0.answer
    }
}

impl Eq for SignatureFor {}
