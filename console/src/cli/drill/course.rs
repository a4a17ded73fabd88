//! Holding a drill: breaking, watching, mending. Whatever ends it, what was broken is mended, or it is said what is not.

use std::future::Future;
use std::io::{self, BufRead as _, Read as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use ceremonies::ceremony::Phase;
use ceremonies::charter::{Charter, ClusterKind};
use ceremonies::ids::PersonName;
use ceremonies::text::printable;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::super::hand::unlocking;
use super::super::output::note;
use super::super::{Desk, Output, written};
use super::RunArguments;
use super::reports;
use crate::client::Scope;
use crate::config::Cluster;
use crate::control::{ControlError, order};
use crate::drill::{
    Course, Drill, NAMESPACE, Patience, Programs, Report, Stage, Start, Turn, seconds, signer,
};
use crate::health::Health;
use crate::room::now;
use crate::signer::sign_in;
use crate::waiting::Waiting;
use crate::watch::{LISTEN, Watch};

/// How long a lab leaves a fault that is shown, so that all that follows from it is shown too.
const HOLD: Duration = Duration::from_secs(3);
/// Longest line that is read of a person who only presses Enter.
const MAX_LINE: u64 = 64 * 1024;

/// Who breaks and mends.
enum Means {
    /// The supervisor of the lab that listens at this socket.
    Lab(PathBuf),
    /// Those present.
    People,
}

impl Means {
    fn of(cluster: &Cluster, by_hand: bool) -> Result<Self> {
        match &cluster.lab {
            _ if by_hand => Ok(Self::People),
            Some(control) => Ok(Self::Lab(control.clone())),
            None if cluster.charter().kind() == ClusterKind::Lab => bail!(
                "the cluster file does not say where the lab takes orders: write `[lab]` and `control = \"control.sock\"` \
                 at its end, or give --by-hand"
            ),
            None => Ok(Self::People),
        }
    }

    fn patience(&self) -> Patience {
        match self {
            Self::Lab(_) => Patience::LAB,
            Self::People => Patience::PEOPLE,
        }
    }
}

/// With which key the report is signed, and as whom.
struct Pen {
    key: PathBuf,
    person: Option<PersonName>,
}

impl Pen {
    /// What the arguments ask for, if they do. Refused before anything breaks.
    fn of(cluster: &Cluster, charter: &Charter, arguments: &RunArguments) -> Result<Option<Self>> {
        let person = arguments.person.clone();
        if let Some(person) = &person {
            ensure!(
                charter.person(person).is_some(),
                "{person} is not in the charter, and cannot sign the report"
            );
        }
        let key = match (&arguments.key, &person) {
            (None, None) => return Ok(None),
            (Some(key), _) => key.clone(),
            (None, Some(person)) => {
                let me = cluster.me.iter().find(|me| me.person == *person);
                me.with_context(|| format!("no key is known for {person}: give --key"))?.key.clone()
            }
        };
        std::fs::metadata(&key).with_context(|| format!("looking for the key {}", key.display()))?;
        Ok(Some(Self { key, person }))
    }

    fn sign(&self, charter: &Charter, report: &str) -> Result<(PersonName, Vec<u8>)> {
        let signature = unlocking(&self.key, |passphrase| {
            sign_in(NAMESPACE, &self.key, report, passphrase, Waiting::telling(&note))
        })?;
        let by = signer(charter.people(), report.as_bytes(), &signature)?;
        if let Some(person) = self.person.as_ref().filter(|person| *person != by) {
            bail!("the key is {by}'s, not {person}'s");
        }
        Ok((by.clone(), signature))
    }
}

/// The signals that end a drill.
struct Stop([Signal; 3]);

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Where progress is told: JSON is not mixed with it.
fn tell(output: Output, text: &str) -> Result<()> {
    if output.json {
        note(text);
        return Ok(());
    }
    written((printable(text) + "\n").as_bytes())
}

/// A line of Enter. Not tokio's reading, which would keep the program from ending.
async fn enter() -> Result<()> {
    let (sender, pressed) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = Vec::new();
        let read = io::stdin().lock().take(MAX_LINE).read_until(b'\n', &mut line);
        // Nobody waits for it if the drill is over.
        let _ = sender.send(read);
    });
    match pressed.await {
        Ok(Ok(1..)) => Ok(()),
        Ok(Ok(0)) | Err(_) => bail!("nobody is there to press Enter"),
        Ok(Err(error)) => Err(error).context("waiting for Enter"),
    }
}

/// A drill that is being held.
struct Drilling {
    drill: Drill,
    output: Output,
    means: Means,
    watch: Watch,
    stop: Stop,
    /// Whether a signal has ended it.
    is_stopped: bool,
    /// Whether something is broken that nobody has mended.
    is_broken: bool,
    /// None until something is broken.
    course: Option<Course>,
}

/// What came of a drill that was held.
struct Held {
    /// Why its targets were not met, if they were not.
    why_not: Option<String>,
    /// Whether a signal ended it.
    is_stopped: bool,
}

pub(super) async fn run(path: Option<PathBuf>, output: Output, arguments: RunArguments) -> Result<()> {
    let names: Vec<&str> = match &arguments.name {
        Some(name) => vec![name],
        None => Drill::names().collect(),
    };
    let mut missed = Vec::new();
    for name in names {
        let held = hold(path.clone(), output, &arguments, name).await;
        let held = held.with_context(|| format!("drill {name}"))?;
        missed.extend(held.why_not.map(|why| format!("drill {name}: {why}")));
        if held.is_stopped {
            break;
        }
    }
    ensure!(missed.is_empty(), "{}", missed.join("; "));
    Ok(())
}

/// Holds one drill, and writes its report.
async fn hold(path: Option<PathBuf>, output: Output, arguments: &RunArguments, name: &str) -> Result<Held> {
    let drill = Drill::named(name)?;
    let desk = Desk::open(path, Scope::Current).await?;
    desk.must_be_read()?;
    must_disturb_nobody(&desk)?;
    let means = Means::of(&desk.cluster, arguments.by_hand)?;
    let folder = arguments.reports.made(&desk.cluster)?;
    let _alone = reports::alone(&folder)?;
    let charter = desk.book.context().charter().clone();
    let pen = Pen::of(&desk.cluster, &charter, arguments)?;
    let watch = Watch::begin(desk.client, desk.book).await?;
    let stop = Stop::new()?;
    let (is_stopped, is_broken, course) = (false, false, None);
    let mut drilling = Drilling { drill, output, means, watch, stop, is_stopped, is_broken, course };
    let (start, health) = drilling.well().await?;
    let began = now();
    let wallets = start.wallets().cloned().collect();
    let course = drilling.hold(name, start).await?;
    let report = Report {
        drill: name.to_owned(),
        title: drilling.drill.title.clone(),
        cluster: charter.cluster().clone(),
        kind: charter.kind(),
        by_hand: matches!(drilling.means, Means::People),
        began,
        programs: Programs {
            console: env!("CARGO_PKG_VERSION").to_owned(),
            nodes: health.nodes.iter().map(|status| (status.node, status.build.clone())).collect(),
        },
        wallets,
        stages: course.timed().into(),
        shown: course.shown().cloned(),
        failed: course.failure().map(str::to_owned),
        met: course.met(),
    };
    let text = report.to_json()?;
    // Nobody signs what was not shown.
    tell(output, &report.to_string())?;
    let signed = pen.map(|pen| pen.sign(&charter, &text)).transpose();
    let file = reports::file(&folder, name, began);
    let signature = signed.as_ref().ok().and_then(Option::as_ref);
    reports::write(&file, &text, signature.map(|(_, signature)| signature.as_slice()))?;
    let by = signature.map(|(person, _)| person);
    let said = by.map_or_else(|| "not signed".to_owned(), |person| format!("signed by {person}"));
    output.print(
        &json!({ "report": report, "file": file, "signed_by": by }),
        &format!("report {}, {said}", file.display()),
    )?;
    signed.context("the report is written, and not signed")?;
    let why_not = match (&report.failed, report.met) {
        (Some(why), _) => Some(format!("failed: {why}")),
        (None, false) => Some("not every target was met".to_owned()),
        (None, true) => None,
    };
    Ok(Held { why_not, is_stopped: drilling.is_stopped })
}

/// A drill could make a ceremony void that is under way.
fn must_disturb_nobody(desk: &Desk) -> Result<()> {
    for (id, chapter) in desk.book.iter() {
        match chapter.ceremony.phase_at(now()) {
            Phase::Closed | Phase::Abandoned(_) | Phase::Void(_) => {}
            phase @ (Phase::Gathering | Phase::Authorised | Phase::Committed) => {
                bail!("{id} is {phase}, and a drill could disturb it: finish it or withdraw it first")
            }
        }
    }
    Ok(())
}

impl Drilling {
    /// Waits until the cluster is well.
    async fn well(&mut self) -> Result<(Start, Health)> {
        let begun = Instant::now();
        loop {
            let (_, health) = self.watch.look().await?;
            match Start::of(&health) {
                Ok(start) => return Ok((start, health)),
                Err(unwell) if begun.elapsed() > LISTEN => return Err(unwell.into()),
                Err(_) => {}
            }
        }
    }

    /// Breaks, watches and mends.
    async fn hold(&mut self, name: &str, start: Start) -> Result<Course> {
        let Drill { title, what, runbook, .. } = &self.drill;
        let text = format!("drill {name}: {title}\nread aloud: {what}\nopen: runbooks/{runbook}");
        tell(self.output, &text)?;
        let held = self.follow(start).await;
        // Also where progress could not be told any more, or the bus is gone.
        let mended = if self.is_broken { self.leave_mended().await } else { Ok(()) };
        held.and(mended)?;
        self.course.take().context("stopped before anything was broken")
    }

    async fn follow(&mut self, start: Start) -> Result<()> {
        self.break_it(start).await?;
        while self.stage() == Some(Stage::Detect) {
            self.look().await?;
        }
        if self.stage() == Some(Stage::Decide) {
            self.mend_it().await?;
        }
        while self.stage().is_some() {
            self.look().await?;
        }
        Ok(())
    }

    async fn break_it(&mut self, start: Start) -> Result<()> {
        let patience = self.means.patience();
        match &self.means {
            Means::Lab(control) => {
                let (control, fault) = (control.clone(), self.drill.fault.order());
                self.is_broken = true;
                self.course = Some(Course::begin(&self.drill, patience, start, Instant::now()));
                match self.while_watching(order(&control, &fault)).await? {
                    Some(Ok(done)) => self.say(&format!("broken: {done}")),
                    Some(Err(error @ (ControlError::Refused(_) | ControlError::NoLab(..)))) => {
                        self.is_broken = false;
                        Err(anyhow!(error).context("nothing was broken"))
                    }
                    Some(Err(error)) => Err(anyhow!(error).context("nobody knows whether it is broken")),
                    None => Ok(()),
                }
            }
            Means::People => {
                self.ask_for(&self.drill.by_hand)?;
                if let Some(pressed) = self.while_watching(enter()).await? {
                    pressed.context("nothing is timed")?;
                    self.is_broken = true;
                    self.course = Some(Course::begin(&self.drill, patience, start, Instant::now()));
                    self.say("broken by hand")?;
                }
                Ok(())
            }
        }
    }

    /// Has it mended, a lab after what follows from the fault is shown as well.
    async fn mend_it(&mut self) -> Result<()> {
        match &self.means {
            Means::Lab(control) => {
                let (control, mend) = (control.clone(), self.drill.mend.order());
                if self.while_watching(sleep(HOLD)).await?.is_none() {
                    return Ok(());
                }
                self.mending_begins()?;
                if let Some(mended) = self.while_watching(order(&control, &mend)).await? {
                    let done = mended.context("mending")?;
                    self.is_broken = false;
                    self.say(&done)?;
                }
            }
            Means::People => {
                self.ask_for(&self.drill.mend_by_hand)?;
                if let Some(pressed) = self.while_watching(enter()).await? {
                    pressed?;
                    self.is_broken = false;
                    self.mending_begins()?;
                }
            }
        }
        Ok(())
    }

    /// Mends what a drill that ended early has broken, or says what is left.
    async fn leave_mended(&mut self) -> Result<()> {
        match &self.means {
            Means::Lab(control) => {
                let done = order(control, &self.drill.mend.order()).await;
                let done = done.with_context(|| {
                    format!("LEFT BROKEN: mend it with `cargo lab fault {}`", self.drill.mend)
                })?;
                note(&format!("the drill ended early, and is mended: {done}"));
            }
            Means::People => {
                note(&format!("LEFT BROKEN, mend it now: {}", self.drill.mend_by_hand));
            }
        }
        Ok(())
    }

    fn mending_begins(&mut self) -> Result<()> {
        if let Some(course) = &mut self.course {
            course.mending_begins(Instant::now());
        }
        self.say("mending begins")
    }

    /// Watches on until the action is done. None if the drill ends before.
    async fn while_watching<T>(&mut self, action: impl Future<Output = T>) -> Result<Option<T>> {
        tokio::pin!(action);
        loop {
            tokio::select! {
                done = &mut action => return Ok(Some(done)),
                looked = self.look() => looked?,
            }
            if self.is_stopped || self.course.as_ref().is_some_and(|course| course.stage().is_none()) {
                return Ok(None);
            }
        }
    }

    /// Looks once at the cluster, and tells what has turned.
    async fn look(&mut self) -> Result<()> {
        let (moment, health) = tokio::select! {
            () = self.stop.asked() => {
                self.is_stopped = true;
                if let Some(course) = &mut self.course {
                    course.give_up("stopped by a signal".to_owned());
                }
                return Ok(());
            }
            looked = self.watch.look() => looked?,
        };
        let Some(course) = &mut self.course else { return Ok(()) };
        for turn in course.observe(moment.steady, &health) {
            self.say(&match turn {
                Turn::Shown(shown) => format!("shown as {}: {}", shown.check, shown.words),
                Turn::ServiceLost(words) => words,
                Turn::ServiceBack => "every wallet can sign again".to_owned(),
                // Not the moment at which that counts, which is later: the report's figure ends here.
                Turn::Whole(since) => {
                    let since = seconds(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
                    format!("everything is as well as before, and has been since {since}")
                }
                Turn::Failed(why) => format!("FAILED: {why}"),
            })?;
        }
        Ok(())
    }

    fn stage(&self) -> Option<Stage> {
        self.course.as_ref()?.stage()
    }

    fn ask_for(&self, what: &str) -> Result<()> {
        tell(self.output, &format!("do this: {what}\npress Enter at the moment of doing it"))
    }

    /// Tells something with the time since the fault.
    fn say(&self, text: &str) -> Result<()> {
        let elapsed = self.course.as_ref().map(|course| course.elapsed(Instant::now()));
        let elapsed = elapsed.and_then(|elapsed| u64::try_from(elapsed.as_millis()).ok());
        let elapsed = elapsed.map(seconds).unwrap_or_default();
        tell(self.output, &format!("{} {elapsed:>8}  {text}", now().clock()))
    }
}
