//! A protocol session of three parties, and everything that can be done to it from outside: by whoever writes to
//! the bus, by whoever carries the messages, and by one party that signs what it likes.

use std::sync::LazyLock;

use ceremonies::ids::Hash;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use prost::Message;

use crate::network::{BARRIER_MS, End, Network, Packet, Parties, ROUND_MS, greetings, node, parties};

static PARTIES: LazyLock<Parties> = LazyLock::new(|| parties(&[1, 2, 3]));
/// The party that is not to be trusted.
const LIAR: u8 = 2;
/// Most moves of one run.
const MOVES: usize = 64;

/// A signed message, as it travels.
#[derive(Clone, PartialEq, Eq, Message)]
struct Envelope {
    #[prost(bytes = "vec", tag = "1")]
    content: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    signature: Vec<u8>,
}

/// What its content begins with.
#[derive(Clone, PartialEq, Eq, Message)]
struct Header {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "vec", tag = "2")]
    label: Vec<u8>,
    #[prost(uint32, tag = "3")]
    from: u32,
    #[prost(uint32, tag = "4")]
    to: u32,
}

struct Run {
    network: Network,
    delivered: Vec<Packet>,
    /// Whether a party lied or time passed: only then may a session fail.
    disturbed: bool,
}

/// Plays the moves that the input calls for, to the end of every party's session.
///
/// # Panics
/// When something does not hold.
pub fn play(data: &[u8]) {
    let mut run = Run {
        network: Network::new(&PARTIES, greetings(&[1, 2, 3])),
        delivered: Vec::new(),
        disturbed: false,
    };
    run.network.start();
    let mut input = Unstructured::new(data);
    for _ in 0..MOVES {
        if input.is_empty() || run.play_one(&mut input).is_err() {
            break;
        }
    }
    run.network.settle(|packet| vec![packet]);
    run.network.pass(BARRIER_MS + ROUND_MS);
    for party in PARTIES.keys() {
        let end = run.network.ends.get(party).expect("a session has an end");
        let End::Failed(failure) = end else { continue };
        assert!(run.disturbed, "node {party} gave up: {}", failure.reason);
        assert_eq!(failure.ban, None, "a ban that no protocol asked for");
        assert_ne!(failure.culprit, Some(*party), "node {party} accuses itself");
        let honest = failure.culprit.is_some_and(|culprit| culprit != node(LIAR));
        let doubtful = failure.reason.contains("unless the latter lie");
        assert!(!honest || doubtful, "an honest node is accused: {}", failure.reason);
    }
}

impl Run {
    fn play_one(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let to = node(*input.choose(&[1, 3])?);
        match input.int_in_range(0..=6)? {
            0 => {
                let bytes = some_bytes(input)?.to_vec();
                self.inject(&Packet { from: node(LIAR), to, bytes });
            }
            1 => {
                for _ in 0..input.int_in_range(1..=8)? {
                    self.deliver_next();
                }
            }
            2 => {
                let next = self.network.queue.front().cloned();
                if let Some(changed) = next.map(|packet| change(&packet, input)).transpose()?.flatten() {
                    self.inject(&changed);
                }
            }
            3 | 4 => {
                let lie = lie(to.get(), some_bytes(input)?);
                self.disturbed = true;
                self.network.deliver(to, &lie);
            }
            5 => {
                if !self.delivered.is_empty() {
                    let again = input.choose(&self.delivered)?.clone();
                    self.network.deliver(again.to, &again.bytes);
                }
            }
            _ => {
                self.disturbed = true;
                self.network.pass(input.arbitrary::<u16>()?.into());
            }
        }
        Ok(())
    }

    fn deliver_next(&mut self) {
        if let Some(packet) = self.network.queue.pop_front() {
            self.network.deliver(packet.to, &packet.bytes);
            self.delivered.push(packet);
        }
    }

    /// Delivers bytes that nobody signed, which have no effect except being counted.
    fn inject(&mut self, packet: &Packet) {
        let now = self.network.now;
        let session = self.network.sessions.get_mut(&packet.to).unwrap();
        if session.is_over() {
            return;
        }
        let before: u64 = session.dropped().values().sum();
        let actions = session.receive(now, &packet.bytes);
        assert!(actions.is_empty() && !session.is_over(), "bytes that nobody signed had an effect");
        assert_eq!(session.dropped().values().sum::<u64>(), before + 1, "not counted");
    }
}

fn some_bytes<'a>(input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let length = usize::from(input.arbitrary::<u8>()?).min(input.len());
    input.bytes(length)
}

/// Any body, signed by the dishonest party.
fn lie(to: u8, body: &[u8]) -> Vec<u8> {
    let liar = &PARTIES[&node(LIAR)];
    let label = liar.label.as_bytes().to_vec();
    let header = Header { version: 1, label, from: LIAR.into(), to: to.into() };
    let content = [&header.encode_to_vec(), body].concat();
    let signature = liar.keys.sign(&Hash::of_parts("custody/session-envelope/v1", &[&content])).to_vec();
    Envelope { content, signature }.encode_to_vec()
}

/// The same packet with one byte changed. None where it still says the same, as it may in another encoding.
fn change(packet: &Packet, input: &mut Unstructured<'_>) -> Result<Option<Packet>> {
    let mut changed = packet.clone();
    let at = input.choose_index(packet.bytes.len())?;
    changed.bytes[at] = input.arbitrary()?;
    let said = |packet: &Packet| Envelope::decode(packet.bytes.as_slice()).ok();
    Ok(if said(&changed) == said(packet) { None } else { Some(changed) })
}
