//! What travels over the bus besides the log: requests, replies and news, and the subjects they come under.
#![no_main]

use ceremonies::deploy::subject;
use ceremonies::log::{Entry, Event};
use ceremonies::record::SignedHead;
use ceremonies::wire::bus::{Heartbeat, ListReply, Progress, Read, ReadReply, Submit, SubmitReply};
use ceremonies::wire::record::{Head, News, Said, ToPeer};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    if let Some(event) = read::<Submit>(data).and_then(|submit| submit.event)
        && let Ok(judged) = Event::try_from(event.clone())
    {
        assert_eq!(Event::try_from(event).ok(), Some(judged));
    }
    for entry in read::<ReadReply>(data).into_iter().flat_map(|reply| reply.entries) {
        if let Ok(entry) = Entry::from_wire(entry) {
            Entry::decode(&entry.encode()).expect("an entry that was just encoded");
        }
    }
    read::<Read>(data);
    read::<SubmitReply>(data);
    read::<ListReply>(data);
    read::<Heartbeat>(data);
    read::<Progress>(data);
    read::<News>(data);
    read::<Said>(data);
    read::<ToPeer>(data);
    if let Some(head) = read::<Head>(data).and_then(|head| SignedHead::from_wire(head).ok()) {
        assert_eq!(SignedHead::from_wire(head.raw().clone()), Ok(head));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        subjects(text);
    }
});

/// A message that was read is read again from its own encoding.
fn read<M: Message + Default + PartialEq>(data: &[u8]) -> Option<M> {
    let message = M::decode(data).ok()?;
    let again = M::decode(message.encode_to_vec().as_slice()).expect("a message that was just encoded");
    assert!(again == message, "a message changed on its way");
    Some(message)
}

/// A subject that is understood is the one that would be written.
fn subjects(text: &str) {
    if let Ok(id) = subject::ceremony(text) {
        let to_nodes = ["submit", "read"].map(|verb| format!("ceremony.{verb}.{id}."));
        assert!(text == subject::log(&id) || to_nodes.iter().any(|start| text.starts_with(start)));
    }
    if let Ok((label, from)) = subject::parse_session(text) {
        let end = format!(".{label}.{from}");
        assert!(text.ends_with(&end), "`{text}` is read as {end}");
    }
    if let Ok(node) = subject::node(text) {
        assert!(text.ends_with(&format!(".{node}")), "`{text}` is read as node {node}");
    }
}
