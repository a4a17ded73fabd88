//! The stream that orders the log: its required settings, and how a stream without them is recognised.
//!
//! The stream's keeper makes it, once. Agents compare the broker's stream with these settings at every connection and
//! write to no other: a stream that forgets, expires or replaces messages would order nothing.

use std::fmt;

use serde_json::{Value, json};

use crate::deploy::subject;
use crate::log::MAX_ENTRY;
use crate::text::shortened;

/// Largest message: an entry, with room for headers.
const MAX_MESSAGE: usize = MAX_ENTRY + 4 * 1024;
/// The most messages of one ceremony: far more than any ceremony has. A host that adds more harms that ceremony only.
const MAX_OF_CEREMONY: u64 = 4096;
/// The most bytes in all: some 20,000 ceremonies.
const MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// The stream's configuration as JetStream's API takes it (`$JS.API.STREAM.CREATE`), for a broker of so many replicas.
#[must_use]
pub fn stream_config(replicas: u8) -> Value {
    json!({
        "name": subject::STREAM,
        "subjects": [subject::LOGS],
        "storage": "file",
        "num_replicas": replicas,
        "retention": "limits",
        "discard": "new",
        "discard_new_per_subject": true,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": MAX_BYTES,
        "max_age": 0,
        "max_msg_size": MAX_MESSAGE,
        "max_msgs_per_subject": MAX_OF_CEREMONY,
        "allow_direct": true,
        "allow_rollup_hdrs": false,
        "deny_delete": true,
        "deny_purge": true,
    })
}

/// A setting that a stream has wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The setting.
    pub setting: &'static str,
    /// What it must be.
    pub needed: String,
    /// What it is.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} and must be {}", self.setting, self.found, self.needed)
    }
}

/// What differs in a stream's configuration, as the API gives it, from what the log needs. Limits that are wider than ours,
/// descriptions and replicas do not count; what loses, expires, replaces or redirects messages does.
#[must_use]
pub fn stream_differences(config: &Value) -> Vec<Difference> {
    let needed = stream_config(1);
    let exact =
        ["name", "subjects", "storage", "retention", "discard", "allow_direct", "deny_delete", "deny_purge"];
    let mut differences: Vec<Difference> = exact
        .into_iter()
        .filter(|setting| config.get(setting) != needed.get(setting))
        .map(|setting| difference(setting, &needed[setting], &config[setting]))
        .collect();
    let absent = [
        "max_age",
        "allow_msg_ttl",
        "subject_delete_marker_ttl",
        "allow_rollup_hdrs",
        "allow_msg_counter",
        "allow_msg_schedules",
        "no_ack",
        "sealed",
        "mirror",
        "sources",
        "republish",
        "subject_transform",
    ];
    differences.extend(
        absent
            .into_iter()
            .filter(|setting| !is_empty(&config[setting]))
            .map(|setting| difference(setting, &json!("absent"), &config[setting])),
    );
    for (setting, least) in [("max_msgs", u64::MAX), ("max_consumers", 0), ("max_msg_size", MAX_ENTRY as u64)]
    {
        let limit = config[setting].as_i64().unwrap_or(-1);
        if u64::try_from(limit).is_ok_and(|limit| limit > 0 && limit < least) {
            differences.push(difference(setting, &json!("unlimited, or wider"), &config[setting]));
        }
    }
    if !matches!(config["persist_mode"].as_str(), None | Some("" | "default")) {
        differences.push(difference("persist_mode", &json!("default"), &config["persist_mode"]));
    }
    let limited = config["max_msgs_per_subject"].as_i64().unwrap_or(-1) > 0;
    if limited && config["discard_new_per_subject"] != json!(true) {
        differences.push(difference(
            "discard_new_per_subject",
            &json!(true),
            &config["discard_new_per_subject"],
        ));
    }
    differences
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) => false,
    }
}

fn difference(setting: &'static str, needed: &Value, found: &Value) -> Difference {
    let found = if found.is_null() { "not set".to_owned() } else { shortened(&found.to_string(), 120) };
    Difference { setting, needed: needed.to_string(), found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_as_it_is_made_differs_in_nothing() {
        assert_eq!(stream_differences(&stream_config(3)), []);
    }

    #[test]
    fn description_and_wider_limits_do_not_count() {
        let mut config = stream_config(1);
        config["description"] = json!("edited by an administrator");
        config["metadata"] = json!({ "team": "payments" });
        config["max_bytes"] = json!(-1);
        config["max_msgs_per_subject"] = json!(-1);
        config["discard_new_per_subject"] = json!(false);
        config["max_msg_size"] = json!(1024 * 1024);
        config["mirror"] = Value::Null;
        assert_eq!(stream_differences(&config), []);
    }

    #[test]
    fn whatever_loses_replaces_or_redirects_messages_is_named() {
        for (setting, value) in [
            ("storage", json!("memory")),
            ("retention", json!("workqueue")),
            ("discard", json!("old")),
            ("subjects", json!(["ceremony.log.*", "health.*"])),
            ("max_age", json!(60_000_000_000_u64)),
            ("max_msgs", json!(10)),
            ("max_msg_size", json!(1024)),
            ("discard_new_per_subject", json!(false)),
            ("deny_delete", json!(false)),
            ("deny_purge", Value::Null),
            ("allow_direct", json!(false)),
            ("allow_rollup_hdrs", json!(true)),
            ("allow_msg_ttl", json!(true)),
            ("allow_msg_counter", json!(true)),
            ("allow_msg_schedules", json!(true)),
            ("no_ack", json!(true)),
            ("persist_mode", json!("async")),
            ("subject_delete_marker_ttl", json!(1_000_000_000)),
            ("mirror", json!({ "name": "OTHER" })),
            ("sources", json!([{ "name": "OTHER" }])),
            ("republish", json!({ "src": ">", "dest": "health.3" })),
            ("subject_transform", json!({ "src": ">", "dest": "x" })),
        ] {
            let mut config = stream_config(1);
            config[setting] = value;
            let found: Vec<&str> = stream_differences(&config).iter().map(|found| found.setting).collect();
            assert_eq!(found, [setting]);
        }
        assert!(!stream_differences(&Value::Null).is_empty());
    }
}
