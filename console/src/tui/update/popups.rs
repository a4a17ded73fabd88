//! Keys while a popup is open: every path to a signature. Nothing is signed before the last line of its statement has
//! been on the screen and [`SIGN_WORD`] has been typed under it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use ceremonies::charter::{CeremonyKind, Role};
use ceremonies::ids::{Line as TextLine, NodeIndex};
use ceremonies::manifest::{Manifest, Way};
use ceremonies::script::Act;
use ceremonies::statement::Answer;
use ceremonies::text::chain;
use ceremonies::words;
use crossterm::event::{KeyCode, KeyEvent};

use super::super::model::{
    Model, OpenForm, Page, Popup, Review, ReviewAct, Shown, SignatureFor, Typing, TypingFor, Who, WhoFor,
};
use super::signing::sign;
use super::{Effect, scrolled, show, type_into};
use crate::config::Me;
use crate::custodian::Released;
use crate::readiness::{Readiness, Share};
use crate::room::{self, LIFETIME_MS, Opening, Signature, Topic};
use crate::terminal::types;

/// Notes what a frame has shown; whether that changes what the next one shows.
pub(super) fn shown(model: &mut Model, shown: Shown) -> bool {
    model.fits = shown.fits;
    model.scroll = model.scroll.min(shown.beyond);
    model.popup_scroll = model.popup_scroll.min(shown.beyond_popup);
    let (Some(Popup::Review(review)), Some(page)) = (&mut model.popup, shown.page) else { return false };
    let was_read = review.read;
    review.scroll = page.first;
    if review.page.lines != page.lines {
        review.seen = 0;
    }
    if page.first <= review.seen {
        review.seen = review.seen.max(page.first + page.height);
    }
    review.read |= page.is_last() && review.seen >= page.lines;
    review.page = page;
    was_read != review.read
}

pub(super) fn in_popup(model: &mut Model, key: KeyEvent) -> Vec<Effect> {
    let Some(popup) = model.popup.take() else { return Vec::new() };
    // A key with a modifier edits text and is never a command.
    let code = if types(&key) { key.code } else { KeyCode::Null };
    match (popup, code) {
        (Popup::Quit, KeyCode::Char('y')) => return vec![Effect::Quit],
        (Popup::Quit, _)
        | (
            Popup::Help
            | Popup::Message { .. }
            | Popup::Fingerprint { .. }
            | Popup::Node(_)
            | Popup::Wallet(_),
            KeyCode::Enter | KeyCode::Esc,
        ) => {}
        // Whoever types on while one appears must not be giving commands.
        (
            popup @ (Popup::Help
            | Popup::Message { .. }
            | Popup::Fingerprint { .. }
            | Popup::Node(_)
            | Popup::Wallet(_)),
            code,
        ) => {
            model.popup = Some(popup);
            model.popup_scroll = scrolled(model.popup_scroll, code).unwrap_or(model.popup_scroll);
        }
        (Popup::Open(form), KeyCode::Esc) => {
            model.draft = Some(OpenForm { trouble: String::new(), ..form });
            model.say("Cancelled; nothing was signed. o shows what was filled in.");
        }
        (_, KeyCode::Esc) => model.say("Cancelled; nothing was signed."),
        (Popup::Open(form), code) => in_open_form(model, form, code, &key),
        (Popup::Who(who), code) => return in_who(model, who, code),
        (Popup::Verdict { me }, code) => in_verdict(model, me, code),
        (Popup::Type(typing), KeyCode::Enter) => typed(model, typing),
        (Popup::Review(review), code) => return in_review(model, review, code, &key),
        (Popup::Passphrase { review, typed }, KeyCode::Enter) => {
            return sign(model, review, Some(typed));
        }
        (popup @ (Popup::Type(_) | Popup::Passphrase { .. }), _) => {
            model.popup = Some(popup);
            type_into(model, &key);
        }
    }
    Vec::new()
}

/// A charter is a file, and belongs on a screen of its own before anybody opens anything.
const AMENDING: &str = "An amendment is opened from the command line, with the file of the new charter: \
    custody charter diff OLD NEW, then custody ceremony open amend --charter NEW --purpose TEXT. Everything after \
    that is done here.";

/// A transaction is built from what the network knows, which this console does not ask.
const TRANSFERRING: &str = "A transaction is opened from the command line, with its file: custody sweep writes one and \
    shows it, then custody ceremony open transfer --transaction FILE --purpose TEXT. Everything after that is done here.";

/// Copies are counted with paper in hand, and named by serials and recipients that nobody types twice.
const TAKING_STOCK: &str = "An inventory is opened from the command line, with its items: custody ceremony open \
    inventory --wallet W --generation N --sheet 1=SERIAL --purpose TEXT. Everything after that is done here.";

/// How a kind is opened that is not opened with this form.
fn elsewhere(kind: CeremonyKind) -> Option<&'static str> {
    match kind {
        CeremonyKind::Amend => Some(AMENDING),
        CeremonyKind::Transfer => Some(TRANSFERRING),
        CeremonyKind::Inventory => Some(TAKING_STOCK),
        CeremonyKind::Dkg
        | CeremonyKind::TestSign
        | CeremonyKind::Refresh
        | CeremonyKind::Recover
        | CeremonyKind::Rebuild => None,
    }
}

/// The kinds in the order in which the form offers them: what is held most often first.
const KINDS: [CeremonyKind; CeremonyKind::ALL.len()] = [
    CeremonyKind::Dkg,
    CeremonyKind::TestSign,
    CeremonyKind::Refresh,
    CeremonyKind::Recover,
    CeremonyKind::Rebuild,
    CeremonyKind::Transfer,
    CeremonyKind::Amend,
    CeremonyKind::Inventory,
];

#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing here, or are typed")]
fn in_open_form(model: &mut Model, mut form: OpenForm, code: KeyCode, key: &KeyEvent) {
    match code {
        KeyCode::Tab | KeyCode::Down => form.field = (form.field + 1) % form.fields(),
        KeyCode::BackTab | KeyCode::Up => form.field = (form.field + form.fields() - 1) % form.fields(),
        // Text is changed at its end alone, so these keys mean the kind wherever the cursor is.
        KeyCode::Left | KeyCode::Right => {
            let (place, count) = (KINDS.iter().position(|kind| *kind == form.kind).unwrap_or(0), KINDS.len());
            let step = if code == KeyCode::Right { 1 } else { count - 1 };
            form.kind = KINDS[(place + step) % count];
            form.field = form.field.min(form.fields() - 1);
            elsewhere(form.kind).unwrap_or_default().clone_into(&mut form.trouble);
        }
        KeyCode::Enter if let Some(how) = elsewhere(form.kind) => how.clone_into(&mut form.trouble),
        KeyCode::Enter if form.text().is_some_and(|text| text.is_empty()) => {
            form.trouble = format!("{} is empty", form.field_name());
        }
        KeyCode::Enter if form.field + 1 < form.fields() => form.field += 1,
        KeyCode::Enter => return review_opening(model, form),
        _ => {
            model.popup = Some(Popup::Open(form));
            return type_into(model, key);
        }
    }
    model.popup = Some(Popup::Open(form));
}

fn review_opening(model: &mut Model, form: OpenForm) {
    if let Some(doubt) = doubt(model, &form).filter(|doubt| *doubt != form.trouble) {
        model.popup = Some(Popup::Open(OpenForm { trouble: doubt, ..form }));
        return;
    }
    let me = model.cluster.me.iter().find(|me| me.role == Role::Administrator).cloned();
    let prepared = (|| -> Result<(Manifest, String, Me)> {
        let me = me.context("no administrator signs at this console")?;
        let wallet = form.wallet.parse();
        let opening = Opening {
            topic: match form.kind {
                CeremonyKind::Dkg | CeremonyKind::TestSign | CeremonyKind::Refresh => {
                    Topic::of(form.kind, wallet?)
                }
                CeremonyKind::Recover | CeremonyKind::Rebuild => {
                    Topic::losses(form.kind, wallet?, lost_nodes(&form.lost)?)
                }
                CeremonyKind::Amend => bail!(AMENDING),
                CeremonyKind::Transfer => bail!(TRANSFERRING),
                CeremonyKind::Inventory => bail!(TAKING_STOCK),
            },
            purpose: form.purpose.parse().context("purpose")?,
            administrator: me.person.clone(),
            lifetime_ms: LIFETIME_MS,
        };
        let (manifest, statement) = room::prepare(&model.book, &opening)?;
        Ok((manifest, statement, me))
    })();
    match prepared {
        Ok((manifest, statement, me)) => {
            let act = ReviewAct::Open(manifest.as_bytes().to_vec());
            model.draft = Some(form);
            model.popup = Some(Popup::Review(review(statement, act, me)));
        }
        Err(why) => model.popup = Some(Popup::Open(OpenForm { trouble: chain(why.as_ref()), ..form })),
    }
}

/// Why a ceremony would fail or is not needed, as nodes report their shares now.
fn doubt(model: &Model, form: &OpenForm) -> Option<String> {
    let wallets = model.health().wallets;
    let wallet = wallets.iter().find(|wallet| wallet.wallet.as_str() == form.wallet)?;
    let why = match form.kind {
        // It tests every set of nodes that can sign together.
        CeremonyKind::TestSign => wallet.lacking(wallet.shares.keys())?,
        CeremonyKind::Recover => {
            let named = lost_nodes(&form.lost).ok()?;
            // Who does not exist is refused, and not doubted.
            if !named.keys().all(|node| wallet.shares.contains_key(node)) {
                return None;
            }
            match named.keys().find(|node| wallet.shares.get(node) == Some(&Share::Present)) {
                Some(present) => format!("node {present} shows its share, so it has not lost it"),
                None => lost_besides(wallet, &named)?,
            }
        }
        // It waits for every node's enclave, and none attests without its share.
        CeremonyKind::Refresh => lost_besides(wallet, &BTreeMap::new())?,
        CeremonyKind::Rebuild => lost_besides(wallet, &lost_nodes(&form.lost).ok()?)?,
        CeremonyKind::Dkg | CeremonyKind::Transfer | CeremonyKind::Amend | CeremonyKind::Inventory => {
            return None;
        }
    };
    Some(format!("{}: {why}. Press Enter again to open it all the same.", wallet.wallet))
}

/// A node that has lost its share, and is not to get it back in this ceremony.
fn lost_besides(wallet: &Readiness, named: &BTreeMap<NodeIndex, Way>) -> Option<String> {
    let is_lost = |(node, share): &(&NodeIndex, &Share)| **share == Share::Lost && !named.contains_key(node);
    let (node, _) = wallet.shares.iter().find(is_lost)?;
    Some(format!("node {node} has lost its share, and would never attest: recover it"))
}

fn lost_nodes(typed: &str) -> Result<BTreeMap<NodeIndex, Way>> {
    let named = typed.split(',').map(|node| room::lost_node(node.trim())).collect::<Result<_, _>>()?;
    Ok(room::lost_nodes(named)?)
}

fn review(statement: String, act: ReviewAct, me: Me) -> Review {
    let page = Page::default();
    let (doubts, rivals) = (Vec::new(), Vec::new());
    Review {
        statement,
        act,
        me,
        doubts,
        rivals,
        typed: String::new(),
        scroll: 0,
        page,
        seen: 0,
        read: false,
        code: false,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing here, or are typed")]
fn in_who(model: &mut Model, mut who: Who, code: KeyCode) -> Vec<Effect> {
    match code {
        KeyCode::Up | KeyCode::Char('k') => who.selected = who.selected.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => {
            who.selected = (who.selected + 1).min(who.people.len().saturating_sub(1));
        }
        KeyCode::Enter => {
            if let Some(me) = who.people.get(who.selected).cloned() {
                return chosen(model, me, who.purpose);
            }
        }
        _ => {}
    }
    model.popup = Some(Popup::Who(who));
    Vec::new()
}

fn chosen(model: &mut Model, me: Me, purpose: WhoFor) -> Vec<Effect> {
    let typing = |question, me| Popup::Type(typing(question, me));
    let act = model.step_to_sign().map(|(_, step)| step.act);
    match (purpose, act) {
        (WhoFor::Withdraw, _) => model.popup = Some(typing(TypingFor::Withdrawal, me)),
        (WhoFor::Step, Some(act @ (Act::Prove | Act::Recover))) => return unwrap(model, me, act),
        (WhoFor::Step, Some(Act::ReadBack)) => model.popup = Some(typing(TypingFor::Words, me)),
        (WhoFor::Step, Some(Act::Broadcast)) => model.popup = Some(typing(TypingFor::Withholding, me)),
        (WhoFor::Step, Some(Act::Agree)) => model.popup = Some(Popup::Verdict { me }),
        (WhoFor::Step, Some(_)) => review_step(model, me, Answer::None),
        (WhoFor::Step, None) => model.say("The step is no longer open."),
    }
    Vec::new()
}

/// Reads the next backup that this custodian can release.
fn unwrap(model: &mut Model, me: Me, act: Act) -> Vec<Effect> {
    let Some(ceremony) = model.ceremony().cloned() else { return Vec::new() };
    let Some(node) = ceremony.releases_wanted(act, &me.person).first().copied() else {
        model.say("Every backup that you keep has been released.");
        return Vec::new();
    };
    model.busy = true;
    model.message =
        format!("Opening the backup of node {node}… An age plugin may wait for you: touch its key.");
    vec![Effect::Unwrap(me, Box::new(ceremony), act, node)]
}

/// Shows the statement of a release before anything leaves this machine.
pub(super) fn review_release(model: &mut Model, me: Me, released: Released) {
    review_step(model, me, Answer::Release(released.release));
    if let Some(Popup::Review(review)) = &mut model.popup
        && let ReviewAct::Sign(id, signature) = &review.act
    {
        review.act = ReviewAct::Release(id.clone(), signature.clone(), released.object);
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing here, or are typed")]
fn in_verdict(model: &mut Model, me: Me, code: KeyCode) {
    match code {
        KeyCode::Char('a') => review_step(model, me, Answer::Agree),
        KeyCode::Char('d') => {
            model.popup = Some(Popup::Type(typing(TypingFor::Disagreement, me)));
        }
        _ => model.popup = Some(Popup::Verdict { me }),
    }
}

fn typing(question: TypingFor, me: Me) -> Typing {
    Typing { question, me, text: String::new(), trouble: String::new() }
}

fn typed(model: &mut Model, typing: Typing) {
    let reason = || typing.text.trim().parse::<TextLine>().context("the reason");
    let answer = match typing.question {
        TypingFor::Words => Ok(Answer::Words(words::normalise(&typing.text))),
        TypingFor::Disagreement => reason().map(Answer::Disagree),
        TypingFor::Withdrawal => reason().map(Answer::Withdraw),
        TypingFor::Withholding => reason().map(Answer::Withheld),
    };
    let reviewed = answer.and_then(|answer| review_of(model, typing.me.clone(), answer));
    model.popup = Some(match reviewed {
        Ok(review) => Popup::Review(review),
        // What was typed stays, to be mended.
        Err(why) => Popup::Type(Typing { trouble: chain(why.as_ref()), ..typing }),
    });
}

/// Shows the statement, unless the ceremony would refuse it: then says why.
fn review_step(model: &mut Model, me: Me, answer: Answer) {
    match review_of(model, me, answer) {
        Ok(review) => model.popup = Some(Popup::Review(review)),
        Err(why) => show(model, "Not possible now", chain(why.as_ref())),
    }
}

/// The statement of an answer, to be read and signed.
///
/// # Errors
/// Why the ceremony would refuse it.
fn review_of(model: &Model, me: Me, answer: Answer) -> Result<Review> {
    let ceremony = model.ceremony().context("no ceremony is open on this screen")?;
    let step = match (&answer, ceremony.current_step()) {
        (Answer::Withdraw(_), _) => "withdraw".parse().ok(),
        (_, Some(step)) => Some(step.id.clone()),
        (_, None) => None,
    };
    let ends = matches!(answer, Answer::Withdraw(_));
    let signature = Signature::by(&me, step.context("the step is no longer open")?, answer);
    let statement = signature.statement(ceremony, model.now)?;
    let act = ReviewAct::Sign(ceremony.manifest().ceremony.clone(), Box::new(SignatureFor(signature)));
    // Who ends a ceremony has a reason.
    let (doubts, rivals) = if ends {
        (Vec::new(), Vec::new())
    } else {
        (model.doubts(ceremony).into_values().collect(), model.rivals(ceremony))
    };
    Ok(Review { doubts, rivals, ..review(statement, act, me) })
}

/// The word that has to be typed before anything is signed.
pub const SIGN_WORD: &str = "sign";

#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing here, or are typed")]
fn in_review(model: &mut Model, mut review: Review, code: KeyCode, key: &KeyEvent) -> Vec<Effect> {
    let last = review.page.lines.saturating_sub(review.page.height);
    let leaf = review.page.height.saturating_sub(1).max(1);
    match code {
        KeyCode::Up => review.scroll = review.scroll.saturating_sub(1),
        KeyCode::Down => review.scroll = (review.scroll + 1).min(last),
        KeyCode::PageUp => review.scroll = review.scroll.saturating_sub(leaf),
        KeyCode::PageDown => review.scroll = (review.scroll + leaf).min(last),
        KeyCode::Home => review.scroll = 0,
        KeyCode::End if review.read => review.scroll = last,
        // Every line must have been on the screen: what was not comes next.
        KeyCode::End => review.scroll = review.seen.min(last),
        KeyCode::Tab => review.code = !review.code,
        KeyCode::Enter if review.code => model.say("Press Tab: what you sign must be in front of you."),
        KeyCode::Enter if review.read && review.typed.trim().eq_ignore_ascii_case(SIGN_WORD) => {
            return sign(model, Box::new(review), None);
        }
        KeyCode::Enter if review.read => {
            review.typed.clear();
            model.message = format!("Type `{SIGN_WORD}` to sign, or press Esc to cancel.");
        }
        KeyCode::Enter => model.say("Read all of it before you sign: PageDown, or End."),
        _ => {
            model.popup = Some(Popup::Review(review));
            type_into(model, key);
            return Vec::new();
        }
    }
    model.popup = Some(Popup::Review(review));
    Vec::new()
}
