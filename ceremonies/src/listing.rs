//! Which ceremonies a list is to contain: of thousands that are over, a console needs few.
//!
//! A node and a console judge by the same rules. What a list says is the node's word; nothing may be concluded from what it
//! leaves out.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::charter::CeremonyKind;
use crate::ids::{CeremonyId, UnixMillis, WalletName};
use crate::wire::bus;

/// Where a ceremony stands, as far as a list tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not over: gathering, authorised or committed.
    Running,
    /// Attestations and approvals are being gathered.
    Gathering,
    /// The quorum has approved.
    Authorised,
    /// Its result stands.
    Committed,
    /// The record is sealed.
    Closed,
    /// Ended after the commit.
    Abandoned,
    /// Without effect.
    Void,
    /// Wherever it stands, somebody disagrees with its record.
    Disputed,
}

/// What a list has behind the phase of a ceremony whose record somebody disagrees with.
pub const DISPUTED: &str = " DISPUTED";

/// Not the name of a phase.
#[derive(Debug, Error)]
#[error(
    "`{0}` is not a phase: use running, gathering, authorised, committed, closed, abandoned, void or disputed"
)]
pub struct UnknownStanding(String);

impl Standing {
    /// Every one, in the order of a ceremony's life.
    pub const ALL: [Self; 8] = [
        Self::Running,
        Self::Gathering,
        Self::Authorised,
        Self::Committed,
        Self::Closed,
        Self::Abandoned,
        Self::Void,
        Self::Disputed,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Gathering => "gathering",
            Self::Authorised => "authorised",
            Self::Committed => "committed",
            Self::Closed => "closed",
            Self::Abandoned => "abandoned",
            Self::Void => "void",
            Self::Disputed => "disputed",
        }
    }

    /// Whether a phase, as a node words it, is this one.
    #[must_use]
    pub fn is(self, phase: &str) -> bool {
        let word = phase.split([':', ' ']).next().unwrap_or_default();
        match self {
            Self::Running => {
                [Self::Gathering, Self::Authorised, Self::Committed].iter().any(|one| one.is(word))
            }
            Self::Gathering
            | Self::Authorised
            | Self::Committed
            | Self::Closed
            | Self::Abandoned
            | Self::Void => word == self.word(),
            // It follows the reason of an end, which may be worded so: rather one too many is listed than one too few.
            Self::Disputed => phase.ends_with(DISPUTED),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Standing {
    type Err = UnknownStanding;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|standing| standing.word() == text);
        known.ok_or_else(|| UnknownStanding(text.to_owned()))
    }
}

/// The fields of a list's line by which it is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Which ceremony.
    pub ceremony: &'a str,
    /// The wallet that it is about.
    pub wallet: &'a str,
    /// Its kind, in words.
    pub kind: &'a str,
    /// Where it stands, in words.
    pub phase: &'a str,
    /// When it was opened.
    pub opened: UnixMillis,
}

/// Some ceremonies: those that match every criterion given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// This one.
    pub ceremony: Option<CeremonyId>,
    /// Those of a wallet.
    pub wallet: Option<WalletName>,
    /// Those of one of these kinds.
    pub kinds: Vec<CeremonyKind>,
    /// Those that stand there.
    pub standing: Option<Standing>,
    /// Those opened at this time or later.
    pub since: Option<UnixMillis>,
    /// Those opened before this time.
    pub until: Option<UnixMillis>,
    /// At most this many, the newest.
    pub most: Option<u32>,
}

impl Wanted {
    /// One ceremony.
    #[must_use]
    pub fn one(ceremony: CeremonyId) -> Self {
        Self { ceremony: Some(ceremony), ..Self::default() }
    }

    /// Those of these kinds.
    #[must_use]
    pub fn of_kinds(kinds: impl IntoIterator<Item = CeremonyKind>) -> Self {
        Self { kinds: kinds.into_iter().collect(), ..Self::default() }
    }

    /// Whether a ceremony matches, whatever the number.
    #[must_use]
    pub fn takes(&self, line: Line<'_>) -> bool {
        self.ceremony.as_ref().is_none_or(|ceremony| line.ceremony == ceremony.as_str())
            && self.wallet.as_ref().is_none_or(|wallet| line.wallet == wallet.as_str())
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| line.kind == kind.name()))
            && self.standing.is_none_or(|standing| standing.is(line.phase))
            && self.since.is_none_or(|since| line.opened >= since)
            && self.until.is_none_or(|until| line.opened < until)
    }

    /// As it is asked for.
    #[must_use]
    pub fn to_wire(&self) -> bus::Wanted {
        let word = |text: Option<String>| text.unwrap_or_default();
        bus::Wanted {
            ceremony: word(self.ceremony.as_ref().map(ToString::to_string)),
            wallet: word(self.wallet.as_ref().map(ToString::to_string)),
            kinds: self.kinds.iter().map(ToString::to_string).collect(),
            standing: word(self.standing.map(|standing| standing.to_string())),
            since_ms: self.since.map(|since| since.0),
            until_ms: self.until.map(|until| until.0),
            most: self.most,
        }
    }

    /// What is asked for; none if it names something that this build does not know, of which there are no ceremonies
    /// here.
    #[must_use]
    pub fn from_wire(wire: &bus::Wanted) -> Option<Self> {
        let kinds: Result<Vec<CeremonyKind>, _> = wire.kinds.iter().map(|kind| kind.parse()).collect();
        Some(Self {
            ceremony: word(&wire.ceremony).ok()?,
            wallet: word(&wire.wallet).ok()?,
            kinds: kinds.ok()?,
            standing: word(&wire.standing).ok()?,
            since: wire.since_ms.map(UnixMillis),
            until: wire.until_ms.map(UnixMillis),
            most: wire.most,
        })
    }
}

fn word<T: FromStr>(text: &str) -> Result<Option<T>, T::Err> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// The places in a list of what is wanted, and how many more ceremonies would match without the limit. Where no
/// criterion is given, everything matches.
#[must_use]
pub fn chosen(wanted: &[Wanted], list: &[Line<'_>]) -> (Vec<usize>, usize) {
    if wanted.is_empty() {
        return ((0..list.len()).collect(), 0);
    }
    let (mut fitting, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for want in wanted {
        let most = want.most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let fits = (0..).zip(list).filter(|(_, line)| want.takes(**line)).map(|(place, _)| place);
        for (count, place) in fits.enumerate() {
            fitting.insert(place);
            if count < most {
                taken.insert(place);
            }
        }
    }
    let left = fitting.len() - taken.len();
    (taken.into_iter().collect(), left)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    const LIST: [(&str, &str, &str, &str, i64); 6] = [
        ("t-6", "ops", "test-sign", "gathering", 60),
        ("t-5", "treasury", "test-sign", "closed", 50),
        ("a-4", "charter", "amend", "void: withdrawn by olga: closed for the day", 40),
        ("t-3", "treasury", "test-sign", "closed", 30),
        ("r-2", "treasury", "refresh", "committed", 20),
        ("d-1", "treasury", "dkg", "abandoned after the commit: closed", 10),
    ];

    fn list() -> Vec<Line<'static>> {
        let line = |(ceremony, wallet, kind, phase, opened)| Line {
            ceremony,
            wallet,
            kind,
            phase,
            opened: UnixMillis(opened),
        };
        LIST.map(line).to_vec()
    }

    fn names(wanted: &[Wanted]) -> (Vec<&'static str>, usize) {
        let (places, left) = chosen(wanted, &list());
        (places.into_iter().map(|place| LIST[place].0).collect(), left)
    }

    #[test]
    fn everything_is_listed_where_nothing_is_named() {
        assert_eq!(names(&[]).0.len(), LIST.len());
        assert_eq!(names(&[Wanted::default()]).0.len(), LIST.len());
    }

    #[test]
    fn everything_that_is_given_must_apply() {
        let treasury = || Wanted { wallet: Some("treasury".parse().unwrap()), ..Wanted::default() };
        assert_eq!(names(&[treasury()]).0, ["t-5", "t-3", "r-2", "d-1"]);
        let kinds = vec![CeremonyKind::Refresh, CeremonyKind::Dkg, CeremonyKind::Amend];
        assert_eq!(names(&[Wanted { kinds, ..treasury() }]).0, ["r-2", "d-1"]);
        let since = Some(UnixMillis(30));
        assert_eq!(names(&[Wanted { since, ..treasury() }]).0, ["t-5", "t-3"]);
        let until = Some(UnixMillis(30));
        assert_eq!(names(&[Wanted { until, ..treasury() }]).0, ["r-2", "d-1"]);
        assert_eq!(names(&[Wanted::one("t-6".parse().unwrap())]).0, ["t-6"]);
        let elsewhere = Wanted { ceremony: Some("t-6".parse().unwrap()), ..treasury() };
        assert!(names(&[elsewhere]).0.is_empty());
    }

    #[test]
    fn what_any_wish_takes_is_listed_once_and_what_a_number_leaves_out_is_counted() {
        let most = |most| Some(most);
        let closed = |most| Wanted { standing: Some(Standing::Closed), most, ..Wanted::default() };
        assert_eq!(names(&[closed(most(1))]), (vec!["t-5"], 1));
        assert_eq!(names(&[closed(most(0))]), (vec![], 2));
        assert_eq!(names(&[closed(most(1)), closed(most(5))]), (vec!["t-5", "t-3"], 0));
        let refreshes = Wanted::of_kinds([CeremonyKind::Refresh]);
        assert_eq!(names(&[closed(most(1)), refreshes]), (vec!["t-5", "r-2"], 1));
    }

    #[test]
    fn where_a_ceremony_stands_is_told_by_the_phase_and_not_by_its_reason() {
        for (phase, stands) in [
            ("gathering", [Standing::Running, Standing::Gathering].as_slice()),
            ("authorised", &[Standing::Running, Standing::Authorised]),
            ("committed", &[Standing::Running, Standing::Committed]),
            ("closed", &[Standing::Closed]),
            ("abandoned after the commit: closed", &[Standing::Abandoned]),
            ("void: withdrawn by olga, closed", &[Standing::Void]),
            ("closed DISPUTED", &[Standing::Closed, Standing::Disputed]),
            ("committed DISPUTED", &[Standing::Running, Standing::Committed, Standing::Disputed]),
            ("abandoned after the commit: no DISPUTED", &[Standing::Abandoned, Standing::Disputed]),
            ("void: withdrawn by olga: it was DISPUTED, so to say", &[Standing::Void]),
            ("disputed", &[]),
        ] {
            for standing in Standing::ALL {
                assert_eq!(standing.is(phase), stands.contains(&standing), "{phase} as {standing}");
            }
        }
    }

    #[test]
    fn wish_is_read_as_it_was_asked_and_one_of_something_unknown_takes_nothing() {
        let whole = Wanted {
            ceremony: Some("t-6".parse().unwrap()),
            wallet: Some("treasury".parse().unwrap()),
            kinds: CeremonyKind::ALL.to_vec(),
            standing: Some(Standing::Void),
            since: Some(UnixMillis(-1)),
            until: Some(UnixMillis(7)),
            most: Some(3),
        };
        for wanted in [whole.clone(), Wanted::default()] {
            assert_eq!(Wanted::from_wire(&wanted.to_wire()), Some(wanted));
        }
        let changes: [fn(&mut bus::Wanted); 4] = [
            |wire| wire.ceremony = "not an id".to_owned(),
            |wire| wire.wallet = "NOT A WALLET".to_owned(),
            |wire| wire.kinds = vec!["roll-call".to_owned()],
            |wire| wire.standing = "asleep".to_owned(),
        ];
        for change in changes {
            let mut wire = whole.to_wire();
            change(&mut wire);
            assert_eq!(Wanted::from_wire(&wire), None);
        }
    }
}
