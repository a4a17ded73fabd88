//! Ceremonies on paper whose people, agents and enclaves all sign whatever comes: what the fold makes of it.

use std::sync::LazyLock;

use ceremonies::ceremony::Rejection;
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::evidence::{Expected, verify};
use ceremonies::statement::Answer;
use ceremonies::wire::log;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use prost::Message as _;

use crate::cluster::{CHARTER, QUORUM, group, line};
use crate::keys::{OTHER_SHARING, SHARING};
use crate::kit::{MINUTE, Paper};

/// Most moves of one run.
const MOVES: usize = 24;
const STEPS: [&str; 8] =
    ["open", "identities", "approve", "read-back", "test-sign", "agree", "close", "withdraw"];

/// Where a run can begin.
static BEGINNINGS: LazyLock<[Paper; 6]> = LazyLock::new(|| {
    let closed = Paper::closed();
    let test_signing = closed.test_signing();
    [Paper::dkg(), Paper::authorised(), Paper::committed(), Paper::read_back(), closed, test_signing]
});

/// Plays the moves that the input calls for, and checks what must hold of any log that was taken.
///
/// # Panics
/// When something does not hold.
pub fn play(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(mut paper) = input.choose(&*BEGINNINGS).cloned() else { return };
    let begun = paper.log.len();
    for _ in 0..MOVES {
        if input.is_empty() || play_one(&mut paper, &mut input).is_err() {
            break;
        }
    }
    if paper.log.len() > begun {
        check(&paper);
    }
}

fn check(paper: &Paper) {
    let ceremony = &paper.ceremony;
    assert!(ceremony.committed().is_none() || !ceremony.can_never_commit(), "committed, and never to commit");
    if ceremony.manifest().kind == CeremonyKind::Dkg && ceremony.committed().is_some() {
        let approved: Vec<_> =
            ceremony.signatures().iter().filter(|s| s.step.as_str() == "approve").collect();
        for (role, count) in CHARTER.quorum(CeremonyKind::Dkg).unwrap() {
            let given = approved.iter().filter(|signature| signature.role == *role).count();
            assert!(given >= usize::try_from(*count).unwrap(), "committed with {given} approvals by {role}s");
        }
    }
    for one in ceremony.signatures() {
        let other = ceremony.signatures().iter().find(|s| s.person == one.person && s.role != one.role);
        assert!(other.is_none(), "{} signed in two roles", one.person);
    }
    let bundle = paper.material().bundle().expect("a log that was taken makes a bundle");
    let report = verify(&bundle, &Expected::default()).expect("a bundle that was just made verifies");
    assert_eq!(report.head, ceremony.head().hash);
}

fn play_one(paper: &mut Paper, input: &mut Unstructured<'_>) -> Result<()> {
    let by = input.int_in_range(1..=5)?;
    // Most moves are refused, which the kit sees to have no effect.
    let _: std::result::Result<(), Rejection> = match input.int_in_range(0..=10)? {
        0 => paper.attest(by),
        1 => paper.restart(by),
        2 | 3 => sign(paper, input)?,
        4 => {
            let sharing = if input.ratio(1, 8)? { &OTHER_SHARING } else { &SHARING };
            paper.prepare_with(by, &paper.record(sharing))
        }
        5 => paper.adopt(by),
        6 => test_sign(paper, by, input)?,
        7 => {
            let banned = input.int_in_range(0..=5)?;
            let (subset, attempt) = (parties(input)?, input.int_in_range(0..=6)?);
            paper.abort_banning(by, &group(&subset), attempt, Some(banned).filter(|node| *node != 0))
        }
        8 => match input.int_in_range(0..=1)? {
            0 => paper.fault(by),
            _ => {
                let (person, role) = *input.choose(&QUORUM)?;
                paper.withdraw(person, role)
            }
        },
        9 => {
            let length = usize::from(input.arbitrary::<u8>()?).min(input.len());
            match log::Event::decode(input.bytes(length)?).ok().and_then(|event| event.kind) {
                // What no reader would take as an entry cannot be made into one either.
                Some(kind)
                    if ceremonies::log::Event::try_from(log::Event { kind: Some(kind.clone()) }).is_ok() =>
                {
                    paper.append(by, kind)
                }
                Some(_) | None => Ok(()),
            }
        }
        _ => {
            paper.now = paper.now.plus(MINUTE * input.int_in_range::<i64>(0..=120)?);
            Ok(())
        }
    };
    Ok(())
}

fn sign(paper: &mut Paper, input: &mut Unstructured<'_>) -> Result<std::result::Result<(), Rejection>> {
    let step = *input.choose(&STEPS)?;
    let (person, own) = *input.choose(&QUORUM)?;
    let role = if input.ratio(1, 8)? { *input.choose(&Role::ALL)? } else { own };
    let answer = match input.int_in_range(0..=4)? {
        0 | 1 => Answer::None,
        2 => paper.ceremony.spoken_words().map_or(Answer::None, Answer::Words),
        3 => Answer::Agree,
        _ => Answer::Disagree(line("I could not see the screen")),
    };
    Ok(paper.sign(step, person, role, answer))
}

fn test_sign(
    paper: &mut Paper,
    by: u8,
    input: &mut Unstructured<'_>,
) -> Result<std::result::Result<(), Rejection>> {
    if paper.ceremony.record().is_none() {
        return Ok(Ok(()));
    }
    let due = paper.ceremony.due_subset();
    let subset = match due {
        Some(due) if !input.ratio(1, 4)? => due,
        Some(_) | None => group(&parties(input)?),
    };
    let attempt =
        if input.ratio(1, 4)? { input.int_in_range(0..=6)? } else { paper.ceremony.attempt(&subset) };
    Ok(paper.test_sign(by, &subset, attempt))
}

/// Some of the nodes.
fn parties(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mask: u8 = input.arbitrary()?;
    Ok((1..=5).filter(|node| mask & (1 << node) != 0).collect())
}
