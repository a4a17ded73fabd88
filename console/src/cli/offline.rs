//! What needs no cluster: scripts, charters, bundles.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use ceremonies::attestation::{Measurement, TrustRoot};
use ceremonies::ceremony::Phase;
use ceremonies::charter::{CeremonyKind, Charter, ClusterKind, MAX_CHARTER};
use ceremonies::deploy::broker::{BrokerHost, nats_config};
use ceremonies::deploy::kms_policy::key_policy;
use ceremonies::evidence::{Expected, MAX_BUNDLE, Material, verify as verify_bundle};
use ceremonies::ids::UnixMillis;
use ceremonies::script::{MAX_SCRIPT, Script};
use ceremonies::text::utf8;
use clap::Subcommand;
use serde_json::json;

use super::in_force::InForce;
use super::{Desk, Output, misused, note};
use crate::client::{Reading, Recorded};
use crate::file::{MAX_SETTINGS, Readers, read, write_new};
use crate::room::now;

#[derive(Subcommand)]
pub(super) enum ScriptCommand {
    /// List the scripts of this build.
    List,
    /// Show one script, with the words to read aloud.
    Show {
        /// The kind of ceremony.
        name: CeremonyKind,
    },
    /// Check a script file or, without one, the scripts of this build.
    Check {
        /// The script.
        file: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(super) enum CharterCommand {
    /// Check a charter.
    Check {
        /// The charter.
        file: PathBuf,
    },
    #[command(flatten)]
    InForce(InForce),
    /// Print the charter that follows the one given when another image is allowed besides its own.
    Allow {
        /// The charter in force.
        file: PathBuf,
        /// The new image's PCRs, as the image builder wrote them.
        #[arg(long, value_name = "FILE")]
        measurement: PathBuf,
        /// The time from which the images allowed so far are refused, such as 2027-01-31T00:00:00Z; if left out, they
        /// stay allowed.
        #[arg(long, value_name = "TIME")]
        others_until: Option<jiff::Timestamp>,
    },
    /// Show how two charters differ.
    Diff {
        /// One.
        a: PathBuf,
        /// The other.
        b: PathBuf,
    },
    /// Print the KMS key policy: only the charter's images may unwrap shares.
    KmsPolicy {
        /// The charter.
        file: PathBuf,
        /// The ARN of the role that administers the key.
        #[arg(long)]
        admin: String,
        /// The ARN of the role whose credentials the agents lend to the enclaves.
        #[arg(long)]
        role: String,
    },
    /// Print the broker's configuration.
    NatsConfig {
        /// The charter.
        file: PathBuf,
        /// `host:port` to listen on.
        #[arg(long, default_value = "0.0.0.0:4222")]
        listen: String,
        /// Where the streams are stored.
        #[arg(long, default_value = "/var/lib/nats")]
        store: PathBuf,
        /// The public half (`U…`) of the NKey that makes the stream of the log and changes nothing else.
        #[arg(long, value_name = "NKEY")]
        keeper: String,
    },
    /// Make the log's stream on a broker, or show how an existing stream differs from what the log needs.
    MakeStream(super::stream::StreamArguments),
}

pub(super) fn script(output: Output, command: ScriptCommand) -> Result<()> {
    match command {
        ScriptCommand::List => {
            let scripts =
                CeremonyKind::ALL.map(Script::builtin).into_iter().collect::<Result<Vec<_>, _>>()?;
            let lines: Vec<String> = scripts
                .iter()
                .map(|script| format!("{:<12} {:<20} {}", script.name(), script.title(), script.hash()))
                .collect();
            let values: Vec<_> = scripts
                .iter()
                .map(
                    |script| json!({ "name": script.name(), "title": script.title(), "hash": script.hash() }),
                )
                .collect();
            output.print(&json!(values), &lines.join("\n"))
        }
        ScriptCommand::Show { name } => {
            let script = Script::builtin(name)?;
            let mut text = format!("{} ({})\n", script.title(), script.hash());
            for (number, step) in (1..).zip(script.steps()) {
                let signers: Vec<String> =
                    step.signers.iter().map(|(role, count)| format!("{count} {role}")).collect();
                text += &format!("\n{number}. {} [{}] {}\n", step.title, step.id, signers.join(", "));
                text += &format!("   {}\n", step.words.replace('\n', "\n   "));
            }
            output.print(
                &json!({ "name": script.name(), "hash": script.hash(), "steps": script.steps() }),
                text.trim_end(),
            )
        }
        ScriptCommand::Check { file: None } => {
            for kind in CeremonyKind::ALL {
                Script::builtin(kind)?;
            }
            output.print(
                &json!({ "checked": CeremonyKind::ALL }),
                "every script of this build passes its check",
            )
        }
        ScriptCommand::Check { file: Some(file) } => {
            let script = Script::parse(&read("script", &file, MAX_SCRIPT)?)?;
            output.print(
                &json!({ "name": script.name(), "hash": script.hash() }),
                &format!(
                    "{} passes its check: {} steps, hash {}",
                    script.name(),
                    script.steps().len(),
                    script.hash()
                ),
            )
        }
    }
}

fn load(file: &Path) -> Result<Charter> {
    Charter::parse(&read("charter", file, MAX_CHARTER)?).with_context(|| file.display().to_string())
}

pub(super) fn charter(output: Output, command: CharterCommand) -> Result<()> {
    match command {
        CharterCommand::Check { file } => {
            let charter = load(&file)?;
            let images = match charter.attestation().measurements.len() {
                1 => "1 image".to_owned(),
                count => format!("{count} images"),
            };
            let text = format!(
                "charter of {} ({}): threshold {} of {} nodes, {} people, {images}; hash {}",
                charter.cluster(),
                charter.kind().to_string().to_uppercase(),
                charter.threshold(),
                charter.nodes().len(),
                charter.people().len(),
                charter.hash()
            );
            output.print(
                &json!({ "cluster": charter.cluster(), "kind": charter.kind(), "hash": charter.hash() }),
                &text,
            )
        }
        CharterCommand::Diff { a, b } => {
            let (a, b) = (load(&a)?, load(&b)?);
            let lines: Vec<String> = a.changes(&b).iter().map(ToString::to_string).collect();
            let refused = a.check_amendment(&b).err().map(|error| error.to_string());
            let mut text = if lines.is_empty() { "no differences".to_owned() } else { lines.join("\n") };
            if let Some(refused) = &refused {
                text += &format!("\nnot an amendment: {refused}");
            }
            output.print(&json!({ "changes": lines, "not_an_amendment": refused }), &text)
        }
        CharterCommand::Allow { file, measurement, others_until } => {
            let bytes = read("measurement", &measurement, MAX_SETTINGS)?;
            let text = utf8(&bytes).map_err(|encoding| {
                anyhow!("measurement {} is {encoding}: save it as UTF-8", measurement.display())
            })?;
            let image: Measurement = toml::from_str(text)
                .with_context(|| format!("{} does not contain a measurement", measurement.display()))?;
            let others_until = others_until.map(|time| UnixMillis(time.as_millisecond()));
            let next = load(&file)?.allowing(&image, others_until)?;
            output.print_exactly(&json!({ "charter": next.text(), "hash": next.hash() }), next.text())
        }
        CharterCommand::InForce(_) => bail!("this command needs the nodes, which hold the charter in force"),
        CharterCommand::KmsPolicy { file, admin, role } => {
            let policy = key_policy(&admin, &role, &load(&file)?.attestation().measurements)?;
            output.print(&policy, &serde_json::to_string_pretty(&policy)?)
        }
        CharterCommand::MakeStream(_) => bail!("this command needs a broker, on which the stream is made"),
        CharterCommand::NatsConfig { file, listen, store, keeper } => {
            let is_user = keeper.starts_with('U') && nkeys::KeyPair::from_public_key(&keeper).is_ok();
            if !is_user {
                return Err(misused("--keeper is not a public user NKey (U…): `nk -gen user` makes one"));
            }
            let host = BrokerHost { listen: &listen, store: &store, keeper: &keeper };
            let config = nats_config(&load(&file)?, host);
            output.print(&json!({ "config": config }), config.trim_end())
        }
    }
}

pub(super) fn export(desk: &Desk, reading: &Reading, output: Output, file: &Path) -> Result<()> {
    let id = reading.ceremony();
    let chapter = desk.book.get(id).with_context(|| format!("ceremony `{id}` is not known"))?;
    let recorded = reading.recorded();
    if chapter.ceremony.phase() == Phase::Closed && !recorded.recorded {
        bail!(
            "the close of {id} is only {recorded}: a closed ceremony's bundle is written once a quorum of nodes has \
             recorded the close"
        );
    }
    let root = desk.cluster.context.root().to_pem()?.into_bytes();
    let material =
        Material::of(&desk.book, root, id).with_context(|| format!("ceremony `{id}` is not known"))?;
    let heads = reading.heads().all().cloned();
    let beside = reading.branches().aside().into_iter().cloned();
    let material = material.with_what_nodes_said(&chapter.ceremony, heads, beside);
    let bundle = material.bundle()?;
    write_new(file, &bundle, Readers::Anyone)?;
    let words = super::ceremony::head_words(&chapter.ceremony, &recorded);
    let phase = chapter.ceremony.phase_at(now());
    let said = said_of_export(&phase, words.as_deref(), &recorded);
    output.print(
        &json!({
            "file": file,
            "bytes": bundle.len(),
            "head": chapter.ceremony.head().hash,
            "head_words": words,
            "phase": phase.to_string(),
            "record": recorded,
        }),
        &format!("{} ({} bytes)\n{said}", file.display(), bundle.len()),
    )
}

/// What is said of a bundle: whether the ceremony is complete, and the words of its head.
fn said_of_export(phase: &Phase, words: Option<&str>, recorded: &Recorded) -> String {
    let head = match words {
        Some(words) => format!("head: {words}"),
        None => format!("the head has no words for paper yet: {recorded}"),
    };
    if *phase == Phase::Closed { head } else { format!("NOT COMPLETE, the ceremony is {phase}\n{head}") }
}

pub(super) fn verify(
    output: Output,
    bundle: &Path,
    kind: Option<ClusterKind>,
    head: Option<String>,
    root: Option<PathBuf>,
    charter: Option<String>,
) -> Result<()> {
    let charter = match charter {
        Some(text) => Some(match text.parse() {
            Ok(hash) => hash,
            Err(_) => load(Path::new(&text))?.hash(),
        }),
        None => None,
    };
    let root = match root {
        Some(path) => Some(
            TrustRoot::from_pem(&read("attestation root", &path, MAX_SETTINGS)?)
                .with_context(|| format!("attestation root {} is refused", path.display()))?,
        ),
        None => None,
    };
    let report = verify_bundle(&read("bundle", bundle, MAX_BUNDLE)?, &Expected { kind, head, root, charter })
        .with_context(|| format!("{} is NOT VERIFIED", bundle.display()))?;
    output.print(&json!(report), &report.to_string())?;
    match report.kind {
        // Whatever kind was expected: anyone can make a lab's root and people.
        ClusterKind::Lab => {
            note("WARNING: this is the record of a lab cluster, which proves nothing to anyone");
        }
        ClusterKind::Rehearsal if kind.is_none() => {
            note("note: this is the record of a rehearsal cluster; --kind production would refuse it");
        }
        ClusterKind::Production | ClusterKind::Rehearsal => {}
    }
    if !report.not_compared.is_empty() {
        note(
            "note: anyone can write a charter: compare its hash with the one that you know, or pass that with \
             --charter",
        );
    }
    if !report.complete {
        bail!("the record verifies, but the ceremony is not complete: {}", report.phase);
    }
    if !report.disagreements.is_empty() {
        bail!("the record verifies, but it is disputed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ceremonies::ceremony::Ceremony;
    use ceremonies::record::Verdict;

    use super::super::recorded::{CLOSED, book};
    use super::*;

    /// What is said of the recorded ceremony's bundle after so many entries.
    fn said(entries: usize, is_late: bool) -> Vec<String> {
        let recorded = Recorded::new(&Verdict::Recorded { by: Vec::new() }, 5);
        let of = |ceremony: &Ceremony| {
            let at = if is_late { ceremony.manifest().expires.plus(1) } else { ceremony.head().time };
            said_of_export(&ceremony.phase_at(at), Some("its words"), &recorded)
        };
        book(entries).iter().map(|(_, chapter)| of(&chapter.ceremony)).collect()
    }

    #[test]
    fn bundle_of_a_ceremony_that_is_not_closed_is_said_to_be_not_complete_and_why() {
        for (entries, is_late, phase) in [
            (6, false, "gathering"),
            (6, true, "void: its deadline passed"),
            (13, false, "authorised"),
            (CLOSED - 1, false, "committed"),
            (CLOSED - 1, true, "committed"),
        ] {
            let expected = format!("NOT COMPLETE, the ceremony is {phase}\nhead: its words");
            assert_eq!(said(entries, is_late), [expected], "{entries} {is_late}");
        }
        assert_eq!(said(CLOSED, true), ["head: its words"]);
    }
}
