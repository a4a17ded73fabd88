//! The terminal: one channel of events, one state, a pure update, drawing from the state alone.
//!
//! The shell in this file owns the bus and the screen. However it ends, it must give the screen back.

mod model;
mod node;
mod recording;
mod turn;
mod update;
mod view;
mod wallet;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use ceremonies::ceremony::Ceremony;
use ceremonies::ids::NodeIndex;
use ceremonies::log::Entry;
use ceremonies::manifest::Manifest;
use ceremonies::script::Act;
use ceremonies::statement::Answer;
use ceremonies::text::chain;
use crossterm::event::{Event as Input, EventStream, KeyEventKind};
use futures_util::StreamExt;
use ratatui::Terminal;
use ratatui::backend::{Backend, CrosstermBackend};
use signal_hook::consts::{SIGCONT, SIGTSTP};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use zeroize::Zeroizing;

use self::model::ReviewAct;
pub use self::model::{Model, OpenForm, Page, Popup, Review, Screen, Shown, Standing};
pub use self::recording::replay;
pub use self::update::{Effect, Event, SIGN_WORD, update};
pub use self::view::view;
use crate::cast::{self, Recorder};
use crate::client::{Client, ClientError, Scope, SubmitError};
use crate::config::{Cluster, Me};
use crate::health::Moment;
use crate::signer::{self, SignError};
use crate::terminal;
use crate::waiting::Waiting;
use crate::{custodian, room};

/// Events that may wait: what arrives in a moment from keys, ticks and a busy bus.
const MAX_WAITING: usize = 1024;
/// The clock's step.
const TICK: Duration = Duration::from_secs(1);

/// Runs the terminal until the person quits; where a file is named, all that it shows is recorded there.
///
/// # Errors
/// When there is no terminal, or the bus cannot be set up.
pub async fn run(cluster: Cluster, record: Option<&Path>) -> Result<()> {
    let client = Client::connect(&cluster).await?;
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut model = Model::new(cluster.clone(), room::now(), colour);
    let screen = terminal::Screen::take()?;
    let tape = record.map(|file| recording::begin(file, &cluster)).transpose()?;
    let recorder = Recorder::new(std::io::stdout(), tape.clone());
    let mut terminal = Terminal::new(CrosstermBackend::new(recorder))?;
    let (events, mut queue) = mpsc::channel(MAX_WAITING);
    let shell = Arc::new(Shell { client, cluster, events: events.clone() });
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(listen(Arc::clone(&shell)));
    tasks.spawn(watch(Arc::clone(&shell)));
    let mut input = EventStream::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut stop = signal(SignalKind::from_raw(SIGTSTP))?;
    let mut go_on = signal(SignalKind::from_raw(SIGCONT))?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changed = true;
    loop {
        if changed {
            changed = draw(&mut terminal, &mut model)?;
            if let Some(trouble) = tape.as_ref().and_then(|tape| cast::locked(tape).trouble()) {
                model.message = trouble;
                changed = true;
            }
            continue;
        }
        let event = tokio::select! {
            Some(event) = queue.recv() => event,
            _ = tick.tick() => Event::Tick(Moment::now()),
            input = input.next() => match input {
                Some(Ok(Input::Key(key))) if key.kind != KeyEventKind::Release => Event::Key(key),
                Some(Ok(Input::Paste(text))) => Event::Paste(text),
                Some(Ok(Input::Resize(_, _))) => Event::Resized,
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            _ = terminate.recv() => bail!("ended by SIGTERM"),
            _ = hangup.recv() => bail!("ended by SIGHUP"),
            _ = interrupt.recv() => bail!("ended by SIGINT"),
            _ = quit.recv() => bail!("ended by SIGQUIT"),
            _ = stop.recv() => {
                screen.suspend()?;
                continue;
            }
            // Also after a stop that nobody could be told of.
            _ = go_on.recv() => {
                screen.retake()?;
                forget(&mut terminal)?;
                Event::Resized
            }
        };
        if let (Event::Resized, Some(tape)) = (&event, &tape) {
            cast::locked(tape).resized(crossterm::terminal::size()?);
        }
        let (visible, effects) = take(&mut model, event, Moment::now());
        changed = visible;
        for effect in effects {
            match effect {
                Effect::Quit => {
                    drop(screen);
                    return Ok(());
                }
                Effect::Redraw => forget(&mut terminal)?,
                effect @ (Effect::Load | Effect::CatchUp(..) | Effect::Unwrap(..) | Effect::Sign(..)) => {
                    tasks.spawn(perform(Arc::clone(&shell), effect));
                }
            }
        }
    }
}

/// Takes an event. One that comes long after the last tick has waited while this console stood still, and must not be taken
/// for one of before.
fn take(model: &mut Model, event: Event, now: Moment) -> (bool, Vec<Effect>) {
    let is_late = now.steady.saturating_duration_since(model.steady) > 2 * TICK;
    if !is_late || matches!(event, Event::Tick(_)) {
        return update(model, event);
    }
    let (_, mut effects) = update(model, Event::Tick(now));
    effects.extend(update(model, event).1);
    (true, effects)
}

/// Draws a frame and notes what it has shown; whether there is more to draw.
fn draw<B: Backend>(terminal: &mut Terminal<B>, model: &mut Model) -> Result<bool, B::Error> {
    let mut shown = None;
    terminal.draw(|frame| shown = Some(view(model, frame)))?;
    Ok(shown.is_some_and(|shown| update(model, Event::Shown(shown)).0))
}

/// Forgets what is on the screen, so that the next frame draws all of it. The terminal is not queried: one that does
/// not answer would end the program.
fn forget<B: Backend>(terminal: &mut Terminal<B>) -> Result<(), B::Error> {
    terminal.backend_mut().clear()?;
    terminal.swap_buffers();
    Ok(())
}

struct Shell {
    client: Client,
    cluster: Cluster,
    events: mpsc::Sender<Event>,
}

impl Shell {
    async fn send(&self, event: Event) {
        // The terminal may be gone; then nobody waits for the answer.
        let _ = self.events.send(event).await;
    }
}

/// Passes the bus's news on, and subscribes again where that ends.
async fn listen(shell: Arc<Shell>) {
    loop {
        if let Ok(news) = shell.client.news().await {
            let mut news = Box::pin(news);
            while let Some(heard) = news.next().await {
                shell.send(Event::News(heard)).await;
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn watch(shell: Arc<Shell>) {
    let mut connected = shell.client.connected();
    loop {
        let now = *connected.borrow_and_update();
        shell.send(Event::Connected(now)).await;
        if connected.changed().await.is_err() {
            return;
        }
    }
}

async fn perform(shell: Arc<Shell>, effect: Effect) {
    let done = match effect {
        Effect::Quit | Effect::Redraw => return,
        Effect::Load => match shell.client.library(&Scope::Current).await {
            Ok(library) => Event::Loaded(Box::new(library)),
            Err(ClientError::NotConnected) => Event::NotLoaded(shell.client.why_not_connected().await),
            Err(error) => Event::NotLoaded(chain(&error)),
        },
        Effect::CatchUp(id, known) => match shell.client.read(&id, &known).await {
            Ok(reading) => {
                shell.client.remember(&reading);
                let set_back = shell.client.set_back_of(&reading);
                Event::Read(Box::new(reading), set_back)
            }
            Err(error) => Event::NotRead(id, chain(&error)),
        },
        Effect::Unwrap(me, ceremony, act, node) => unwrap(&shell, me, ceremony, act, node).await,
        Effect::Sign(review, passphrase, known) => sign(&shell, review, passphrase, known).await,
    };
    shell.send(done).await;
}

async fn sign(
    shell: &Shell,
    review: Box<Review>,
    passphrase: Option<Zeroizing<String>>,
    known: Vec<Entry>,
) -> Event {
    let (key, statement) = (review.me.key.clone(), review.statement.clone());
    // The SSH agent may wait for a touch.
    let signed =
        tokio::task::spawn_blocking(move || signer::sign(&key, &statement, passphrase.as_ref())).await;
    let armoured = match signed {
        Ok(Ok(armoured)) => armoured,
        Ok(Err(SignError::Locked(_))) => return Event::Locked(review),
        Ok(Err(error)) => return Event::Failed(chain(&error)),
        Err(_) => return Event::Failed("signing was interrupted".to_owned()),
    };
    let (ceremony, event) = match &review.act {
        ReviewAct::Open(manifest) => match Manifest::parse(manifest) {
            Ok(manifest) => (manifest.ceremony.clone(), room::opened(&manifest, armoured)),
            Err(error) => return Event::Failed(chain(&error)),
        },
        ReviewAct::Sign(id, signature) => (id.clone(), signature.0.event(armoured)),
        ReviewAct::Release(id, signature, object) => {
            if let Answer::Release(release) = &signature.0.answer
                && let Err(error) = shell.client.hand_in(release.node, id, object.clone()).await
            {
                return Event::Failed(chain(&error));
            }
            (id.clone(), signature.0.event(armoured))
        }
    };
    match shell.client.submit(&known, &ceremony, event).await {
        Ok(receipt) => {
            let said = format!("{} signed {ceremony}: {receipt}.", review.me.person);
            Event::Done(ceremony, said)
        }
        Err(SubmitError::Unknown(outcome)) => Event::Unclear(outcome.to_string()),
        Err(error) => Event::Failed(chain(&error)),
    }
}

/// A plugin may wait for a touch.
async fn unwrap(shell: &Shell, me: Me, ceremony: Box<Ceremony>, act: Act, node: NodeIndex) -> Event {
    let file = room::backup_file(&shell.cluster, &ceremony, act, node);
    let Some((file, identity)) = file.zip(me.identity.clone()) else {
        return Event::Failed(format!(
            "The cluster file names no backup folder, or no age identity for {}: use custody backup on the custodian's \
             own machine.",
            me.person
        ));
    };
    let released = tokio::task::spawn_blocking(move || {
        custodian::release(&ceremony, act, node, &file, &identity, Waiting::quiet())
    })
    .await;
    match released {
        Ok(Ok(released)) => Event::Unwrapped(me, Box::new(released)),
        Ok(Err(error)) => Event::Failed(chain(&error)),
        Err(_) => Event::Failed("reading the backup was interrupted".to_owned()),
    }
}
