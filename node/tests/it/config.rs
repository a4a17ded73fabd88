//! The parts of `node.toml` that say what the host runs and where backups go.

use node::config::{Config, ConfigError, CredentialSource, Host, Vault};

const BASE: &str = r#"
node = 1
charter = "charter.toml"
root = "root.pem"
store = "sqlite:agent.db"

[nats]
servers = ["nats://127.0.0.1:1"]
seed = "nats.seed"

[kms]
endpoint = "127.0.0.1:1"
credentials = { file = "credentials.json" }
"#;
const VSOCK: &str = "vsock = { cid = 16, port = 5005 }";
const NITRO: &str = r#"
image = "custody.eif"
memory-mib = 512
cpus = 2
cid = 16
name = "custody"
"#;

/// A configuration with this `[enclave]` and this `[host.nitro]`.
pub(crate) fn text(enclave: &str, nitro: &str) -> String {
    format!("{BASE}\n[enclave]\n{enclave}\n\n[host.nitro]\n{nitro}")
}

/// A configuration that runs the enclave `custody`.
pub(crate) fn nitro() -> String {
    text(VSOCK, NITRO)
}

/// A configuration whose enclave something else runs.
pub(crate) fn without_host() -> String {
    format!("{BASE}\n[enclave]\nunix = \"enclave.sock\"\n")
}

fn load(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, text).unwrap();
    Config::load(&file)
}

fn refusal(text: &str) -> String {
    match load(text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(ConfigError::Syntax { source, .. }) => source.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn host_is_read_with_the_image_beside_the_file() {
    let Some(Host::Nitro(nitro)) = load(&nitro()).unwrap().host else { panic!("no host") };
    assert!(nitro.image.is_absolute() && nitro.image.ends_with("custody.eif"));
    assert_eq!((nitro.memory_mib, nitro.cpus, nitro.cid, nitro.name.as_str()), (512, 2, 16, "custody"));
}

#[test]
fn configuration_in_the_runbook_is_read() {
    let runbook = include_str!("../../../runbooks/nitro.md");
    let begin = runbook.find("        node = 1\n").unwrap();
    let written = runbook[begin..].lines().take_while(|line| line.is_empty() || line.starts_with("        "));
    let config = load(&written.collect::<Vec<_>>().join("\n")).unwrap();
    let Some(Host::Nitro(nitro)) = config.host else { panic!("the runbook's node.toml has no host") };
    assert!(nitro.image.ends_with("custody.eif"));
}

#[test]
fn host_may_be_left_out() {
    assert!(load(&without_host()).unwrap().host.is_none());
}

#[test]
fn debug_mode_cannot_be_asked_for() {
    for key in ["debug-mode = true", "debug = true", "attach-console = true"] {
        let refused = refusal(&text(VSOCK, &format!("{NITRO}\n{key}")));
        assert!(refused.contains("unknown field"), "{refused}");
    }
}

#[test]
fn host_that_lacks_a_key_is_refused_with_its_name() {
    for key in ["image", "memory-mib", "cpus", "cid", "name"] {
        let lines: Vec<&str> = NITRO.lines().filter(|line| !line.starts_with(key)).collect();
        let refused = refusal(&text(VSOCK, &lines.join("\n")));
        assert!(refused.contains(&format!("missing field `{key}`")), "{refused}");
    }
}

#[test]
fn enclave_must_be_reached_where_it_is_started() {
    for enclave in [
        "vsock = { cid = 17, port = 5005 }",
        "unix = \"enclave.sock\"",
        "hybrid-vsock = { socket = \"vsock.sock\", port = 5005 }",
    ] {
        let refused = refusal(&text(enclave, NITRO));
        assert!(refused.contains("vsock = { cid = 16, port = 5005 }"), "{refused}");
    }
}

#[test]
fn context_ids_of_the_hypervisor_and_the_hosts_are_refused() {
    for cid in [0, 1, 2, 3, u32::MAX] {
        let enclave = format!("vsock = {{ cid = {cid}, port = 5005 }}");
        let refused = refusal(&text(&enclave, &NITRO.replace("cid = 16", &format!("cid = {cid}"))));
        assert!(refused.contains("host.nitro.cid"), "{refused}");
    }
}

#[test]
fn name_that_could_be_taken_for_something_else_is_refused() {
    for name in ["", "-all", "--debug-mode", "a b", "a/b", "ä", &"a".repeat(65)] {
        let refused = refusal(&text(VSOCK, &NITRO.replace("\"custody\"", &format!("{name:?}"))));
        assert!(refused.contains("is not an enclave name"), "{refused}");
    }
}

#[test]
fn vault_is_read_with_its_paths_beside_the_file() {
    assert!(load(&without_host()).unwrap().vault.is_none());

    let directory = format!("{}\n[vault.directory]\npath = \"backups\"\n", without_host());
    let Some(Vault::Directory(directory)) = load(&directory).unwrap().vault else { panic!("no directory") };
    assert!(directory.path.is_absolute() && directory.path.ends_with("backups"));

    let bucket = "bucket = \"b\"\nregion = \"r\"\ncredentials = { file = \"writer.json\" }";
    let Some(Vault::S3(bucket)) = load(&format!("{}\n[vault.s3]\n{bucket}", without_host())).unwrap().vault
    else {
        panic!("no bucket")
    };
    assert_eq!((bucket.bucket.as_str(), bucket.region.as_str(), bucket.endpoint), ("b", "r", None));
    let CredentialSource::File(file) = bucket.credentials else { panic!("no file") };
    assert!(file.is_absolute() && file.ends_with("writer.json"));
}

#[test]
fn vault_with_an_unknown_key_is_refused() {
    let vault = "[vault.s3]\nbucket = \"b\"\nregion = \"r\"\ncredentials = { file = \"f\" }\nsecret = \"s\"";
    assert!(refusal(&format!("{}\n{vault}", without_host())).contains("secret"));
    let two = "[vault.directory]\npath = \"p\"\n[vault.s3]\nbucket = \"b\"";
    assert!(refusal(&format!("{}\n{two}", without_host())).contains("vault"));
}

#[test]
fn metrics_are_served_on_an_address_of_this_host_alone() {
    let with = |listen: &str| format!("{}\n[metrics]\nlisten = \"{listen}\"\n", without_host());
    assert!(load(&without_host()).unwrap().metrics.is_none());
    for listen in ["127.0.0.1:9464", "127.8.9.10:1", "[::1]:9464"] {
        assert_eq!(load(&with(listen)).unwrap().metrics.unwrap().listen.address().to_string(), listen);
    }
    for listen in ["0.0.0.0:9464", "[::]:9464", "10.0.0.1:9464", "192.168.0.1:80", "[::ffff:127.0.0.1]:80"] {
        assert!(refusal(&with(listen)).contains("can be reached by other hosts"), "{listen}");
    }
    for listen in ["localhost:9464", "127.0.0.1", ":9464", ""] {
        assert!(load(&with(listen)).is_err(), "{listen}");
    }
}
