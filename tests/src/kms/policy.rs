//! Key policies: reads the real JSON of AWS and decides by it.
//!
//! Nothing is allowed unless a statement says so, and a denial beats every allowance. What this evaluator
//! does not know (other operators, other condition keys, `Not…` elements) is refused when the policy is
//! read: it must never skip a condition and decide without it.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

/// A key policy that can be evaluated completely.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Policy {
    version: String,
    #[serde(default, rename = "Id")]
    _id: Option<String>,
    statement: OneOrMany<Statement>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(default)]
    sid: Option<String>,
    effect: Effect,
    principal: Principal,
    action: OneOrMany<String>,
    resource: OneOrMany<String>,
    #[serde(default)]
    condition: BTreeMap<Operator, BTreeMap<String, OneOrMany<String>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Principal {
    Anyone(Star),
    Named(Named),
}

#[derive(Debug, Clone, Deserialize)]
enum Star {
    #[serde(rename = "*")]
    Star,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "AWS")]
    aws: OneOrMany<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Operator {
    StringEquals,
    StringEqualsIgnoreCase,
    StringNotEquals,
    StringNotEqualsIgnoreCase,
    DateLessThan,
    Null,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// What somebody asks to do with the key.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The ARN of who asks.
    pub principal: &'a str,
    /// The action, such as `kms:Decrypt`.
    pub action: &'a str,
    /// The key's ARN.
    pub resource: &'a str,
    /// The condition keys of the request, such as `kms:RecipientAttestation:PCR0`, with their values.
    pub conditions: BTreeMap<String, String>,
}

/// What the policy says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The statement named allows it, and none denies it.
    Allowed(String),
    /// A statement denies it or none allows it, for the reason given.
    Denied(String),
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// Says what in it is not a policy, or not one that can be evaluated here.
    pub fn read(policy: &Value) -> anyhow::Result<Self> {
        let policy = Self::deserialize(policy).context("key policy")?;
        ensure!(policy.version == "2012-10-17", "key policy: version must be 2012-10-17");
        for (statement, name) in policy.statements() {
            for (operator, conditions) in &statement.condition {
                for (key, values) in conditions {
                    ensure!(is_known_key(key), "key policy, {name}: condition key `{key}` is not known here");
                    let flags = values.as_slice().iter().all(|value| value == "true" || value == "false");
                    ensure!(
                        *operator != Operator::Null || flags,
                        "key policy, {name}: Null takes true or false"
                    );
                    let dates = values.as_slice().iter().all(|value| moment(value).is_some());
                    ensure!(
                        *operator != Operator::DateLessThan || dates,
                        "key policy, {name}: DateLessThan takes times such as 2027-01-31T00:00:00Z"
                    );
                }
            }
        }
        Ok(policy)
    }

    fn statements(&self) -> impl Iterator<Item = (&Statement, String)> {
        self.statement.as_slice().iter().enumerate().map(|(at, statement)| {
            (statement, statement.sid.clone().unwrap_or_else(|| format!("statement {}", at + 1)))
        })
    }
}

/// Decides a request by a policy: denied by default, and a denial beats every allowance.
#[must_use]
pub fn evaluate(policy: &Policy, request: &Request<'_>) -> Decision {
    let mut allowed = None;
    let mut missed = Vec::new();
    for (statement, name) in policy.statements().filter(|(statement, _)| statement.is_about(request)) {
        match (statement.effect, statement.unmet(request)) {
            (Effect::Deny, None) => return Decision::Denied(format!("{name} denies it")),
            (Effect::Allow, None) => allowed = allowed.or(Some(name)),
            (Effect::Allow, Some(condition)) => missed.push(format!("{name} asks for {condition}")),
            (Effect::Deny, Some(_)) => {}
        }
    }
    match allowed {
        Some(name) => Decision::Allowed(name),
        None if missed.is_empty() => Decision::Denied("no statement allows it".to_owned()),
        None => Decision::Denied(format!("no statement allows it: {}", missed.join("; "))),
    }
}

impl Statement {
    fn is_about(&self, request: &Request<'_>) -> bool {
        let principal = match &self.principal {
            Principal::Anyone(Star::Star) => true,
            // Patterns are not allowed in a principal's ARN; a lone star means anyone.
            Principal::Named(named) => {
                named.aws.as_slice().iter().any(|arn| arn == "*" || arn == request.principal)
            }
        };
        let action = request.action.to_ascii_lowercase();
        principal
            && self.action.as_slice().iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), &action))
            && self.resource.as_slice().iter().any(|pattern| matches(pattern, request.resource))
    }

    /// The first condition that the request does not meet.
    fn unmet(&self, request: &Request<'_>) -> Option<Unmet<'_>> {
        self.condition.iter().find_map(|(operator, conditions)| {
            conditions.iter().find_map(|(key, values)| {
                let found = request.conditions.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
                let met = operator.holds(values.as_slice(), found.map(|(_, value)| value.as_str()));
                (!met).then_some(Unmet { operator: *operator, key })
            })
        })
    }
}

impl Operator {
    /// Whether the condition holds. An absent key meets the negated operators, and no positive one.
    fn holds(self, values: &[String], found: Option<&str>) -> bool {
        let equal = || found.is_some_and(|found| values.iter().any(|value| value == found));
        let alike =
            || found.is_some_and(|found| values.iter().any(|value| value.eq_ignore_ascii_case(found)));
        match self {
            Self::StringEquals => equal(),
            Self::StringEqualsIgnoreCase => alike(),
            Self::StringNotEquals => !equal(),
            Self::StringNotEqualsIgnoreCase => !alike(),
            Self::DateLessThan => found.and_then(moment).is_some_and(|found| {
                values.iter().any(|value| moment(value).is_some_and(|value| found < value))
            }),
            Self::Null => {
                let absent = if found.is_none() { "true" } else { "false" };
                values.iter().any(|value| value == absent)
            }
        }
    }
}

fn moment(text: &str) -> Option<jiff::Timestamp> {
    text.parse().ok()
}

struct Unmet<'a> {
    operator: Operator,
    key: &'a str,
}

impl fmt::Display for Unmet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {}", self.operator, self.key)
    }
}

fn is_known_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let pcr = key.strip_prefix("kms:recipientattestation:pcr").map(str::parse::<u8>);
    key == "aws:currenttime"
        || key == "kms:recipientattestation:imagesha384"
        || matches!(pcr, Some(Ok(0..=31)))
        || key.strip_prefix("kms:encryptioncontext:").is_some_and(|name| !name.is_empty())
}

/// Whether text matches a pattern in which `*` stands for any characters and `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.as_bytes().first(), text.chars().next()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            text.char_indices().any(|(at, _)| matches(&pattern[1..], &text[at..]))
                || matches(&pattern[1..], "")
        }
        (Some(b'?'), Some(c)) => matches(&pattern[1..], &text[c.len_utf8()..]),
        (Some(_), Some(c)) => {
            pattern.starts_with(c) && matches(&pattern[c.len_utf8()..], &text[c.len_utf8()..])
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use ceremonies::attestation::{Measurement, Pcr};
    use ceremonies::deploy::kms_policy::key_policy;
    use ceremonies::ids::UnixMillis;
    use serde_json::json;

    use super::*;

    const ADMIN: &str = "arn:aws:iam::111122223333:role/custody-key-admin";
    const ENCLAVE: &str = "arn:aws:iam::111122223333:role/custody-node";
    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1";

    fn measurement(image: u8) -> Measurement {
        let pcr = |register: u8| Pcr::from([image * 16 + register; 48]);
        Measurement { pcr0: pcr(10), pcr1: pcr(11), pcr2: pcr(12), pcr8: None, until: None }
    }

    fn attested(measurement: &Measurement) -> BTreeMap<String, String> {
        let pcrs = measurement.registers();
        pcrs.map(|(index, pcr)| (format!("kms:RecipientAttestation:PCR{index}"), pcr.to_string())).collect()
    }

    fn allows(policy: &Value, principal: &str, action: &str, conditions: &BTreeMap<String, String>) -> bool {
        let policy = Policy::read(policy).unwrap();
        let request = Request { principal, action, resource: KEY, conditions: conditions.clone() };
        matches!(evaluate(&policy, &request), Decision::Allowed(_))
    }

    fn statement(effect: &str, condition: &Value) -> Value {
        json!({"Effect": effect, "Principal": {"AWS": ENCLAVE}, "Action": "kms:Decrypt", "Resource": "*",
               "Condition": condition})
    }

    fn policy(statements: &[Value]) -> Value {
        json!({"Version": "2012-10-17", "Statement": statements})
    }

    #[test]
    fn written_policy_allows_measured_enclaves_and_nobody_else() {
        let policy = key_policy(ADMIN, ENCLAVE, &[measurement(1), measurement(2)]).unwrap();
        let (one, two) = (attested(&measurement(1)), attested(&measurement(2)));
        for action in ["kms:Decrypt", "kms:GenerateDataKey"] {
            assert!(allows(&policy, ENCLAVE, action, &one));
            assert!(allows(&policy, ENCLAVE, action, &two));
            assert!(!allows(&policy, ENCLAVE, action, &BTreeMap::new()), "{action} without an attestation");
            assert!(
                !allows(&policy, ENCLAVE, action, &attested(&measurement(3))),
                "{action} by another image"
            );
            assert!(!allows(&policy, ADMIN, action, &one), "{action} by the administrator");
            assert!(!allows(&policy, "arn:aws:iam::111122223333:role/other", action, &one));
        }
        for action in
            ["kms:Encrypt", "kms:ReEncryptFrom", "kms:CreateGrant", "kms:GenerateDataKeyPair", "kms:Sign"]
        {
            assert!(!allows(&policy, ENCLAVE, action, &one), "{action}");
            assert!(!allows(&policy, ADMIN, action, &BTreeMap::new()), "{action}");
        }
        assert!(allows(&policy, ADMIN, "kms:PutKeyPolicy", &BTreeMap::new()));
        assert!(!allows(&policy, ENCLAVE, "kms:PutKeyPolicy", &one));
    }

    #[test]
    fn registers_of_two_allowed_images_do_not_add_up_to_one() {
        let policy = key_policy(ADMIN, ENCLAVE, &[measurement(1), measurement(2)]).unwrap();
        let mixed = Measurement { pcr2: measurement(2).pcr2, ..measurement(1) };
        assert!(!allows(&policy, ENCLAVE, "kms:Decrypt", &attested(&mixed)));
        let mut short = attested(&measurement(1));
        short.remove("kms:RecipientAttestation:PCR2");
        assert!(!allows(&policy, ENCLAVE, "kms:Decrypt", &short));
    }

    #[test]
    fn an_image_is_let_in_until_its_time_and_not_from_then_on() {
        let until = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let aging = Measurement { until: Some(UnixMillis(until.as_millisecond())), ..measurement(1) };
        let policy = key_policy(ADMIN, ENCLAVE, &[aging, measurement(2)]).unwrap();
        for (image, seconds, allowed) in [(1, -1, true), (1, 0, false), (1, 1, false), (2, 1, true)] {
            let mut conditions = attested(&measurement(image));
            let now = jiff::Timestamp::from_second(until.as_second() + seconds).unwrap();
            conditions.insert("aws:CurrentTime".to_owned(), now.to_string());
            assert_eq!(
                allows(&policy, ENCLAVE, "kms:Decrypt", &conditions),
                allowed,
                "{image} at {seconds} s"
            );
        }
        assert!(!allows(&policy, ENCLAVE, "kms:Decrypt", &attested(&measurement(1))), "at no time");
    }

    #[test]
    fn denial_beats_allowance_in_any_order() {
        let (allow, deny) = (statement("Allow", &json!({})), statement("Deny", &json!({})));
        assert!(allows(&policy(std::slice::from_ref(&allow)), ENCLAVE, "kms:Decrypt", &BTreeMap::new()));
        for both in [[allow.clone(), deny.clone()], [deny, allow]] {
            assert!(!allows(&policy(&both), ENCLAVE, "kms:Decrypt", &BTreeMap::new()));
        }
    }

    #[test]
    fn each_operator_decides_as_aws_documents() {
        const KEY: &str = "kms:EncryptionContext:wallet";
        let cases = [
            ("StringEquals", json!("a"), [true, false, false, false]),
            ("StringEquals", json!(["a", "b"]), [true, false, true, false]),
            ("StringEquals", json!([]), [false, false, false, false]),
            ("StringEqualsIgnoreCase", json!("a"), [true, true, false, false]),
            ("StringNotEquals", json!("a"), [false, true, true, true]),
            ("StringNotEqualsIgnoreCase", json!("a"), [false, false, true, true]),
            ("Null", json!("true"), [false, false, false, true]),
            ("Null", json!("false"), [true, true, true, false]),
        ];
        for (operator, value, expected) in cases {
            let policy = policy(&[statement("Allow", &json!({operator: {KEY: value}}))]);
            for (found, expected) in [Some("a"), Some("A"), Some("b"), None].into_iter().zip(expected) {
                let conditions = found.map(|found| (KEY.to_owned(), found.to_owned())).into_iter().collect();
                assert_eq!(
                    allows(&policy, ENCLAVE, "kms:Decrypt", &conditions),
                    expected,
                    "{operator} {value} on {found:?}"
                );
            }
        }
    }

    #[test]
    fn every_condition_of_a_statement_must_hold() {
        let condition = json!({
            "StringEquals": {"kms:EncryptionContext:wallet": "a", "kms:EncryptionContext:node": "1"},
            "Null": {"kms:RecipientAttestation:PCR0": "false"},
        });
        let policy = policy(&[statement("Allow", &condition)]);
        let all = BTreeMap::from(
            [
                ("kms:EncryptionContext:wallet", "a"),
                ("kms:EncryptionContext:node", "1"),
                ("kms:RecipientAttestation:PCR0", "00"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        assert!(allows(&policy, ENCLAVE, "kms:Decrypt", &all));
        for key in all.keys() {
            let mut fewer = all.clone();
            fewer.remove(key);
            assert!(!allows(&policy, ENCLAVE, "kms:Decrypt", &fewer), "without {key}");
        }
    }

    #[test]
    fn patterns_match_actions_and_resources_as_a_whole() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("kms:*", "kms:decrypt", true),
            ("kms:de*t", "kms:decrypt", true),
            ("kms:d?crypt", "kms:decrypt", true),
            ("kms:decrypt", "kms:decryptx", false),
            ("kms:decrypt", "kms:decryp", false),
            ("kms:re*", "kms:decrypt", false),
            ("kms:decrypt?", "kms:decrypt", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn policy_that_cannot_be_evaluated_whole_is_refused() {
        let good = statement("Allow", &json!({}));
        let with = |key: &str, value: Value| {
            let mut statement = good.clone();
            statement[key] = value;
            policy(&[statement])
        };
        for bad in [
            json!({}),
            json!({"Version": "2008-10-17", "Statement": [good]}),
            with("Effect", json!("allow")),
            with("NotAction", json!("kms:Sign")),
            with("NotPrincipal", json!("*")),
            with("Principal", json!("somebody")),
            with("Principal", json!({"Service": "s3.amazonaws.com"})),
            with("Condition", json!({"StringLike": {"kms:RecipientAttestation:PCR0": "*"}})),
            with("Condition", json!({"StringEqualsIfExists": {"kms:RecipientAttestation:PCR0": "0"}})),
            with("Condition", json!({"StringEquals": {"kms:ViaService": "s3"}})),
            with("Condition", json!({"StringEquals": {"kms:RecipientAttestation:PCR32": "0"}})),
            with("Condition", json!({"Null": {"kms:RecipientAttestation:PCR0": "yes"}})),
            with("Condition", json!({"DateLessThan": {"aws:CurrentTime": "tomorrow"}})),
            with("Condition", json!({"DateGreaterThan": {"aws:CurrentTime": "2027-01-31T00:00:00Z"}})),
        ] {
            assert!(Policy::read(&bad).is_err(), "{bad}");
        }
    }
}
