//! The induction of `decisions/0008-the-newest-certificate-vouches.md`, checked in every order of what hosts and
//! corrupted enclaves can try: what is certified rests on certificates, down to a key generation.
//!
//! In this model, people approve whatever is opened. A manifest names its origin by a digest, so the origin cannot
//! change; whether it was ever committed is for enclaves to check. What they fold is left out: see
//! `tests/it/orders.rs`.

use stateright::{Checker, HasDiscoveries, Model, Property};

/// The generation that a ceremony works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    /// None: it is a key generation.
    None,
    /// Another ceremony's, whatever came of it.
    Ceremony(usize),
    /// One that never was.
    MadeUp,
}

/// A ceremony: its origin, and the enclaves that have signed its result.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ceremony {
    origin: Origin,
    signed: Vec<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Open(Origin),
    Sign { enclave: usize, ceremony: usize },
}

struct Induction {
    enclaves: usize,
    /// This many enclaves, the first ones, sign anything.
    corrupted: usize,
    ceremonies: usize,
    /// The others sign what follows a bare record.
    trusts_records: bool,
}

type State = Vec<Ceremony>;

const RESTS: &str = "what is certified rests on certificates";
const GOES_ON: &str = "three generations are certified";

fn is_certified(ceremony: &Ceremony) -> bool {
    ceremony.signed.iter().all(|signed| *signed)
}

/// Whether a ceremony's origin is certified, as anyone who is shown its log finds out.
fn is_known_whole(state: &State, origin: Origin) -> bool {
    match origin {
        Origin::None => true,
        Origin::Ceremony(before) => state.get(before).is_some_and(is_certified),
        Origin::MadeUp => false,
    }
}

/// How many certified generations a certified ceremony ends.
fn depth(state: &State, ceremony: &Ceremony) -> usize {
    match ceremony.origin {
        _ if !is_certified(ceremony) => 0,
        Origin::Ceremony(before) => 1 + state.get(before).map_or(0, |before| depth(state, before)),
        Origin::None | Origin::MadeUp => 1,
    }
}

impl Model for Induction {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![Vec::new()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.len() < self.ceremonies {
            actions.extend([Action::Open(Origin::None), Action::Open(Origin::MadeUp)]);
            actions.extend((0..state.len()).map(|before| Action::Open(Origin::Ceremony(before))));
        }
        for ceremony in 0..state.len() {
            actions.extend((0..self.enclaves).map(|enclave| Action::Sign { enclave, ceremony }));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Open(origin) => {
                state.push(Ceremony { origin, signed: vec![false; self.enclaves] });
            }
            Action::Sign { enclave, ceremony } => {
                let origin = state.get(ceremony)?.origin;
                let signs_anything = enclave < self.corrupted || self.trusts_records;
                let signed = state.get_mut(ceremony)?.signed.get_mut(enclave)?;
                if *signed || !signs_anything && !is_known_whole(last, origin) {
                    return None;
                }
                *signed = true;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(RESTS, |_, state: &State| {
                state.iter().filter(|it| is_certified(it)).all(|it| is_known_whole(state, it.origin))
            }),
            Property::sometimes(GOES_ON, |_, state: &State| state.iter().any(|it| depth(state, it) == 3)),
        ]
    }
}

fn three(corrupted: usize) -> Induction {
    Induction { enclaves: 3, corrupted, ceremonies: 3, trusts_records: false }
}

#[test]
fn one_honest_enclave_in_each_certificate_keeps_the_chain() {
    for corrupted in 0..3 {
        let checker = three(corrupted).checker().spawn_dfs().join();
        assert!(checker.is_done());
        checker.assert_no_discovery(RESTS);
        checker.assert_any_discovery(GOES_ON);
    }
}

fn assert_broken(model: Induction) {
    let search = model.checker().finish_when(HasDiscoveries::AnyOf([RESTS].into()));
    search.spawn_dfs().join().assert_any_discovery(RESTS);
}

#[test]
fn certificate_of_corrupted_enclaves_alone_vouches_for_what_never_was() {
    assert_broken(three(3));
}

#[test]
fn enclaves_that_work_on_a_mere_record_certify_what_never_was() {
    assert_broken(Induction { trusts_records: true, ..three(0) });
}
