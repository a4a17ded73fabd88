//! What is heard and read of the nodes, and what is read next.

use std::collections::BTreeMap;

use ceremonies::ids::{CeremonyId, NodeIndex, StepId};
use ceremonies::log::Entry;
use ceremonies::text::chain;

use super::super::model::{Model, Rounds, Screen, Standing};
use super::Effect;
use crate::client::{Library, News, Reading, settle};
use crate::fork::fork;
use crate::memory::SetBack;

/// How many ceremonies are read at once.
const MAX_READING: usize = 8;
/// How many may wait for that.
const MAX_TO_READ: usize = 256;
/// How many of both may be ceremonies that are not known here.
const MAX_STRANGERS: usize = 4;
const MAX_STRANGERS_TO_READ: usize = 64;

/// In how many sessions one node is shown at most.
const MAX_SESSIONS: usize = 64;

pub(super) fn told(model: &mut Model, news: News) -> (bool, Vec<Effect>) {
    match news {
        News::Log(id) => (false, catch_up(model, id)),
        News::Health(_) => {
            heard(model);
            let now = model.moment();
            model.hearing.hear(&model.cluster.context, news, now);
            (model.screen == Screen::Cluster, Vec::new())
        }
        News::Backdated(_) | News::Surplus(_) => {
            let now = model.moment();
            model.hearing.hear(&model.cluster.context, news, now);
            (model.screen == Screen::Cluster, Vec::new())
        }
        News::Progress(progress) => {
            if let (Ok(id), Ok(node)) =
                (progress.ceremony.parse::<CeremonyId>(), NodeIndex::try_from(progress.node))
            {
                // A node that claims more sessions than that is making them up.
                if model.progress.keys().filter(|(_, by)| *by == node).count() >= MAX_SESSIONS {
                    model.progress.retain(|(_, by), _| *by != node);
                }
                let step = model.book.get(&id).and_then(|chapter| chapter.ceremony.current_step());
                let rounds =
                    Rounds { progress: *progress, heard: model.now, step: step.map(|step| step.id.clone()) };
                model.progress.insert((id, node), rounds);
            }
            (model.screen == Screen::Ceremonies, Vec::new())
        }
    }
}

/// Notes that nodes were heard: what is shown is what they have now, unless something of it may have been missed.
fn heard(model: &mut Model) {
    model.is_behind |= model.as_of().is_some();
    if !model.is_behind {
        model.known_to = Some(model.moment());
    }
}

/// Notes that the bus is there or lost. What was said in between is read when it is back.
pub(super) fn bus(model: &mut Model, is_connected: bool) -> Vec<Effect> {
    model.is_behind |= model.loaded && !is_connected;
    model.connected = is_connected;
    let now = model.moment();
    model.hearing.has_bus(is_connected, now);
    load(model)
}

/// Reads everything, unless that is under way. Also without a bus: what comes back is the reason that there is none.
pub(super) fn load(model: &mut Model) -> Vec<Effect> {
    if model.loading {
        return Vec::new();
    }
    model.loading = true;
    vec![Effect::Load]
}

/// Reads a ceremony or, if a reading of it is under way, reads it once more after that.
pub(super) fn catch_up(model: &mut Model, id: CeremonyId) -> Vec<Effect> {
    // The ceremony in front waits for nobody, and one node's talk of others that nobody knows not for long.
    let is_open = model.open.as_ref() == Some(&id);
    let is_known = |id: &CeremonyId| model.book.get(id).is_some();
    let strangers = model.reading.iter().filter(|id| !is_known(id)).count();
    let is_full = model.reading.len() >= MAX_READING || (!is_known(&id) && strangers >= MAX_STRANGERS);
    if model.reading.contains(&id) || (is_full && !is_open) {
        let waiting = model.to_read.iter().filter(|id| !is_known(id)).count();
        if model.to_read.len() < MAX_TO_READ && (is_known(&id) || waiting < MAX_STRANGERS_TO_READ) {
            model.to_read.insert(id);
        }
        return Vec::new();
    }
    model.reading.insert(id.clone());
    let known = log(model, &id);
    vec![Effect::CatchUp(id, known)]
}

pub(super) fn read_next(model: &mut Model) -> Vec<Effect> {
    let mut waiting = model.to_read.iter().filter(|id| !model.reading.contains(*id));
    let next = waiting.clone().find(|id| model.book.get(id).is_some()).or_else(|| waiting.next()).cloned();
    match next {
        Some(id) if model.reading.len() < MAX_READING => {
            model.to_read.remove(&id);
            catch_up(model, id)
        }
        Some(_) | None => Vec::new(),
    }
}

/// A ceremony's log as it is known.
pub(super) fn log(model: &Model, id: &CeremonyId) -> Vec<Entry> {
    model.book.get(id).map(|chapter| chapter.entries.clone()).unwrap_or_default()
}

/// The ceremony in front is read again now and then: a hint may have been lost, and nodes may since have recorded what
/// they hold.
pub(super) fn follow_open(model: &mut Model) -> Vec<Effect> {
    let Some(ceremony) = model.ceremony() else { return Vec::new() };
    let closed = matches!(ceremony.phase_at(model.now), ceremonies::ceremony::Phase::Closed);
    let settled = closed && model.standing(ceremony).is_some_and(|standing| standing.recorded.recorded);
    let id = ceremony.manifest().ceremony.clone();
    if settled || !model.connected || model.reading.contains(&id) { Vec::new() } else { catch_up(model, id) }
}

/// Takes what was loaded. What has changed here in the meantime stays.
pub(super) fn take_library(model: &mut Model, library: Library) {
    model.loading = false;
    model.loaded = true;
    model.is_behind = !model.connected;
    model.known_to = Some(model.moment());
    model.load_trouble.clear();
    let mut book = library.book;
    for (id, chapter) in model.book.iter() {
        let loaded = book.get(id).map(|chapter| chapter.entries.as_slice()).unwrap_or_default();
        if chapter.entries.len() > loaded.len() && chapter.entries.starts_with(loaded) {
            // It was folded before, on this book or an earlier one.
            let _ = book.read(&chapter.entries);
        }
    }
    model.book = book;
    let known = |id: &CeremonyId| model.book.get(id).map_or(0, |chapter| chapter.ceremony.head().seq);
    let aside = library.aside.iter().filter(|log| known(&log.ceremony) < log.from());
    let aside: BTreeMap<_, _> = aside.map(|log| (log.ceremony.clone(), log.to_string())).collect();
    let missing = library.missing.into_iter().filter(|(id, _)| known(id) == 0);
    model.unread = missing.map(|(id, troubles)| (id, troubles.to_string())).collect();
    model.aside = aside;
    model.older = library.catalogue.left;
    model.set_back =
        library.set_back.into_iter().map(|set_back| (set_back.ceremony.clone(), set_back)).collect();
}

/// The step that the ceremony in front is at.
fn open_step(model: &Model) -> Option<StepId> {
    Some(model.ceremony()?.current_step()?.id.clone())
}

pub(super) fn read(
    model: &mut Model,
    mut reading: Reading,
    set_back: Option<SetBack>,
) -> (bool, Vec<Effect>) {
    let id = reading.ceremony().clone();
    model.reading.remove(&id);
    if reading.is_proven() {
        heard(model);
    }
    if model.open.as_ref() == Some(&id) {
        model.not_read.clear();
    }
    let step = open_step(model);
    match settle(&mut model.book, &mut reading) {
        Ok(()) => {
            if open_step(model) != step {
                model.scroll = 0;
            }
            let head = reading.branches().tree().tip().hash;
            let recorded = reading.recorded();
            // What a quorum has recorded stays recorded, whoever is silent now.
            let known =
                model.standings.get(&id).filter(|known| known.head == head && known.recorded.recorded);
            let recorded =
                known.filter(|_| !recorded.recorded).map_or(recorded, |known| known.recorded.clone());
            let before = model.standings.get(&id).and_then(|standing| standing.fork.as_ref());
            let fork = fork(&reading).map(|fork| fork.seen_after(before));
            let standing = Standing { head, recorded, fork };
            model.standings.insert(id.clone(), standing);
            model.unread.remove(&id);
            model.aside.remove(&id);
        }
        Err(error) => model.message = format!("{id} was refused: {}", chain(&error)),
    }
    match set_back {
        Some(set_back) => drop(model.set_back.insert(id, set_back)),
        None => drop(model.set_back.remove(&id)),
    }
    (true, read_next(model))
}
