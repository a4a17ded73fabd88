//! Attestation documents as a security module writes them. Their content is free, so that tests can make every kind of
//! wrong one; only [`LabRoot`](super::LabRoot) signs them.

use std::collections::BTreeMap;

use ceremonies::attestation::{Measurement, Pcr};
use ceremonies::ids::UnixMillis;
use ciborium::Value;

/// Registers in a document, as on Nitro.
const REGISTERS: u8 = 16;

/// The content of a document. Make one with [`new`](Self::new) and change what should differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentSpec {
    /// Which security module signs.
    pub module_id: String,
    /// When it was made; its certificates are valid at this time.
    pub timestamp: UnixMillis,
    /// The registers by index.
    pub pcrs: BTreeMap<u8, Pcr>,
    /// The public key handed in.
    pub public_key: Option<Vec<u8>>,
    /// The user data handed in.
    pub user_data: Option<Vec<u8>>,
    /// The nonce handed in.
    pub nonce: Option<Vec<u8>>,
}

impl DocumentSpec {
    /// A document about this program, made at this time; registers that are not measured are zero.
    #[must_use]
    pub fn new(measurement: &Measurement, timestamp: UnixMillis) -> Self {
        let mut pcrs: BTreeMap<_, _> = (0..REGISTERS).map(|index| (index, Pcr::from([0; 48]))).collect();
        pcrs.extend(measurement.registers());
        let module_id = "custody-lab".to_owned();
        Self { module_id, timestamp, pcrs, public_key: None, user_data: None, nonce: None }
    }

    /// Signed by this security module.
    #[must_use]
    pub fn module_id(mut self, module_id: &str) -> Self {
        module_id.clone_into(&mut self.module_id);
        self
    }

    /// Made at another time.
    #[must_use]
    pub fn timestamp(mut self, timestamp: UnixMillis) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// With a register of another value.
    #[must_use]
    pub fn pcr(mut self, index: u8, value: Pcr) -> Self {
        self.pcrs.insert(index, value);
        self
    }

    /// As of an enclave in debug mode: every register is zero.
    #[must_use]
    pub fn debug(mut self) -> Self {
        self.pcrs.values_mut().for_each(|value| *value = Pcr::from([0; 48]));
        self
    }

    /// Asked for with this public key.
    #[must_use]
    pub fn public_key(mut self, public_key: &[u8]) -> Self {
        self.public_key = Some(public_key.to_vec());
        self
    }

    /// Asked for with this user data.
    #[must_use]
    pub fn user_data(mut self, user_data: &[u8]) -> Self {
        self.user_data = Some(user_data.to_vec());
        self
    }

    /// Asked for with this nonce.
    #[must_use]
    pub fn nonce(mut self, nonce: &[u8]) -> Self {
        self.nonce = Some(nonce.to_vec());
        self
    }

    /// The payload in AWS's layout and order.
    pub(super) fn payload(&self, certificate: &[u8], cabundle: &[&[u8]]) -> anyhow::Result<Vec<u8>> {
        let optional = |bytes: &Option<Vec<u8>>| bytes.clone().map_or(Value::Null, Value::Bytes);
        let pcrs =
            self.pcrs.iter().map(|(index, pcr)| (Value::from(*index), Value::from(&pcr.as_bytes()[..])));
        let cabundle = cabundle.iter().map(|certificate| Value::from(*certificate));
        let fields = [
            ("module_id", Value::from(self.module_id.as_str())),
            ("digest", Value::from("SHA384")),
            ("timestamp", Value::from(self.timestamp.0)),
            ("pcrs", Value::Map(pcrs.collect())),
            ("certificate", Value::from(certificate)),
            ("cabundle", Value::Array(cabundle.collect())),
            ("public_key", optional(&self.public_key)),
            ("user_data", optional(&self.user_data)),
            ("nonce", optional(&self.nonce)),
        ];
        let mut bytes = Vec::new();
        let payload = Value::Map(fields.map(|(name, value)| (Value::from(name), value)).into());
        ciborium::into_writer(&payload, &mut bytes)?;
        Ok(bytes)
    }
}
