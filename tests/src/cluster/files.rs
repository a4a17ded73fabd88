//! The configuration files of a cluster: its nodes', its console's, and a Prometheus's.

use std::fs;

use anyhow::Result;
use ceremonies::charter::Role;
use ceremonies::ids::NodeIndex;
use lab_enclave::ENCLAVE_PORT;
use serde::Serialize;

use super::founding::{Settings, indices};
use super::{ENCLAVE_ARN, Layout};
use crate::kms::Credential;
use crate::microvm::VSOCK;
use crate::people::LabPerson;
use crate::{programs, write_private};

#[derive(Serialize)]
struct NodeFile<'a> {
    node: NodeIndex,
    charter: &'a str,
    root: &'a str,
    store: String,
    enclave: EnclaveFile<'a>,
    nats: NatsFile<'a>,
    kms: KmsFile<'a>,
    vault: VaultFile<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<MetricsFile>,
}

#[derive(Serialize)]
struct MetricsFile {
    listen: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum VaultFile<'a> {
    Directory { path: &'a str },
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum EnclaveFile<'a> {
    Unix(&'a str),
    HybridVsock { socket: &'a str, port: u32 },
}

#[derive(Serialize)]
struct NatsFile<'a> {
    servers: Vec<String>,
    seed: &'a str,
}

#[derive(Serialize)]
struct KmsFile<'a> {
    endpoint: String,
    credentials: CredentialsFile<'a>,
}

#[derive(Serialize)]
struct CredentialsFile<'a> {
    file: &'a str,
}

pub(super) fn write_node(
    layout: &Layout,
    settings: &Settings,
    node: NodeIndex,
    store: Option<&String>,
) -> Result<()> {
    let file = NodeFile {
        node,
        charter: "../charter.toml",
        root: "../root.pem",
        store: store.cloned().unwrap_or_else(|| "sqlite:store.db".to_owned()),
        enclave: if settings.machines {
            EnclaveFile::HybridVsock { socket: VSOCK, port: ENCLAVE_PORT }
        } else {
            EnclaveFile::Unix("enclave.sock")
        },
        nats: NatsFile {
            servers: vec![settings.line_port(node).map_or_else(|| nats_url(settings), local_url)],
            seed: "nats.seed",
        },
        kms: KmsFile {
            endpoint: format!("127.0.0.1:{}", settings.kms_port),
            credentials: CredentialsFile { file: "aws.json" },
        },
        vault: VaultFile::Directory { path: "../backups" },
        metrics: settings.metrics_address(node).map(|listen| MetricsFile { listen }),
    };
    fs::write(layout.node(node).join("node.toml"), toml::to_string(&file)?)?;
    let credential = credential(settings);
    let lent = serde_json::json!({
        "Version": 1,
        "AccessKeyId": credential.access_key_id,
        "SecretAccessKey": credential.secret_access_key,
    });
    write_private(&layout.node(node).join("aws.json"), lent.to_string().as_bytes())?;
    Ok(())
}

fn local_url(port: u16) -> String {
    format!("nats://127.0.0.1:{port}")
}

pub(super) fn nats_url(settings: &Settings) -> String {
    local_url(settings.nats_port)
}

pub(super) fn credential(settings: &Settings) -> Credential {
    Credential {
        access_key_id: "AKIALABENCLAVE000001".into(),
        secret_access_key: settings.kms_secret.clone(),
        session_token: None,
        principal: ENCLAVE_ARN.into(),
    }
}

#[derive(Serialize)]
struct ConsoleFile<'a> {
    charter: &'a str,
    root: &'a str,
    nats: NatsFile<'a>,
    backups: &'a str,
    cache: &'a str,
    me: Vec<MeFile>,
    lab: LabFile<'a>,
}

#[derive(Serialize)]
struct LabFile<'a> {
    control: &'a str,
}

#[derive(Serialize)]
struct MeFile {
    person: String,
    role: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
}

pub(super) fn write_console(layout: &Layout, settings: &Settings, people: &[LabPerson]) -> Result<()> {
    let file = ConsoleFile {
        charter: "charter.toml",
        root: "root.pem",
        nats: NatsFile { servers: vec![nats_url(settings)], seed: "console.seed" },
        backups: "backups",
        cache: "cache",
        me: people
            .iter()
            .map(|person| MeFile {
                person: person.name.to_string(),
                role: person.role.to_string(),
                key: format!("people/{}", person.name),
                identity: (person.role == Role::Custodian)
                    .then(|| format!("people/{}.identity", person.name)),
            })
            .collect(),
        lab: LabFile { control: "control.sock" },
    };
    fs::write(layout.console(), toml::to_string(&file)?)?;
    Ok(())
}

/// Writes what a Prometheus of the lab's own would be started with. JSON is YAML.
pub(super) fn write_prometheus(layout: &Layout, settings: &Settings) -> Result<()> {
    let nodes = indices(settings.nodes)?.into_iter();
    let targets: Vec<String> = nodes.filter_map(|node| settings.metrics_address(node)).collect();
    let alerts = programs::workspace().join("runbooks/monitoring/alerts.yml");
    let config = serde_json::json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": [alerts],
        "scrape_configs": [{ "job_name": "custody", "static_configs": [{ "targets": targets }] }],
    });
    Ok(fs::write(layout.prometheus(), serde_json::to_vec_pretty(&config)?)?)
}
