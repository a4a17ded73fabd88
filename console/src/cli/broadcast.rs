//! Sending a ceremony's signed transaction from the command line, or saying why it is not sent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ceremonies::ceremony::Ceremony;
use ceremonies::chain::transaction::Confirmation;
use ceremonies::charter::Role;
use ceremonies::ids::{CeremonyId, Line, PersonName};
use ceremonies::script::Act;
use ceremonies::statement::Answer;
use clap::{ArgGroup, Args};
use serde_json::json;
use zeroize::Zeroizing;

use super::ceremony::{ceremony, someone, submit, warn_of_rivals};
use super::hand::{self, Hand};
use super::named::one_of;
use super::{Desk, Output, note};
use crate::broadcast::{Endpoint, Patience, broadcast};
use crate::file::{MAX_SETTINGS, read};
use crate::room::{Signature, must_be_new, now};

/// How long between two looks at the endpoint: blocks come every few seconds at most.
const LOOK: Duration = Duration::from_secs(5);

/// What a program does when nobody is there to type the word.
const UNATTENDED: &str = "a program passes --unsigned, reads the statement that this prints, and then signs it with \
    custody ceremony sign ID --step STEP --role ROLE --block HASH --height N --statement-hash SHA256";

#[derive(Args)]
#[command(group = ArgGroup::new("outcome").required(true).args(["endpoint", "withhold"]))]
pub(super) struct BroadcastArguments {
    /// Which ceremony.
    id: CeremonyId,
    /// Where to send it: the JSON-RPC address of an Ethereum node or, for Bitcoin, the API address of an Esplora
    /// server.
    #[arg(long, value_name = "URL", conflicts_with = "statement_hash")]
    endpoint: Option<String>,
    /// A PEM file with the certificate authorities of your own node; no others are then trusted.
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    ca: Option<PathBuf>,
    /// A file with the token that the endpoint requires (`Authorization: Bearer`).
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    bearer: Option<PathBuf>,
    /// Do not send it, and sign this reason instead.
    #[arg(long, value_name = "REASON")]
    withhold: Option<Line>,
    /// How many confirmations to wait for, its own block included.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    confirmations: u64,
    /// How long to wait for that.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    wait: u64,
    /// The role in which the step is signed.
    #[arg(long, default_value = "operator", value_parser = one_of(&Role::ALL))]
    role: Role,
    /// Who signs; needed if the cluster file lists several people who could.
    #[arg(long)]
    person: Option<PersonName>,
    /// Do not sign here: send it, wait for its block, and print the statement to be signed.
    #[arg(long, conflicts_with_all = ["key", "statement_hash", "withhold"])]
    unsigned: bool,
    #[command(flatten)]
    hand: Hand,
}

pub(super) async fn run(path: Option<PathBuf>, output: Output, arguments: BroadcastArguments) -> Result<()> {
    let BroadcastArguments {
        id,
        endpoint,
        ca,
        bearer,
        withhold,
        confirmations,
        wait,
        role,
        person,
        unsigned,
        hand,
    } = arguments;
    let (mut desk, _) = Desk::open_at(path, &id).await?;
    let open = ceremony(&desk, &id)?;
    let step = open.script().step_for(Act::Broadcast);
    let step = step
        .with_context(|| format!("{id} does not sign a transaction: there is nothing to send"))?
        .id
        .clone();
    let person = match person {
        Some(person) => person,
        None => someone(&desk, role, Some((open, &step)))?.person.clone(),
    };
    // Checked before anything leaves this machine: what is sent cannot be called back.
    must_be_new(open, &step, &person, &Answer::None, now())?;
    open.may_sign(&step, role, &person, now())?;
    if !unsigned {
        // Nobody can know the hash of a statement yet that will name a block.
        hand.must_be_able_to_ask(UNATTENDED)?;
    }
    warn_of_rivals(&desk, open).await;
    let answer = match (endpoint, withhold) {
        // Parsed here: a refusal by clap would repeat the address, and with it somebody's key.
        (Some(endpoint), _) => {
            let endpoint =
                of_a_firm(endpoint.parse().context("--endpoint")?, ca.as_deref(), bearer.as_deref())?;
            let wait = Duration::from_secs(wait);
            Answer::Broadcast(sent(open, &endpoint, Patience { confirmations, wait, look: LOOK }).await?)
        }
        (None, reason) => Answer::Withheld(reason.context("give --endpoint, or --withhold with a reason")?),
    };
    // Others may have gone on meanwhile.
    desk.catch_up(&id).await?;
    let signature = Signature { step, role, person, answer };
    let statement = signature.statement(ceremony(&desk, &id)?, now())?;
    if let (true, Answer::Broadcast(confirmation)) = (unsigned, &signature.answer) {
        let mut value = hand::rendered(&statement);
        value["block"] = json!(confirmation.block());
        value["height"] = json!(confirmation.height);
        output.print_exactly(&value, &statement)?;
        hand::submit_with(&format!(
            "custody ceremony submit {id} --step {} --role {role} --person {} --block {} --height {} --signature FILE.sig",
            signature.step,
            signature.person,
            confirmation.block(),
            confirmation.height
        ));
        return Ok(());
    }
    let armoured = hand.sign(&desk, role, &signature.person, &statement)?;
    submit(&desk, output, &id, &signature, armoured).await
}

/// The endpoint, with the authority that vouches for it and the token that it asks for, where there are any.
fn of_a_firm(mut endpoint: Endpoint, ca: Option<&Path>, bearer: Option<&Path>) -> Result<Endpoint> {
    if let Some(file) = ca {
        endpoint =
            endpoint.trusting(&read("certificate authorities", file, MAX_SETTINGS)?).context("--ca")?;
    }
    if let Some(file) = bearer {
        let token = Zeroizing::new(read("bearer token", file, MAX_SETTINGS)?);
        let token = std::str::from_utf8(&token).context("--bearer: the file is not text")?;
        endpoint = endpoint.with_bearer(token.trim()).context("--bearer")?;
    }
    Ok(endpoint)
}

/// Sends the signed transaction and waits for its confirmation.
async fn sent(ceremony: &Ceremony, endpoint: &Endpoint, patience: Patience) -> Result<Confirmation> {
    let (transaction, signed) = ceremony
        .manifest()
        .transaction()
        .zip(ceremony.signed_transaction())
        .context("the transaction is not signed yet")?;
    note(&format!("sending to {}, then waiting up to {} s", endpoint.authority(), patience.wait.as_secs()));
    let tell = |standing: &str| note(&format!("{} {standing}", now()));
    Ok(broadcast(endpoint, transaction, &signed, &patience, tell).await?)
}
