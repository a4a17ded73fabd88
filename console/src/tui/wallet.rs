//! What is known of a wallet: as much as fits on its screen, and all of it in front of that.

use ceremonies::ids::{Generation, WalletName};
use ceremonies::wallet::Record;
use ceremonies::words;

use super::model::Model;
use crate::health::{Health, Level};
use crate::ledger::{self, Row};
use crate::sentence::joined;
use crate::standing;

/// A value with its name.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) text: String,
    /// How good or bad that is, if it is either.
    pub(super) level: Option<Level>,
}

/// Everything of a wallet but its copies, by what is known of the nodes.
pub(super) fn facts(model: &Model, record: &Record, health: &Health) -> Vec<Fact> {
    let plain = |name, text| Fact { name, text, level: None };
    let readiness = health.wallets.iter().find(|readiness| readiness.wallet == record.wallet);
    let signing = readiness.map(|readiness| Fact {
        name: "signing",
        text: format!("{} {}", readiness.can_sign.mark(), readiness.text()),
        level: Some(readiness.can_sign.level()),
    });
    let unfinished = standing::unfinished(&model.book, record, model.now);
    let unfinished =
        unfinished.map(|why| Fact { name: "standing", text: format!("! {why}"), level: Some(Level::Bad) });
    let made = format!("{} of {}, made by {}", record.threshold, record.public_shares.len(), record.ceremony);
    let rest = [
        plain("public key", record.public_key.to_string()),
        plain("words", words::spoken(&record.fingerprint())),
        plain("signed by", made),
    ];
    let upkeep = [plain("upkeep", upkeep(model, &record.wallet))];
    let warned = signing.into_iter().chain(unfinished).chain(upkeep);
    warned.chain(exposure(model, &record.wallet)).chain(rest).collect()
}

/// When a wallet's shares are to be refreshed.
fn upkeep(model: &Model, wallet: &WalletName) -> String {
    match model.book.refresh_due(wallet) {
        None => "the charter sets no refresh cadence".to_owned(),
        Some(due) if due < model.now => format!("! refresh OVERDUE since {due}"),
        Some(due) => format!("refresh by {due}"),
    }
}

/// Whether old copies of its shares still rebuild its key.
fn exposure(model: &Model, wallet: &WalletName) -> Option<Fact> {
    let exposed = model.book.exposure(wallet).into_iter().filter(|exposure| exposure.warns(model.now));
    let mut exposed: Vec<Generation> = exposed.map(|exposure| exposure.generation).collect();
    exposed.sort_unstable();
    let generations = if exposed.len() == 1 { "generation" } else { "generations" };
    let text = format!("! copies of {generations} {} can rebuild the key", joined(&exposed));
    (!exposed.is_empty()).then_some(Fact { name: "exposure", text, level: Some(Level::Warn) })
}

/// Every copy of its shares, past generations first, the oldest of them first: they may warn, and a small terminal cuts what comes last.
pub(super) fn copies(model: &Model, wallet: &WalletName) -> Vec<Row> {
    let (current, past): (Vec<_>, Vec<_>) =
        model.book.exposure(wallet).into_iter().partition(|exposure| exposure.current);
    past.iter().rev().chain(&current).flat_map(|exposure| ledger::rows(exposure, model.now)).collect()
}

/// All that is known of a wallet now.
pub(super) fn text(model: &Model, wallet: &WalletName) -> String {
    let wallets = model.wallets();
    let Some(known) = wallets.iter().find(|known| known.record.wallet == *wallet) else {
        return "This wallet is not known any more.".to_owned();
    };
    let facts = facts(model, &known.record, &model.health());
    let facts = facts.into_iter().map(|fact| format!("{}: {}", fact.name, fact.text));
    let copies = copies(model, wallet).into_iter().map(|row| row.text);
    let text: Vec<String> = facts.chain(["\nKnown copies of its shares:".to_owned()]).chain(copies).collect();
    text.join("\n")
}
