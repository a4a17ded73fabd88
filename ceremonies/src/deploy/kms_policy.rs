//! The policy of the KMS key that wraps every share's data key.
//!
//! It is the only thing that keeps an agent, who holds the enclave's AWS role, from unwrapping shares itself. There is
//! one statement per measurement, so that one image's kernel never goes with another's application, and there are
//! denials that even a grant or another policy of the account cannot override. This module must never write a statement
//! that allows a key to be used without an attestation.

use serde_json::{Value, json};
use thiserror::Error;

use crate::attestation::Measurement;
use crate::text::shortened;

/// What administrators may do, which never includes using the key, lending its use or destroying it.
const ADMINISTRATION: [&str; 14] = [
    "kms:CancelKeyDeletion",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:TagResource",
    "kms:UntagResource",
];
/// What enclaves do, with an attestation.
const USE: [&str; 2] = ["kms:Decrypt", "kms:GenerateDataKey"];
/// Actions that would use the key, or lend its use, without an attestation.
const NEVER: [&str; 5] = [
    "kms:CreateGrant",
    "kms:Encrypt",
    "kms:GenerateDataKeyPair*",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncrypt*",
];

/// Why no policy was written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyPolicyError {
    /// Nobody could use the key.
    #[error("the charter allows no measurement: add the enclave image's PCRs to it")]
    NoMeasurement,
    /// An image in debug mode, whose memory its host reads.
    #[error(
        "PCR{0} of an allowed measurement is all zeros, which means debug mode: measure the image itself"
    )]
    Debug(u8),
    /// Not the name of an AWS principal.
    #[error("`{0}` is not the ARN of an IAM role or user: use arn:aws:iam::ACCOUNT:role/NAME")]
    Principal(String),
    /// One principal for both, who could then rewrite the policy with the agents' credentials.
    #[error("the key's administrator and the enclaves' role are both `{0}`: use two different roles")]
    SamePrincipal(String),
}

/// The key policy that lets `enclave_role_arn` use the key from inside an enclave with one of the
/// `measurements`, and `key_admin_arn` administer it without using it.
///
/// # Errors
/// [`KeyPolicyError`] when the policy would let in nobody, everybody or the wrong ones.
pub fn key_policy(
    key_admin_arn: &str,
    enclave_role_arn: &str,
    measurements: &[Measurement],
) -> Result<Value, KeyPolicyError> {
    for arn in [key_admin_arn, enclave_role_arn] {
        if !is_role_or_user(arn) {
            return Err(KeyPolicyError::Principal(shortened(arn, 200)));
        }
    }
    if key_admin_arn == enclave_role_arn {
        return Err(KeyPolicyError::SamePrincipal(key_admin_arn.to_owned()));
    }
    if measurements.is_empty() {
        return Err(KeyPolicyError::NoMeasurement);
    }
    let mut statements = vec![
        json!({
            "Sid": "AdministerWithoutUse",
            "Effect": "Allow",
            "Principal": {"AWS": key_admin_arn},
            "Action": ADMINISTRATION,
            "Resource": "*",
        }),
        json!({
            "Sid": "NeverWithoutAttestation",
            "Effect": "Deny",
            "Principal": "*",
            "Action": USE,
            "Resource": "*",
            "Condition": {"Null": {"kms:RecipientAttestation:PCR0": "true"}},
        }),
        json!({
            "Sid": "NeverAtAll",
            "Effect": "Deny",
            "Principal": "*",
            "Action": NEVER,
            "Resource": "*",
        }),
    ];
    for (number, measurement) in measurements.iter().enumerate() {
        statements.push(json!({
            "Sid": format!("UseInEnclave{}", number + 1),
            "Effect": "Allow",
            "Principal": {"AWS": enclave_role_arn},
            "Action": USE,
            "Resource": "*",
            "Condition": condition(measurement)?,
        }));
    }
    Ok(json!({"Version": "2012-10-17", "Id": "custody-shares", "Statement": statements}))
}

/// The image's registers, and the time until which it is allowed: the KMS keeps a promise that nobody has to
/// remember.
fn condition(measurement: &Measurement) -> Result<Value, KeyPolicyError> {
    let mut condition = json!({"StringEqualsIgnoreCase": registers(measurement)?});
    if let Some(until) = measurement.until {
        condition["DateLessThan"] = json!({"aws:CurrentTime": until.to_string()});
    }
    Ok(condition)
}

fn registers(measurement: &Measurement) -> Result<Value, KeyPolicyError> {
    measurement
        .registers()
        .map(|(index, pcr)| {
            if pcr.is_zero() {
                return Err(KeyPolicyError::Debug(index));
            }
            Ok((format!("kms:RecipientAttestation:PCR{index}"), Value::String(pcr.to_string())))
        })
        .collect()
}

/// Whether `arn` names one role or user: no pattern, and no account root, which would hand the decision
/// to whoever writes the account's IAM policies.
fn is_role_or_user(arn: &str) -> bool {
    let mut parts = arn.splitn(6, ':');
    let [Some("arn"), Some(partition), Some("iam"), Some(""), Some(account), Some(name)] =
        [(); 6].map(|()| parts.next())
    else {
        return false;
    };
    let name = name.strip_prefix("role/").or_else(|| name.strip_prefix("user/"));
    partition.starts_with("aws")
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && name.is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/+=,.@_-".contains(&b))
        })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use super::*;
    use crate::attestation::Pcr;

    const ADMIN: &str = "arn:aws:iam::111122223333:role/custody-key-admin";
    const ENCLAVE: &str = "arn:aws:iam::111122223333:role/custody-node";

    fn measurement(image: u8) -> Measurement {
        let pcr = |register: u8| Pcr::from([image * 16 + register; 48]);
        Measurement { pcr0: pcr(1), pcr1: pcr(2), pcr2: pcr(3), pcr8: None, until: None }
    }

    fn statements(policy: &Value) -> &[Value] {
        policy["Statement"].as_array().unwrap()
    }

    fn actions(statement: &Value) -> Vec<&str> {
        statement["Action"].as_array().unwrap().iter().map(|action| action.as_str().unwrap()).collect()
    }

    #[test]
    fn each_measurement_has_a_statement_with_all_its_registers() {
        let signed = Measurement { pcr8: Some(Pcr::from([9; 48])), ..measurement(2) };
        let policy = key_policy(ADMIN, ENCLAVE, &[measurement(1), signed]).unwrap();
        let uses: Vec<_> = statements(&policy)
            .iter()
            .filter(|s| s["Effect"] == "Allow" && s["Principal"]["AWS"] == ENCLAVE)
            .collect();
        assert_eq!(uses.len(), 2);
        for (statement, measurement) in uses.iter().zip([measurement(1), signed]) {
            let conditions = statement["Condition"]["StringEqualsIgnoreCase"].as_object().unwrap();
            assert_eq!(conditions.len(), measurement.registers().count());
            for (index, pcr) in measurement.registers() {
                assert_eq!(conditions[&format!("kms:RecipientAttestation:PCR{index}")], pcr.to_string());
            }
        }
    }

    #[test]
    fn nothing_that_uses_the_key_is_allowed_without_conditions() {
        let policy = key_policy(ADMIN, ENCLAVE, &[measurement(1)]).unwrap();
        for statement in statements(&policy) {
            if statement["Effect"] == "Allow" && statement.get("Condition").is_none() {
                for action in actions(statement) {
                    assert!(!action.contains('*'), "{action}");
                    assert!(!USE.contains(&action) && !NEVER.contains(&action), "{action}");
                }
            }
        }
    }

    #[test]
    fn policy_is_refused_without_measurements_or_with_a_debug_one() {
        assert_eq!(key_policy(ADMIN, ENCLAVE, &[]), Err(KeyPolicyError::NoMeasurement));
        let zero = Pcr::from([0; 48]);
        let debug = [
            Measurement { pcr0: zero, ..measurement(1) },
            Measurement { pcr1: zero, ..measurement(1) },
            Measurement { pcr2: zero, ..measurement(1) },
            Measurement { pcr8: Some(zero), ..measurement(1) },
        ];
        for (debug, register) in debug.into_iter().zip([0, 1, 2, 8]) {
            let policy = key_policy(ADMIN, ENCLAVE, &[measurement(1), debug]);
            assert_eq!(policy, Err(KeyPolicyError::Debug(register)));
        }
    }

    #[test]
    fn principals_that_mean_more_than_one_identity_are_refused() {
        for bad in [
            "",
            "*",
            "arn:aws:iam::111122223333:root",
            "arn:aws:iam::111122223333:role/*",
            "arn:aws:iam::111122223333:role/",
            "arn:aws:iam::*:role/custody-node",
            "arn:aws:sts::111122223333:assumed-role/custody-node/session",
            "arn:aws:iam::11112222333:role/custody-node",
            "111122223333",
        ] {
            let refused = Err(KeyPolicyError::Principal(bad.to_owned()));
            assert_eq!(key_policy(ADMIN, bad, &[measurement(1)]), refused);
            assert_eq!(key_policy(bad, ENCLAVE, &[measurement(1)]), refused);
        }
        let same = key_policy(ADMIN, ADMIN, &[measurement(1)]);
        assert_eq!(same, Err(KeyPolicyError::SamePrincipal(ADMIN.to_owned())));
    }
}
