//! The wire form of events, in both directions. Reading checks shape and size only.

use super::{Aborted, EntryError, Event, TestSigned};
use crate::attestation::MAX_DOCUMENT;
use crate::chain::transaction::Confirmation;
use crate::charter::Role;
use crate::curve::Point;
use crate::ids::{NodeIndex, UnixMillis};
use crate::manifest::Manifest;
use crate::sshsig::MAX_SIGNATURE;
use crate::statement::{Answer, Release};
use crate::subsets::Subset;
use crate::wallet::{BackedUp, Object};
use crate::{wire, words};

/// Largest accepted generation record, in bytes; that of 20 nodes has some 1,300.
const MAX_RECORD: usize = 16 * 1024;
/// Longest accepted run of read-back words, in bytes.
const MAX_WORDS: usize = 512;
/// Longest sealed file key: HPKE's encapsulated key, the 16 bytes of age's file key and a tag, with room.
const MAX_SEALED_KEY: usize = 128;

fn bounded(bytes: Vec<u8>, most: usize, what: &'static str) -> Result<Vec<u8>, EntryError> {
    if bytes.is_empty() || bytes.len() > most { Err(EntryError::Value(what)) } else { Ok(bytes) }
}

fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], EntryError> {
    bytes.try_into().map_err(|_| EntryError::Value(what))
}

fn role(text: &str) -> Result<Role, EntryError> {
    text.parse().map_err(|_| EntryError::Value("role"))
}

fn optional_node(index: u32) -> Result<Option<NodeIndex>, EntryError> {
    if index == 0 { Ok(None) } else { Ok(Some(NodeIndex::try_from(index)?)) }
}

/// Parties in strictly ascending order, so that one group has one encoding.
fn subset(indices: &[u32]) -> Result<Subset, EntryError> {
    let parties = indices.iter().map(|i| NodeIndex::try_from(*i)).collect::<Result<Vec<_>, _>>()?;
    let subset = Subset::new(parties.iter().copied());
    if subset.parties() == parties { Ok(subset) } else { Err(EntryError::Value("subset")) }
}

fn object(object: Option<wire::log::Object>) -> Result<Object, EntryError> {
    let object = object.ok_or(EntryError::Value("object"))?;
    Ok(Object {
        key: object.key.try_into()?,
        version: object.version.try_into()?,
        digest: object.digest.as_slice().try_into()?,
        locked_until: UnixMillis(object.locked_until_ms),
    })
}

impl TryFrom<wire::log::Event> for Event {
    type Error = EntryError;

    fn try_from(event: wire::log::Event) -> Result<Self, EntryError> {
        use wire::log::event::Kind;
        Ok(match event.kind.ok_or(EntryError::NoEvent)? {
            Kind::Opened(opened) => Self::Opened {
                manifest: Box::new(Manifest::parse(&opened.manifest)?),
                signature: bounded(opened.signature, MAX_SIGNATURE, "signature")?,
            },
            Kind::Attested(attested) => Self::Attested {
                node: attested.node.try_into()?,
                document: bounded(attested.document, MAX_DOCUMENT, "document")?,
            },
            Kind::Signed(signed) => Self::signed(signed)?,
            Kind::BackedUp(backed_up) => Self::BackedUp(Box::new(BackedUp {
                node: backed_up.node.try_into()?,
                whole: object(backed_up.whole)?,
                root: object(backed_up.root)?,
                signature: fixed(&backed_up.signature, "signature")?,
            })),
            Kind::Proved(proved) => Self::Proved {
                node: proved.node.try_into()?,
                object: proved.object.as_slice().try_into()?,
                point: Point::decode(&proved.point).map_err(|_| EntryError::Value("point"))?,
                signature: fixed(&proved.signature, "signature")?,
            },
            Kind::Recovered(recovered) => Self::Recovered {
                node: recovered.node.try_into()?,
                signature: fixed(&recovered.signature, "signature")?,
            },
            Kind::Staged(staged) => Self::Staged {
                node: staged.node.try_into()?,
                record: bounded(staged.record, MAX_RECORD, "generation record")?,
                blob: staged.blob.as_slice().try_into()?,
                signature: fixed(&staged.signature, "signature")?,
            },
            Kind::Retired(retired) => Self::Retired {
                node: retired.node.try_into()?,
                record: retired.record.as_slice().try_into()?,
                signature: fixed(&retired.signature, "signature")?,
            },
            Kind::Prepared(prepared) => Self::Prepared {
                node: prepared.node.try_into()?,
                record: bounded(prepared.record, MAX_RECORD, "generation record")?,
                blob: prepared.blob.as_slice().try_into()?,
                signature: fixed(&prepared.signature, "signature")?,
            },
            Kind::Adopted(adopted) => Self::Adopted {
                node: adopted.node.try_into()?,
                record: adopted.record.as_slice().try_into()?,
            },
            Kind::TestSigned(signed) => Self::TestSigned(Box::new(TestSigned {
                node: signed.node.try_into()?,
                subset: subset(&signed.subset)?,
                attempt: signed.attempt,
                input: signed.input,
                session: signed.session.as_slice().try_into()?,
                r: fixed(&signed.r, "r")?,
                s: fixed(&signed.s, "s")?,
                recovery_id: u8::try_from(signed.recovery_id)
                    .ok()
                    .filter(|id| *id < 4)
                    .ok_or(EntryError::Value("recovery id"))?,
                signature: fixed(&signed.signature, "signature")?,
            })),
            Kind::Aborted(aborted) => Self::Aborted(Box::new(Aborted {
                node: aborted.node.try_into()?,
                subset: subset(&aborted.subset)?,
                attempt: aborted.attempt,
                reason: aborted.reason.try_into()?,
                culprit: optional_node(aborted.culprit)?,
                banned: optional_node(aborted.banned)?,
                signature: fixed(&aborted.signature, "signature")?,
            })),
            Kind::Faulted(faulted) => {
                Self::Faulted { node: faulted.node.try_into()?, reason: faulted.reason.try_into()? }
            }
            Kind::Withdrawn(withdrawn) => Self::Withdrawn {
                person: withdrawn.person.try_into()?,
                role: role(&withdrawn.role)?,
                reason: withdrawn.reason.try_into()?,
                signature: bounded(withdrawn.signature, MAX_SIGNATURE, "signature")?,
            },
        })
    }
}

impl Event {
    fn signed(signed: wire::log::Signed) -> Result<Self, EntryError> {
        use wire::log::signed::Answer as Wire;
        let answer = match signed.answer {
            None => Answer::None,
            Some(Wire::Words(typed)) => {
                let normal = words::normalise(&typed);
                let plain = normal.bytes().all(|b| b.is_ascii_lowercase() || b == b' ');
                if typed != normal || !plain || typed.is_empty() || typed.len() > MAX_WORDS {
                    return Err(EntryError::Value("read-back: words are not normalised"));
                }
                Answer::Words(typed)
            }
            Some(Wire::Release(release)) => Answer::Release(release.try_into()?),
            Some(Wire::Broadcast(confirmation)) => Answer::Broadcast(Confirmation {
                transaction: confirmation
                    .transaction
                    .parse()
                    .map_err(|_| EntryError::Value("transaction id"))?,
                block: confirmation.block.as_slice().try_into()?,
                height: confirmation.height,
            }),
            Some(Wire::Withheld(reason)) => Answer::Withheld(reason.try_into()?),
            Some(Wire::Opinion(opinion)) => match opinion.verdict() {
                wire::log::Verdict::Agree if opinion.reason.is_empty() => Answer::Agree,
                wire::log::Verdict::Disagree => Answer::Disagree(opinion.reason.try_into()?),
                wire::log::Verdict::Agree | wire::log::Verdict::Unspecified => {
                    return Err(EntryError::Value("verdict"));
                }
            },
        };
        Ok(Self::Signed {
            step: signed.step.try_into()?,
            role: role(&signed.role)?,
            person: signed.person.try_into()?,
            answer,
            signature: bounded(signed.signature, MAX_SIGNATURE, "signature")?,
        })
    }
}

fn numbers(subset: &Subset) -> Vec<u32> {
    subset.parties().iter().map(|party| u32::from(*party)).collect()
}

fn number(node: Option<NodeIndex>) -> u32 {
    node.map_or(0, u32::from)
}

impl From<Object> for wire::log::Object {
    fn from(object: Object) -> Self {
        Self {
            key: object.key.to_string(),
            version: object.version.to_string(),
            digest: object.digest.as_bytes().to_vec(),
            locked_until_ms: object.locked_until.0,
        }
    }
}

impl TryFrom<wire::log::Release> for Release {
    type Error = EntryError;

    fn try_from(release: wire::log::Release) -> Result<Self, EntryError> {
        Ok(Self {
            node: release.node.try_into()?,
            object: release.object.as_slice().try_into()?,
            sealed: bounded(release.sealed, MAX_SEALED_KEY, "sealed file key")?,
        })
    }
}

impl From<Release> for wire::log::Release {
    fn from(release: Release) -> Self {
        Self { node: release.node.into(), object: release.object.as_bytes().to_vec(), sealed: release.sealed }
    }
}

impl From<Answer> for Option<wire::log::signed::Answer> {
    fn from(answer: Answer) -> Self {
        use wire::log::signed::Answer as Wire;
        let opinion = |verdict: wire::log::Verdict, reason: String| {
            Wire::Opinion(wire::log::Opinion { verdict: verdict.into(), reason })
        };
        Some(match answer {
            // A withdrawal is an event of its own.
            Answer::None | Answer::Withdraw(_) => return None,
            Answer::Words(words) => Wire::Words(words),
            Answer::Agree => opinion(wire::log::Verdict::Agree, String::new()),
            Answer::Disagree(reason) => opinion(wire::log::Verdict::Disagree, reason.to_string()),
            Answer::Release(release) => Wire::Release(release.into()),
            Answer::Broadcast(confirmation) => Wire::Broadcast(wire::log::Confirmation {
                transaction: confirmation.transaction.to_string(),
                block: confirmation.block.as_bytes().to_vec(),
                height: confirmation.height,
            }),
            Answer::Withheld(reason) => Wire::Withheld(reason.to_string()),
        })
    }
}

impl From<Event> for wire::log::Event {
    fn from(event: Event) -> Self {
        use wire::log::event::Kind;
        let kind = match event {
            Event::Opened { manifest, signature } => {
                Kind::Opened(wire::log::Opened { manifest: manifest.as_bytes().to_vec(), signature })
            }
            Event::Attested { node, document } => {
                Kind::Attested(wire::log::Attested { node: node.into(), document })
            }
            Event::Signed { step, role, person, answer, signature } => Kind::Signed(wire::log::Signed {
                step: step.to_string(),
                role: role.to_string(),
                person: person.to_string(),
                answer: answer.into(),
                signature,
            }),
            Event::Prepared { node, record, blob, signature } => Kind::Prepared(wire::log::Prepared {
                node: node.into(),
                record,
                blob: blob.as_bytes().to_vec(),
                signature: signature.to_vec(),
            }),
            Event::Staged { node, record, blob, signature } => Kind::Staged(wire::log::Staged {
                node: node.into(),
                record,
                blob: blob.as_bytes().to_vec(),
                signature: signature.to_vec(),
            }),
            Event::BackedUp(backed_up) => Kind::BackedUp(wire::log::BackedUp {
                node: backed_up.node.into(),
                whole: Some(backed_up.whole.into()),
                root: Some(backed_up.root.into()),
                signature: backed_up.signature.to_vec(),
            }),
            Event::Proved { node, object, point, signature } => Kind::Proved(wire::log::Proved {
                node: node.into(),
                object: object.as_bytes().to_vec(),
                point: point.as_bytes().to_vec(),
                signature: signature.to_vec(),
            }),
            Event::Recovered { node, signature } => {
                Kind::Recovered(wire::log::Recovered { node: node.into(), signature: signature.to_vec() })
            }
            Event::Retired { node, record, signature } => Kind::Retired(wire::log::Retired {
                node: node.into(),
                record: record.as_bytes().to_vec(),
                signature: signature.to_vec(),
            }),
            Event::Adopted { node, record } => {
                Kind::Adopted(wire::log::Adopted { node: node.into(), record: record.as_bytes().to_vec() })
            }
            Event::TestSigned(signed) => Kind::TestSigned((*signed).into()),
            Event::Aborted(aborted) => Kind::Aborted((*aborted).into()),
            Event::Faulted { node, reason } => {
                Kind::Faulted(wire::log::Faulted { node: node.into(), reason: reason.to_string() })
            }
            Event::Withdrawn { person, role, reason, signature } => Kind::Withdrawn(wire::log::Withdrawn {
                person: person.to_string(),
                role: role.to_string(),
                reason: reason.to_string(),
                signature,
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl From<TestSigned> for wire::log::TestSigned {
    fn from(signed: TestSigned) -> Self {
        Self {
            node: signed.node.into(),
            subset: numbers(&signed.subset),
            attempt: signed.attempt,
            session: signed.session.as_bytes().to_vec(),
            r: signed.r.to_vec(),
            s: signed.s.to_vec(),
            recovery_id: signed.recovery_id.into(),
            signature: signed.signature.to_vec(),
            input: signed.input,
        }
    }
}

impl From<Aborted> for wire::log::Aborted {
    fn from(aborted: Aborted) -> Self {
        Self {
            node: aborted.node.into(),
            subset: numbers(&aborted.subset),
            attempt: aborted.attempt,
            reason: aborted.reason.to_string(),
            culprit: number(aborted.culprit),
            banned: number(aborted.banned),
            signature: aborted.signature.to_vec(),
        }
    }
}
