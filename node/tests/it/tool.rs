//! A `nitro-cli` that answers what a test has prepared, and records what it was asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ceremonies::attestation::Measurement;
use ceremonies::charter::Charter;
use node::config::Nitro;
use node::host::NitroHost;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const CHARTER: &str = include_str!("charter.toml");
pub(crate) const ID: &str = "i-0f00baa0000000001-enc19a2b3c4d5e6f70";
/// How long a condition may take to hold.
const PATIENCE: Duration = Duration::from_mins(1);

/// The image that the charter allows.
pub(crate) fn allowed() -> Measurement {
    Charter::parse(CHARTER.as_bytes()).unwrap().attestation().measurements[0]
}

/// `Measurements` as `nitro-cli` prints them.
pub(crate) fn registers(image: &Measurement) -> Value {
    let mut registers = json!({ "HashAlgorithm": "Sha512_48 { .. }" });
    for (pcr, value) in image.registers() {
        registers[format!("PCR{pcr}")] = value.to_string().into();
    }
    registers
}

/// `describe-eif` of version 1.5.2.
pub(crate) fn image_described(image: &Measurement) -> Value {
    json!({
        "EifVersion": 4,
        "Measurements": registers(image),
        "IsSigned": image.pcr8.is_some(),
        "CheckCRC": true,
        "ImageName": "custody-enclave",
        "ImageVersion": "0.1.0",
        "Metadata": {
            "BuildTime": "1970-01-01T00:00:00+00:00",
            "BuildTool": "custody-image",
            "BuildToolVersion": "0.1.0",
            "OperatingSystem": "Linux",
            "KernelVersion": "as measured",
            "DockerInfo": null,
        },
    })
}

/// One enclave of `describe-enclaves`, as it should be.
pub(crate) fn described() -> Value {
    json!({
        "EnclaveName": "custody",
        "EnclaveID": ID,
        "ProcessID": 4711,
        "EnclaveCID": 16,
        "NumberOfCPUs": 2,
        "CPUIDs": [1, 3],
        "MemoryMiB": 512,
        "State": "RUNNING",
        "Flags": "NONE",
        "Measurements": registers(&allowed()),
        "ImageName": "custody-enclave",
    })
}

/// The same with one field changed.
pub(crate) fn described_with(field: &str, value: impl Into<Value>) -> Value {
    let mut enclave = described();
    enclave[field] = value.into();
    enclave
}

pub(crate) struct Tool {
    folder: TempDir,
}

impl Tool {
    /// A tool that has the charter's image and no enclave, and does everything it is asked.
    pub(crate) fn new() -> Self {
        let tool = Self { folder: tempfile::tempdir().unwrap() };
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/nitro-cli");
        std::os::unix::fs::symlink(program, tool.path()).unwrap();
        tool.answers("describe-eif", &image_described(&allowed()));
        tool.shows(&[]);
        tool.answers(
            "run-enclave",
            &json!({
                "EnclaveName": "custody", "EnclaveID": ID, "ProcessID": 4711, "EnclaveCID": 16,
                "NumberOfCPUs": 2, "CPUIDs": [1, 3], "MemoryMiB": 512,
            }),
        );
        tool.shows_after("run-enclave", &[described()]);
        tool.answers(
            "terminate-enclave",
            &json!({ "EnclaveName": "custody", "EnclaveID": ID, "Terminated": true }),
        );
        tool.shows_after("terminate-enclave", &[]);
        tool
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("nitro-cli")
    }

    fn write(&self, name: &str, text: &str) {
        // The tool may be reading.
        let new = self.folder.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder.path().join(name)).unwrap();
    }

    pub(crate) fn answers(&self, verb: &str, answer: &Value) {
        self.says(verb, &serde_json::to_string_pretty(answer).unwrap());
    }

    pub(crate) fn says(&self, verb: &str, text: &str) {
        self.write(&format!("{verb}.out"), text);
    }

    /// Which enclaves there are.
    pub(crate) fn shows(&self, enclaves: &[Value]) {
        self.answers("describe-enclaves", &enclaves.into());
    }

    /// Which enclaves there are after `verb`.
    pub(crate) fn shows_after(&self, verb: &str, enclaves: &[Value]) {
        self.write(&format!("{verb}.then"), &Value::from(enclaves).to_string());
    }

    pub(crate) fn fails(&self, verb: &str, message: &str) {
        self.says(verb, "");
        self.write(&format!("{verb}.err"), message);
        self.write(&format!("{verb}.code"), "39");
        // A failed call changes nothing.
        fs::remove_file(self.folder.path().join(format!("{verb}.then"))).unwrap_or_default();
    }

    /// Every call's arguments, in order.
    pub(crate) fn calls(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        let calls = text.split("CALL\n").skip(1);
        calls.map(|call| call.lines().map(str::to_owned).collect()).collect()
    }

    pub(crate) fn called(&self, verb: &str) -> usize {
        self.calls().iter().filter(|call| call[0] == verb).count()
    }

    /// The settings that fit its answers.
    pub(crate) fn settings(&self) -> Nitro {
        Nitro {
            image: self.folder.path().join("custody.eif"),
            memory_mib: 512,
            cpus: 2,
            cid: 16,
            name: "custody".to_owned().try_into().unwrap(),
        }
    }

    pub(crate) fn host(&self) -> NitroHost {
        self.host_allowing(&[allowed()])
    }

    pub(crate) fn host_allowing(&self, images: &[Measurement]) -> NitroHost {
        NitroHost::new(self.path(), self.settings(), images.to_vec())
    }
}

/// Waits until `condition` holds; `what` says what was waited for.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
