//! A threshold signature by two parties, one of which says what it likes inside of what it signs.

use std::sync::Arc;

use ceremonies::ids::Hash;
use enclave::scheme::dkls23::{Product, Signing};
use libfuzzer_sys::arbitrary::{Result, Unstructured};

use crate::generation::two_of_three;
use crate::network::{Said, at_one_table, node};

/// Makes the key that is signed with, which takes longer than a run may.
pub fn prepare() {
    two_of_three();
}

/// Lets node 2 change what it says in the round and to the bytes that the input names. Node 1 ends with a
/// signature, which it verifies itself, or says whose fault it is; never its own.
///
/// # Panics
/// When something does not hold.
pub fn play(data: &[u8]) {
    let mut changed = false;
    let signer = |own: u8| {
        let share = Arc::clone(&two_of_three().shares[&node(own)]);
        let parties = [node(1), node(2)];
        let (digest, session) = (Hash::of_bytes(b"digest"), Hash::of_bytes(b"session"));
        Signing::new(share, node(own), &parties, two_of_three().record.public_key, digest, session).unwrap()
    };
    let table = [1, 2].map(|own| (node(own), signer(own))).into();
    let mut input = Unstructured::new(data);
    let round = input.int_in_range(1..=3).unwrap_or(1);
    let ends = at_one_table(table, |number, said| {
        if number == round {
            changed = cheat(said, &mut input).unwrap_or(true);
        }
    });
    match &ends[&node(1)] {
        Ok(Product::Signature(_)) => {}
        Ok(Product::Share(_) | Product::Repaired(_) | Product::Helped) => {
            panic!("no signature, and no fault")
        }
        Err(abort) => {
            assert!(changed, "an honest signer is refused: {abort}");
            assert!(abort.culprit != Some(node(1)) && abort.ban != Some(node(1)), "{abort}");
        }
    }
}

/// Whether anything was changed.
fn cheat(said: &mut Said, input: &mut Unstructured<'_>) -> Result<bool> {
    let Some(outgoing) = said.get_mut(&node(2)) else { return Ok(false) };
    let mut private = outgoing.private.get(&node(1)).map(|bytes| bytes.to_vec()).unwrap_or_default();
    let before = (outgoing.broadcast.clone(), private.clone());
    let message = if input.arbitrary()? { &mut outgoing.broadcast } else { &mut private };
    match input.int_in_range(0..=3)? {
        0 => message.truncate(usize::from(input.arbitrary::<u16>()?)),
        1 => message.extend_from_slice(input.bytes(input.len())?),
        2 => *message = input.bytes(input.len())?.to_vec(),
        _ => {
            while !message.is_empty() && input.len() >= 5 {
                let at = input.choose_index(message.len())?;
                message[at] = input.arbitrary()?;
            }
        }
    }
    let changed = (&outgoing.broadcast, &private) != (&before.0, &before.1);
    outgoing.private.insert(node(1), private.into());
    Ok(changed)
}
