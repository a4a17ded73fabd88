//! The ready barrier: who is present, whether all mean the same session, and what its id is.
//!
//! Everything here happens before any of a protocol's cryptography. A difference found here means a wrong configuration
//! or a log that is behind: it names the peer and must never become a ban.

use std::collections::BTreeSet;

use ceremonies::ids::{Hash, NodeIndex};

use super::SessionFailure;
use super::echo::Seen;
use super::envelope::BootKeys;
use super::plan::SessionPlan;
use super::proto::{Hello, Reveal, content};

/// Slots before the protocol's own rounds: hello and reveal.
pub(super) const SLOTS: u32 = 2;
/// Their names, for people.
pub(super) const PHASES: [&str; 2] = ["ready", "agree on the session"];

/// Whether a session can be run as planned at all.
pub(super) fn check(plan: &SessionPlan, keys: &BootKeys) -> Result<(), SessionFailure> {
    if plan.parties.get(&plan.own) != Some(&keys.public()) {
        return Err(SessionFailure::new(format!(
            "node {}'s attested keys are not this enclave's: attest this enclave, then open a new ceremony",
            plan.own
        )));
    }
    if plan.parties.len() < 2 {
        let reason = "a session needs at least two parties: check the manifest's roster";
        return Err(SessionFailure::new(reason.to_owned()));
    }
    let mut known = BTreeSet::new();
    for (party, keys) in &plan.parties {
        if !known.insert(keys.identity) || !known.insert(keys.sealing) {
            let reason = format!("node {party} attested another node's keys: check both nodes' enclaves");
            return Err(SessionFailure::new(reason));
        }
    }
    Ok(())
}

fn commitment(context: &Hash, party: NodeIndex, nonce: &[u8]) -> Hash {
    Hash::of_parts("custody/session-nonce/v1", &[context.as_bytes(), &[party.get()], nonce])
}

/// What this party says first: what it believes the session to be, and a commitment to its nonce.
pub(super) fn hello(plan: &SessionPlan, nonce: &[u8; 32]) -> content::Body {
    content::Body::Hello(Hello {
        context: plan.context.as_bytes().to_vec(),
        commitment: commitment(&plan.context, plan.own, nonce).as_bytes().to_vec(),
    })
}

/// What this party says once every party has committed.
pub(super) fn reveal(nonce: &[u8; 32]) -> content::Body {
    content::Body::Reveal(Reveal { nonce: nonce.to_vec() })
}

/// Whether a hello means a session other than this party's.
pub(super) fn differs(plan: &SessionPlan, body: &content::Body) -> bool {
    match body {
        content::Body::Hello(hello) => hello.context != plan.context.as_bytes(),
        content::Body::Reveal(_) | content::Body::Round(_) => true,
    }
}

/// What all parties agreed on.
pub(super) struct Agreed {
    /// The session's id: context, label and every party's nonce.
    pub(super) session: Hash,
    /// What each party revealed, for the first round's echo: otherwise a party that reveals two nonces would make
    /// honest parties derive different ids and accuse each other.
    pub(super) nonces: Seen,
}

/// The session's id from every party's nonce, each as committed. The error names a party whose nonce is not.
pub(super) fn agree<'a>(
    plan: &SessionPlan,
    own_nonce: &[u8; 32],
    said: impl Fn(u32, NodeIndex) -> Option<&'a content::Body>,
) -> Result<Agreed, NodeIndex> {
    let mut parts = vec![plan.context.as_bytes().to_vec(), plan.label.as_bytes().to_vec()];
    let mut nonces = Seen::new();
    for party in plan.parties.keys() {
        let nonce = if *party == plan.own {
            own_nonce.to_vec()
        } else {
            opened(&plan.context, *party, said(0, *party), said(1, *party)).ok_or(*party)?
        };
        nonces.insert(*party, Hash::of_bytes(&nonce));
        parts.push([&[party.get()][..], &nonce].concat());
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok(Agreed { session: Hash::of_parts("custody/session-id/v1", &parts), nonces })
}

fn opened(
    context: &Hash,
    party: NodeIndex,
    first: Option<&content::Body>,
    second: Option<&content::Body>,
) -> Option<Vec<u8>> {
    let (Some(content::Body::Hello(hello)), Some(content::Body::Reveal(reveal))) = (first, second) else {
        return None;
    };
    let expected = commitment(context, party, &reveal.nonce);
    (reveal.nonce.len() == 32 && hello.commitment == expected.as_bytes()).then(|| reveal.nonce.clone())
}
