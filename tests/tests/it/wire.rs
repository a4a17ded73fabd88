//! The wire types against bytes of every message, recorded once: a store, a bundle or a node of another version must be
//! read as what it was.
//!
//! `wire/messages.jsonl` has a line for each message and, where only one of several fields may be set, for each of them.
//! Lines are added, never changed: a test names what is missing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use serde::{Deserialize, Serialize};

const RECORDED: &str = include_str!("wire/messages.jsonl");
/// Files of wire types, and the folder that each is named from.
const TYPES: [(&str, &[&str]); 3] = [
    ("ceremonies/proto", &["custody/log.proto", "custody/record.proto", "custody/bus.proto"]),
    ("enclave/proto", &["backup.proto", "sealed.proto", "session.proto"]),
    ("enclave/link/proto", &["link.proto"]),
];

/// A message as it was once written.
#[derive(Serialize, Deserialize)]
struct Recorded {
    message: String,
    bytes: String,
    holds: serde_json::Value,
}

fn pools() -> Vec<DescriptorPool> {
    let compile = |(folder, files): &(&str, &[&str])| {
        let types = protox::compile(*files, [lab::programs::workspace().join(folder)]).unwrap();
        DescriptorPool::from_file_descriptor_set(types).unwrap()
    };
    TYPES.iter().map(compile).collect()
}

fn messages(pools: &[DescriptorPool]) -> BTreeMap<String, MessageDescriptor> {
    let all = pools.iter().flat_map(DescriptorPool::all_messages);
    all.filter(|message| !message.is_map_entry())
        .map(|message| (message.full_name().to_owned(), message))
        .collect()
}

fn recorded() -> Vec<Recorded> {
    RECORDED.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A value that tells its field from the others.
fn value(field: &FieldDescriptor) -> Value {
    let number = field.number();
    match field.kind() {
        Kind::Double => Value::F64(f64::from(number)),
        Kind::Float => Value::F32(1.5),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(-1 - number.cast_signed()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(-1000 - i64::from(number)),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number + 300),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(u64::from(number) << 40),
        Kind::Bool => Value::Bool(true),
        Kind::String => Value::String(field.name().to_owned()),
        Kind::Bytes => Value::Bytes(field.name().as_bytes().to_vec().into()),
        Kind::Message(message) => Value::Message(example(&message, None)),
        Kind::Enum(names) => Value::EnumNumber(names.values().last().unwrap().number()),
    }
}

/// A message in which every field is set; of those that exclude each other this one, or the first.
fn example(message: &MessageDescriptor, chosen: Option<&FieldDescriptor>) -> DynamicMessage {
    let mut example = DynamicMessage::new(message.clone());
    for field in message.fields() {
        let of_several = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let first = of_several.as_ref().and_then(|oneof| oneof.fields().next());
        let of_chosen = chosen.and_then(FieldDescriptor::containing_oneof);
        let wanted = if of_chosen == of_several { chosen.cloned().or(first) } else { first };
        if of_several.is_some() && wanted.as_ref() != Some(&field) {
            continue;
        }
        let set = if field.is_map() {
            let Kind::Message(entry) = field.kind() else { continue };
            let of = value(&entry.map_entry_value_field());
            Value::Map([(MapKey::String(field.name().to_owned()), of)].into())
        } else if field.is_list() {
            Value::List(vec![value(&field), value(&field)])
        } else {
            value(&field)
        };
        example.set_field(&field, set);
    }
    example
}

/// The fields of a message that are set.
fn fields_of(message: &DynamicMessage) -> BTreeSet<u32> {
    message.fields().map(|(field, _)| field.number()).collect()
}

#[test]
fn every_message_is_read_as_it_was_recorded() {
    let messages = messages(&pools());
    for Recorded { message, bytes, holds } in recorded() {
        let Some(of) = messages.get(&message) else { panic!("{message} is gone") };
        let bytes = hex::decode(bytes).unwrap();
        let read = DynamicMessage::decode(of.clone(), bytes.as_slice()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), holds, "{message} is read as something else");
        assert_eq!(read.unknown_fields().count(), 0, "{message} has lost a field");
        assert_eq!(read.encode_to_vec(), bytes, "{message} is written otherwise");
    }
}

/// Whether a field has no value but the one that is written as nothing.
fn is_never_written(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Enum(of) if of.values().all(|value| value.number() == 0))
}

#[test]
fn every_field_of_every_message_is_recorded() {
    let messages = messages(&pools());
    let mut known: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for Recorded { message, bytes, .. } in recorded() {
        let read = DynamicMessage::decode(messages[&message].clone(), hex::decode(bytes).unwrap().as_slice())
            .unwrap();
        known.entry(message).or_default().extend(fields_of(&read));
    }
    let mut missing = Vec::new();
    for (name, message) in &messages {
        let mut known = known.remove(name).unwrap_or_default();
        for field in message.fields() {
            if !known.contains(&field.number()) && !is_never_written(&field) {
                let example = example(message, Some(&field));
                known.extend(fields_of(&example));
                let line = Recorded {
                    message: name.clone(),
                    bytes: hex::encode(example.encode_to_vec()),
                    holds: serde_json::to_value(&example).unwrap(),
                };
                missing.push(serde_json::to_string(&line).unwrap());
            }
        }
    }
    assert!(missing.is_empty(), "add to wire/messages.jsonl:\n{}", missing.join("\n"));
}
