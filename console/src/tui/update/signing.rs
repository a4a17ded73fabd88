//! Who is asked to sign or to end a ceremony, and why nobody is.

use std::collections::BTreeSet;

use ceremonies::ceremony::Ceremony;
use ceremonies::charter::Role;
use ceremonies::ids::NodeIndex;
use ceremonies::text::chain;
use zeroize::Zeroizing;

use super::super::model::{Model, Popup, Review, ReviewAct, Screen, Who, WhoFor};
use super::super::turn;
use super::reading::log;
use super::{Effect, show};
use crate::config::Me;

pub(super) fn sign_step(model: &mut Model) {
    if model.screen != Screen::Ceremonies || model.open.is_none() {
        show(model, "Sign what?", "Choose a ceremony first: 2, then Enter.");
        return;
    }
    let Some(ceremony) = model.ceremony() else {
        show(model, "Nothing to sign", "This ceremony has not been read.");
        return;
    };
    let people = turn::offered(ceremony, &model.cluster.me);
    if let Some(why) = nothing_to_sign(model, ceremony) {
        show(model, "Nothing to sign", why);
    } else if people.is_empty() {
        let why = nobody_signs(model, ceremony);
        show(model, "Nobody here can sign", why);
    } else if let Some(doubt) = new_doubt(model) {
        let text = format!(
            "{doubt}\n\nWhat is signed now may be wasted: put that right first (Enter on the node, screen 1, says how). \
             Press s again to sign all the same."
        );
        show(model, "Wait", text);
    } else {
        model.popup = Some(Popup::Who(Who { people, selected: 0, purpose: WhoFor::Step }));
    }
}

/// Why nobody signs anything in a ceremony now, if nobody does.
fn nothing_to_sign(model: &Model, ceremony: &Ceremony) -> Option<String> {
    if !model.is_running(ceremony) {
        return Some(format!("The ceremony is over: {}.", ceremony.phase_at(model.now)));
    }
    let is_theirs = turn::step_to_sign(ceremony).is_none();
    is_theirs.then(|| match ceremony.current_step() {
        Some(step) => format!("The enclaves do the open step, `{}`: nobody signs it.", step.title),
        None => "No step is open.".to_owned(),
    })
}

/// Whom the open step waits for, and since when those here who have signed it are on record.
fn nobody_signs(model: &Model, ceremony: &Ceremony) -> String {
    let mut text = "This step waits for people who do not sign at this console.".to_owned();
    let signed = turn::step_to_sign(ceremony).map(|step| ceremony.signed(&step.id));
    for signed in signed.into_iter().flatten() {
        if model.cluster.me.iter().any(|me| me.person == signed.person) {
            text += &format!(
                "\n{} has already signed it: on record since entry {}, {}.",
                signed.person, signed.seq, signed.time
            );
        }
    }
    text
}

/// What stands against signing now, unless that very thing was shown before.
fn new_doubt(model: &mut Model) -> Option<String> {
    let doubts = model.doubts(model.ceremony()?);
    let nodes: BTreeSet<NodeIndex> = doubts.keys().copied().collect();
    let is_new = !nodes.is_subset(&model.doubted);
    model.doubted = nodes;
    is_new.then(|| doubts.into_values().collect::<Vec<_>>().join("\n"))
}

pub(super) fn withdraw(model: &mut Model) {
    let open = model.ceremony().filter(|_| model.screen == Screen::Ceremonies);
    let Some(ceremony) = open else {
        show(model, "Withdraw what?", "Choose a ceremony first: 2, then Enter.");
        return;
    };
    if !model.is_running(ceremony) {
        let why = format!("The ceremony is over: {}.", ceremony.phase_at(model.now));
        return show(model, "Nothing to withdraw", why);
    }
    let acting = |me: &&Me| {
        (me.role != Role::Administrator || me.person == ceremony.manifest().administrator)
            && !ceremony.signatures().iter().any(|s| s.person == me.person && s.role != me.role)
    };
    let people: Vec<Me> = model.cluster.me.iter().filter(acting).cloned().collect();
    if people.is_empty() {
        show(model, "Nobody here can sign", "Nobody who signs at this console has a role in this ceremony.");
    } else {
        model.popup = Some(Popup::Who(Who { people, selected: 0, purpose: WhoFor::Withdraw }));
    }
}

/// What signs a review: for the ceremony as its log is known here. What has been signed or has ended since the statement
/// was shown is not signed.
pub(super) fn sign(
    model: &mut Model,
    review: Box<Review>,
    passphrase: Option<Zeroizing<String>>,
) -> Vec<Effect> {
    let known = match &review.act {
        ReviewAct::Open(_) => Vec::new(),
        ReviewAct::Sign(id, signature) | ReviewAct::Release(id, signature, _) => {
            let chapter = model.book.get(id).ok_or_else(|| format!("{id} is not known any more"));
            let statement = chapter.and_then(|chapter| {
                signature.0.statement(&chapter.ceremony, model.now).map_err(|error| chain(&error))
            });
            let changed = || "The ceremony has gone on, and the statement is another now: read it again.";
            match statement {
                Ok(statement) if statement == review.statement => log(model, id),
                Ok(_) => return refuse(model, changed()),
                Err(why) => return refuse(model, why),
            }
        }
    };
    model.busy = true;
    model.say("Signing… An SSH agent or a security key may wait for you: touch it, or answer there.");
    vec![Effect::Sign(review, passphrase, known)]
}

pub(super) fn refuse(model: &mut Model, why: impl Into<String>) -> Vec<Effect> {
    show(model, "Nothing was signed", why);
    Vec::new()
}
