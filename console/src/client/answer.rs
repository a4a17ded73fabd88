//! One node's answer to one question: who signed it, and whether it is valid.

use ceremonies::deploy::subject;
use ceremonies::ids::NodeIndex;
use ceremonies::said::{SaidError, Topic};
use ceremonies::wire::record;
use prost::Message;

use super::trouble::Trouble;
use super::voices::Voices;

/// The random bytes that bind an answer to its question.
pub(super) fn nonce() -> Vec<u8> {
    rand::random::<[u8; 16]>().to_vec()
}

/// The body of a node's answer to this request, if that node signed it.
///
/// # Errors
/// [`Trouble`] for an answer that nobody signed, or another node did.
pub fn verified(
    voices: &Voices,
    node: NodeIndex,
    asked: (&str, &[u8]),
    answer: &[u8],
) -> Result<Vec<u8>, Trouble> {
    if answer.len() > subject::MAX_PAYLOAD {
        return Err(Trouble::TooLarge(answer.len()));
    }
    let (subject, request) = asked;
    let heard = voices.hear(Topic::answer_to(subject, request), answer);
    match heard.map_err(Trouble::Unverified)? {
        (signer, body) if signer == node => Ok(body),
        (signer, _) => Err(Trouble::Another(signer)),
    }
}

/// An answer as it was given.
#[derive(Debug)]
pub(super) struct Answer<B> {
    pub(super) body: B,
    /// Why no node vouches for it: its content must then prove itself.
    pub(super) unverified: Option<SaidError>,
}

/// Reads an answer whose content may prove itself, so that it is also read where its signer is unknown: the nodes of a
/// charter that the console has yet to learn.
pub(super) fn read<B: Message + Default>(
    voices: &Voices,
    node: NodeIndex,
    asked: (&str, &[u8]),
    answer: &[u8],
) -> Result<Answer<B>, Trouble> {
    let (body, unverified) = match verified(voices, node, asked, answer) {
        Ok(body) => (body, None),
        Err(Trouble::Unverified(error @ (SaidError::Stranger(_) | SaidError::Signature(_)))) => {
            (record::Said::decode(answer).map_err(Trouble::Unreadable)?.body, Some(error))
        }
        Err(trouble) => return Err(trouble),
    };
    Ok(Answer { body: B::decode(body.as_slice()).map_err(Trouble::Unreadable)?, unverified })
}
