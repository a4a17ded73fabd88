//! Whose turn it is: which of the people who sign at this console a ceremony waits for.

use ceremonies::ceremony::Ceremony;
use ceremonies::script::{Act, Step};

use crate::config::Me;

/// The step that people sign now.
pub(super) fn step_to_sign(ceremony: &Ceremony) -> Option<&Step> {
    ceremony.current_step().filter(|step| !ceremony.signers(step).is_empty())
}

/// Who of these people could sign the open step now; those for whom it still waits come first.
fn candidates(ceremony: &Ceremony, people: &[Me]) -> Vec<Me> {
    let Some(step) = step_to_sign(ceremony) else { return Vec::new() };
    let could = |me: &&Me| {
        ceremony.signers(step).get(&me.role).is_some_and(|count| *count > 0)
            && !has_signed(ceremony, step, me)
            && !ceremony.signatures().iter().any(|s| s.person == me.person && s.role != me.role)
    };
    let mut people: Vec<Me> = people.iter().filter(could).cloned().collect();
    people.sort_by_key(|me| !waits_for(ceremony, step, me));
    people
}

/// Who is asked to sign the open step: those for whom it waits. A verdict may be given by anybody who could, since it may
/// be that something was wrong.
pub(super) fn offered(ceremony: &Ceremony, people: &[Me]) -> Vec<Me> {
    let is_verdict = step_to_sign(ceremony).is_some_and(|step| step.act == Act::Agree);
    if is_verdict { candidates(ceremony, people) } else { awaited(ceremony, people) }
}

/// Those for whom the open step waits.
pub(super) fn awaited(ceremony: &Ceremony, people: &[Me]) -> Vec<Me> {
    let mut awaited = candidates(ceremony, people);
    awaited.retain(|me| step_to_sign(ceremony).is_some_and(|step| waits_for(ceremony, step, me)));
    awaited
}

fn has_signed(ceremony: &Ceremony, step: &Step, me: &Me) -> bool {
    match step.act {
        Act::Recover | Act::Prove => ceremony.releases_wanted(step.act, &me.person).is_empty(),
        Act::Open
        | Act::Attest
        | Act::Confirm
        | Act::Approve
        | Act::Generate
        | Act::ReadBack
        | Act::TestSign
        | Act::Sign
        | Act::Broadcast
        | Act::Backup
        | Act::Commit
        | Act::Retire
        | Act::Agree
        | Act::Close => ceremony.signed(&step.id).any(|signed| signed.person == me.person),
    }
}

/// Whether fewer people in this one's role have signed than the step asks for; of a custodian, whether a backup that they
/// open is still to be released.
fn waits_for(ceremony: &Ceremony, step: &Step, me: &Me) -> bool {
    if matches!(step.act, Act::Recover | Act::Prove) {
        return !has_signed(ceremony, step, me);
    }
    let signed = ceremony.signed(&step.id).filter(|signed| signed.role == me.role).count();
    let wanted = ceremony.signers(step).get(&me.role).copied().unwrap_or_default();
    signed < usize::try_from(wanted).unwrap_or(usize::MAX)
}
