//! Five agents, of which one host is hostile, under a broker that may be, in an order of events that chance decides.
//!
//! The cores are the real ones. Store, stream, messages, clocks and people are simulated: what goes wrong is in
//! [`hostile`], what must hold whatever goes wrong in [`properties`]. Each schedule has a time in which anything
//! happens; then everything is repaired except the hostile host, and soon afterwards all honest nodes must agree.
//!
//! `CUSTODY_SEED` is the first schedule's seed, `CUSTODY_SCHEDULES` how many there are. A schedule that fails is run once
//! more, and what happened in it is printed.

mod broker;
pub(crate) mod charter;
mod hostile;
mod people;
mod properties;
mod recalls;
mod submissions;
mod withdrawals;
mod world;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use self::properties::{Property, Tally};
use self::world::{Slip, World};
use crate::host::seeds::{self, number, told_by, with_each};

const SCHEDULES: u64 = 200;
/// How many schedules may not notice that a defence is missing.
const TRIES: u64 = 400;
/// How long anything goes wrong, in milliseconds.
const ROUGH_MS: u64 = 15_000;
/// How long the hostile host goes on after everything else is repaired.
const HOSTILE_MS: u64 = 2000;
/// How soon after that all must agree.
const CALM_MS: u64 = 15_000;
/// How long what nodes tell each other may be lost: longer than what changed is news.
const SILENT_MS: u64 = 180_000;
/// How soon a stream that has lost something has it again: nodes look twice a minute whether it is still the same.
const REFILL_MS: u64 = 45_000;

/// One schedule from its seed to its end.
fn play(world: &mut World) {
    world.run_until(ROUGH_MS);
    world.heal();
    world.run_until(ROUGH_MS + HOSTILE_MS);
    world.is_hostile_active = false;
    // What a fast clock has dated far ahead is held back until the others' clocks are there.
    come_to_rest(world, world.held_back_for() + CALM_MS);
    world.check_end();
}

/// Gives all this time to agree.
fn come_to_rest(world: &mut World, within: u64) {
    let end = world.now + within;
    while world.now < end {
        world.run_until(world.now + 500);
        if world.is_at_rest() {
            break;
        }
    }
}

/// What breaks in a schedule, if anything does; otherwise what occurred in it.
fn outcome(seed: u64, slip: Option<Slip>, only: Option<Property>) -> Result<Tally, String> {
    let mut world = World::new(seed, slip, false);
    world.only = only;
    let ended = catch_unwind(AssertUnwindSafe(|| play(&mut world)));
    ended.map(|()| world.tally()).map_err(|panic| told_by(panic.as_ref()))
}

/// Runs a schedule again and prints what happened in it.
fn show(seed: u64) {
    let ended = seeds::aloud(|| {
        let mut world = World::new(seed, None, true);
        catch_unwind(AssertUnwindSafe(|| play(&mut world)))
    });
    assert!(ended.is_err(), "schedule {seed} ends otherwise when it is run again");
}

#[test]
fn record_holds_whatever_one_host_and_the_broker_do() {
    let first = number("CUSTODY_SEED", 1);
    let count = number("CUSTODY_SCHEDULES", SCHEDULES);
    println!("CUSTODY_SEED={first} CUSTODY_SCHEDULES={count}");
    let began = Instant::now();
    let (found, tally) = (Mutex::new(BTreeMap::new()), Mutex::new(Tally::default()));
    with_each(first..first + count, |seed| {
        match outcome(seed, None, None) {
            Ok(new) => *tally.lock().unwrap() += new,
            Err(finding) => {
                println!("seed {seed}: {finding}");
                found.lock().unwrap().insert(seed, finding);
            }
        }
        ControlFlow::Continue(())
    });
    let found: Vec<u64> = found.into_inner().unwrap().into_keys().collect();
    println!("{count} schedules in {:.0} s, {} fail: {found:?}", began.elapsed().as_secs_f64(), found.len());
    println!("{:?}", tally.into_inner().unwrap());
    if let Some(seed) = found.first() {
        show(*seed);
        panic!("schedule {seed} fails; run it alone with CUSTODY_SEED={seed} CUSTODY_SCHEDULES=1");
    }
}

/// One of the schedules from this seed on, which is near one that does, shows what goes wrong when a defence is taken out.
fn assert_caught(slip: Slip, property: Property, first: u64) {
    let caught = Mutex::new(None);
    with_each(first..first + TRIES, |seed| match outcome(seed, Some(slip), Some(property)) {
        Ok(_) => ControlFlow::Continue(()),
        Err(finding) => {
            println!("{slip:?} is caught with seed {seed}");
            *caught.lock().unwrap() = Some(finding);
            ControlFlow::Break(())
        }
    });
    let found = caught.into_inner().unwrap().unwrap_or_else(|| panic!("{slip:?} goes unnoticed"));
    assert!(found.starts_with(&format!("{property:?}")), "{slip:?} is found as {found}");
}

#[test]
fn receipts_for_votes_alone_are_caught() {
    assert_caught(Slip::CountsVotes, Property::Receipts, 230);
}

#[test]
#[ignore = "takes thousands of schedules; the model of the ballot shows it at once"]
fn store_that_forgets_ballots_is_caught() {
    assert_caught(Slip::ForgetsBallots, Property::Receipts, 1);
}

#[test]
fn nodes_that_do_not_hear_each_other_are_caught() {
    assert_caught(Slip::DeafToPeers, Property::Forks, 1);
    assert_caught(Slip::DeafToPeers, Property::Recorded, 1);
}

#[test]
fn loss_of_what_was_on_the_branch_that_was_left_is_caught() {
    assert_caught(Slip::ForgetsWhatWasLeft, Property::Loss, 90);
}

#[test]
fn start_that_orders_logs_by_the_clock_is_caught() {
    assert_caught(Slip::StartsByTheClock, Property::Start, 110);
}

#[test]
fn writing_to_a_foreign_stream_is_caught() {
    assert_caught(Slip::TakesAnyStream, Property::Stream, 1);
}

#[test]
fn votes_that_were_lost_for_minutes_are_repeated_until_they_are_heard() {
    for seed in 1..=2 {
        let mut world = World::new(seed, None, false);
        (world.is_hostile_active, world.is_broker_hostile, world.is_deaf) = (false, false, true);
        world.run_until(ROUGH_MS);
        world.heal();
        world.run_until(ROUGH_MS + SILENT_MS);
        assert!(!world.is_at_rest(), "seed {seed}: nothing is missed");
        world.is_deaf = false;
        come_to_rest(&mut world, CALM_MS);
        world.check_end();
    }
}

/// Whether the stream has everything again some time after it has lost something that all have read.
fn is_refilled(seed: u64, slip: Option<Slip>, lose: fn(&mut World)) -> bool {
    let mut world = World::new(seed, slip, false);
    world.only = Some(Property::Stream);
    world.is_broker_hostile = false;
    play(&mut world);
    lose(&mut world);
    assert!(!world.is_at_rest(), "nothing is lost");
    come_to_rest(&mut world, REFILL_MS);
    world.is_at_rest()
}

#[test]
fn message_that_the_broker_lost_after_all_had_read_it_is_given_back() {
    for seed in 1..=4 {
        assert!(is_refilled(seed, None, World::lose_what_all_have_read), "seed {seed}");
    }
    let never = Some(Slip::NeverRechecks);
    assert!(!is_refilled(1, never, World::lose_what_all_have_read), "something else gives it back");
}

#[test]
fn stream_that_was_lost_as_a_whole_is_given_back() {
    for seed in 1..=4 {
        assert!(is_refilled(seed, None, World::lose_stream), "seed {seed}");
    }
    // Two defences, and either is enough: it is seen to be another stream, and logs are read once more.
    assert!(is_refilled(1, Some(Slip::NeverRechecks), World::lose_stream));
    assert!(!is_refilled(1, Some(Slip::NoticesNoLoss), World::lose_stream), "something else gives it back");
}
