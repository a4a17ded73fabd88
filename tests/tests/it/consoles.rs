//! What people do at their consoles: sign elsewhere or through an SSH agent, lose a console, quit it.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ceremonies::attestation::{Measurement, Pcr};
use ceremonies::ceremony::Phase;
use ceremonies::charter::Role;
use ceremonies::ids::{CeremonyId, Hash};
use ceremonies::script::{Act, Step};
use console::config::Me;
use lab::cluster::Cluster;
use lab::drive::Room;

use crate::ceremonies::{PATIENCE, plan};

const COLUMNS: u16 = 100;
const ROWS: u16 = 30;

pub(crate) fn custody() -> Command {
    Command::new(lab::programs::folder().unwrap().join("custody"))
}

/// Runs `custody` on the cluster and returns what it printed, or what it complained of.
pub(crate) fn run(cluster: &Path, arguments: &[&str], agent: Option<&Path>) -> Result<String, String> {
    let mut command = custody();
    command.arg("--cluster").arg(cluster).args(arguments).env_remove("SSH_AUTH_SOCK");
    if let Some(socket) = agent {
        command.env("SSH_AUTH_SOCK", socket);
    }
    let output = command.output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

/// Signs with stock OpenSSH, as on a machine that has no `custody`. Returns the signature's file.
fn sign_elsewhere(folder: &Path, me: &Me, statement: &str) -> std::path::PathBuf {
    let text = folder.join("statement.txt");
    std::fs::write(&text, statement).unwrap();
    let signature = folder.join("statement.txt.sig");
    let _ = std::fs::remove_file(&signature);
    let status = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", "custody-ceremony", "-f"])
        .args([&me.key, &text])
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    signature
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An SSH agent that holds one key.
fn ssh_agent(folder: &Path, me: &Me) -> (Ends, std::path::PathBuf) {
    let socket = folder.join("agent.sock");
    let agent = Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn();
    let agent = Ends(agent.unwrap());
    wait_for("the SSH agent", || socket.exists().then_some(()));
    let added =
        Command::new("ssh-add").arg(&me.key).env("SSH_AUTH_SOCK", &socket).stderr(Stdio::null()).status();
    assert!(added.unwrap().success());
    (agent, socket)
}

fn wait_for<T>(what: &str, mut until: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = until() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A console on a pseudo-terminal of its own, with what it shows.
struct Terminal {
    process: Ends,
    keys: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn open(cluster: &Path) -> Self {
        Self::open_with(cluster, &[])
    }

    fn open_with(cluster: &Path, arguments: &[&str]) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let ours: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let size = rustix::termios::Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&ours, size).unwrap();
        let mut options = File::options();
        let theirs =
            options.read(true).write(true).custom_flags(OpenptFlags::NOCTTY.bits().cast_signed()).open(name);
        let theirs = theirs.unwrap();
        let process = custody()
            .arg("--cluster")
            .arg(cluster)
            .args(arguments)
            .env_remove("SSH_AUTH_SOCK")
            .env("TERM", "xterm-256color")
            .stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs)
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let (mut output, shown) = (File::from(ours.try_clone().unwrap()), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading ends with an error when the last process has let go of the terminal.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { process: Ends(process), keys: File::from(ours), screen }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether the terminal is as a shell has it.
    fn echoes(&self) -> bool {
        use rustix::termios::LocalModes;
        let modes = rustix::termios::tcgetattr(&self.keys).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn wait_for(&self, text: &str) {
        let begun = Instant::now();
        while !self.contents().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "`{text}` is not on the screen:\n{}", self.contents());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Goes to the one ceremony there is.
    fn show_ceremony(&mut self, id: &CeremonyId) {
        self.wait_for("Cluster");
        self.press("2");
        self.wait_for(id.as_str());
        self.press("\r");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_elsewhere_and_through_an_agent_and_a_console_killed_at_any_step_is_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(&plan(folder.path(), 5, 3)).await.unwrap();
    let file = cluster.layout().console();
    let status = folder.path().join("status.txt");
    let started = custody()
        .arg("--cluster")
        .arg(&file)
        .args(["status", "--watch"])
        .stdout(File::create(&status).unwrap())
        .spawn();
    let watcher = Ends(started.unwrap());
    let mut room = Room::enter(&file, PATIENCE).await.unwrap();
    let id = opens_with_a_signature_made_elsewhere(folder.path(), &file, &room);
    room.lead_to(&id, Act::Confirm, PATIENCE).await.unwrap();
    signs_through_an_agent(folder.path(), &file, &room, &id);
    room.lead_to(&id, Act::Approve, PATIENCE).await.unwrap();
    signs_at_a_terminal(folder.path(), &file, &room, &id);
    for act in [Act::Approve, Act::ReadBack, Act::Agree, Act::Close] {
        let generating = (act == Act::ReadBack).then(|| is_killed_in_the_rounds(&file, &id));
        room.lead_to(&id, act, PATIENCE).await.unwrap();
        if let Some(killed) = generating {
            killed.await.unwrap();
        }
        let title = format!("▶ {}", room.ceremony(&id).unwrap().current_step().unwrap().title);
        for _ in ["before", "after"] {
            let mut killed = Terminal::open(&file);
            killed.show_ceremony(&id);
            killed.wait_for(&title);
        }
    }

    let mut again = Terminal::open(&file);
    again.show_ceremony(&id);
    let process = rustix::process::Pid::from_child(&again.process.0);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let end = wait_for("the console's end", || again.process.0.try_wait().unwrap());
    assert_eq!(end.code(), Some(1), "whoever looks at it sees that it was ended");
    wait_for("the screen", || (!again.screen.lock().unwrap().screen().alternate_screen()).then_some(()));

    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(room.ceremony(&id).unwrap().phase(), Phase::Closed);
    // Whoever has watched since before the wallet was made is told of it.
    let is_told = || std::fs::read_to_string(&status).unwrap().contains("wallet treasury g1 ✓ can sign");
    wait_for("the wallet, watched", || is_told().then_some(()));
    drop(watcher);
    tells_a_watcher_each_entry_once(folder.path(), &file, &room, &id);
    withdraws_elsewhere_or_at_a_terminal(folder.path(), &file, &room);
    amends_the_charter_with_files(folder.path(), &file, &mut room).await;
    cluster.stop().await;
}

/// `audit tail`, started again and again: every entry comes once, in order, as the log has it.
fn tells_a_watcher_each_entry_once(folder: &Path, cluster: &Path, room: &Room, id: &CeremonyId) {
    let cursor = folder.join("audit.json");
    let tail = ["audit", "tail", "--once", "--cursor", cursor.to_str().unwrap()];
    let log = &room.book.get(id).unwrap().entries;
    let mut told: Vec<Hash> = Vec::new();
    wait_for("the whole log", || {
        for line in run(cluster, &tail, None).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["ceremony"], id.as_str());
            told.push(line["hash"].as_str().unwrap().parse().unwrap());
        }
        (told.len() >= log.len()).then_some(())
    });
    assert_eq!(told, log.iter().map(ceremonies::log::Entry::hash).collect::<Vec<_>>());
    assert_eq!(run(cluster, &tail, None).unwrap(), "");
    std::fs::write(&cursor, "half of a curs").unwrap();
    assert!(run(cluster, &tail, None).unwrap_err().contains("is not a cursor"));
}

/// A console that shows the ceremony, and is killed while the enclaves work.
fn is_killed_in_the_rounds(cluster: &Path, id: &CeremonyId) -> tokio::task::JoinHandle<()> {
    let mut console = Terminal::open(cluster);
    console.show_ceremony(id);
    tokio::task::spawn_blocking(move || console.wait_for("Rounds:"))
}

fn opens_with_a_signature_made_elsewhere(folder: &Path, cluster: &Path, room: &Room) -> CeremonyId {
    let administrator = room.people(Role::Administrator).next().unwrap();
    let manifest = folder.join("manifest");
    let manifest = manifest.to_str().unwrap();
    let open =
        ["ceremony", "open", "dkg", "--wallet", "treasury", "--purpose", "a test", "--manifest", manifest];
    let statement = run(cluster, &open, None).unwrap();
    assert!(
        run(cluster, &open, None).unwrap_err().contains("already exists"),
        "a manifest is not overwritten"
    );
    let signature = sign_elsewhere(folder, administrator, &statement);
    let attended = run(cluster, &open[..open.len() - 2], None).unwrap_err();
    assert!(attended.contains("there is no terminal") && attended.contains("submit-opening"), "{attended}");
    let submit = ["ceremony", "submit-opening", "--manifest", manifest, "--signature"];
    let submit =
        |signature: &Path| run(cluster, &[&submit[..], &[signature.to_str().unwrap()]].concat(), None);
    let other = sign_elsewhere(folder, administrator, &format!("{statement}."));
    let refused = submit(&other).unwrap_err();
    assert!(refused.contains("not over this statement"), "{refused}");
    assert_eq!(other, signature);
    sign_elsewhere(folder, administrator, &statement);
    submit(&signature).unwrap().trim().parse().unwrap()
}

/// From the charter in force to the one that follows, each through a file, as the runbook has it.
async fn amends_the_charter_with_files(folder: &Path, cluster: &Path, room: &mut Room) {
    let charter = room.book.context().charter();
    let image = Measurement { pcr0: Pcr::from([7; 48]), ..charter.attestation().measurements[0] };
    let place = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    std::fs::write(place("image.toml"), toml::to_string(&image).unwrap()).unwrap();
    std::fs::write(place("now.toml"), run(cluster, &["charter", "show"], None).unwrap()).unwrap();
    assert_eq!(std::fs::read_to_string(place("now.toml")).unwrap(), charter.text());
    let allow = ["charter", "allow", &place("now.toml"), "--measurement", &place("image.toml")];
    let next =
        run(cluster, &[&allow[..], &["--others-until", "2099-01-31T00:00:00Z"]].concat(), None).unwrap();
    std::fs::write(place("next.toml"), &next).unwrap();
    let manifest = place("amend.manifest");
    let open = ["ceremony", "open", "amend", "--purpose", "a test", "--manifest", &manifest, "--charter"];
    let unfit = run(cluster, &[&open[..], &[&place("now.toml")]].concat(), None).unwrap_err();
    assert!(unfit.contains("does not amend the one in force"), "{unfit}");
    let statement = run(cluster, &[&open[..], &[&place("next.toml")]].concat(), None).unwrap();
    let submit = ["ceremony", "submit-opening", "--manifest", &manifest];
    let unread = run(cluster, &submit, None).unwrap_err();
    assert!(unread.contains(&statement) && unread.contains("nothing was signed"), "{unread}");
    let id = run(cluster, &[&submit[..], &["--statement-hash", &hash(&statement)]].concat(), None)
        .unwrap()
        .trim()
        .parse::<CeremonyId>()
        .unwrap();
    let shown = run(cluster, &["ceremony", "show", id.as_str()], None).unwrap();
    assert!(shown.contains(&format!("+ image PCR0 {}", image.pcr0)), "{shown}");
    room.lead_to_close(&id, PATIENCE, |_| ()).await.unwrap();
    assert_eq!(run(cluster, &["charter", "show"], None).unwrap(), next);
}

fn signs_through_an_agent(folder: &Path, cluster: &Path, room: &Room, id: &CeremonyId) {
    let step = room.ceremony(id).unwrap().current_step().unwrap();
    let (role, _) =
        *room.ceremony(id).unwrap().signers(step).iter().next().map(|(r, c)| (*r, *c)).as_ref().unwrap();
    let me = room.people(role).next().unwrap();
    let public = me.key.with_extension("pub");
    let (role, key) = (role.to_string(), public.to_str().unwrap());
    let sign = [
        "ceremony",
        "sign",
        id.as_str(),
        "--step",
        step.id.as_str(),
        "--role",
        &role,
        "--person",
        me.person.as_str(),
        "--key",
        key,
    ];
    let (agent, socket) = ssh_agent(folder, me);
    let statement = [&["ceremony", "statement"], &sign[2..sign.len() - 2]].concat();
    let statement = run(cluster, &statement, None).unwrap();
    for (proof, why) in [
        (None, "there is no terminal"),
        (Some(hash(&statement.replace(me.person.as_str(), "someone"))), "read it again"),
    ] {
        let proof = proof.iter().flat_map(|hash| ["--statement-hash", hash.as_str()]);
        let unread = sign.iter().copied().chain(proof).collect::<Vec<_>>();
        let refused = run(cluster, &unread, Some(&socket)).unwrap_err();
        assert!(refused.contains(&statement) && refused.contains(why), "{refused}");
    }
    names_what_a_step_needs(cluster, &sign, step);
    let hash = hash(&statement);
    let sign = [&sign[..], &["--statement-hash", &hash]].concat();
    assert!(run(cluster, &sign, None).unwrap_err().contains("no SSH agent"));
    let once = run(cluster, &sign, Some(&socket)).unwrap();
    assert!(once.contains("recorded by"), "{once}");
    let entry = once.split_once("entry ").unwrap().1.split(',').next().unwrap();
    let again = run(cluster, &sign, Some(&socket)).unwrap_err();
    for said in
        ["has already signed step", &format!("on record since entry {entry},"), "nothing was signed or sent"]
    {
        assert!(again.contains(said), "{said}: {again}");
    }
    drop(agent);
}

/// A step that there is not, and an answer that a step does not take, are misuse, and what would be right is said.
fn names_what_a_step_needs(cluster: &Path, sign: &[&str], step: &Step) {
    let misused = |arguments: &[&str]| {
        let ended = custody().arg("--cluster").arg(cluster).args(arguments).output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(ended.stderr).unwrap()
    };
    let other =
        sign.iter().map(|argument| if *argument == step.id.as_str() { "reed-back" } else { argument });
    let refused = misused(&other.collect::<Vec<_>>());
    assert!(refused.contains("`reed-back` is not a step of") && refused.contains("read-back"), "{refused}");
    let (more, hint) = if step.act == Act::ReadBack {
        (None, "give --words")
    } else if step.act == Act::Agree {
        (None, "give --agree or --disagree")
    } else {
        (Some("--agree"), "leave the others out")
    };
    let refused = misused(&sign.iter().copied().chain(more).collect::<Vec<_>>());
    assert!(refused.contains(hint), "{refused}");
}

/// What `sha256sum` says of a text.
fn hash(text: &str) -> String {
    Hash::of_bytes(text.as_bytes()).to_string()
}

/// A withdrawal is read, signed and submitted like every other statement; at a terminal the word is asked for, and a locked
/// key's passphrase, and whatever ends the question gives the terminal back.
fn withdraws_elsewhere_or_at_a_terminal(folder: &Path, cluster: &Path, room: &Room) {
    let me = room.people(Role::Administrator).next().unwrap();
    let manifest = folder.join("withdrawn.manifest");
    let manifest = manifest.to_str().unwrap();
    let open =
        ["ceremony", "open", "dkg", "--wallet", "short", "--purpose", "a test", "--manifest", manifest];
    let statement = run(cluster, &open, None).unwrap();
    let submit =
        ["ceremony", "submit-opening", "--manifest", manifest, "--statement-hash", &hash(&statement)];
    let id = run(cluster, &submit, None).unwrap().trim().to_owned();
    let step = ["--step", "withdraw", "--role", "administrator", "--person", me.person.as_str()];
    let ceremony =
        |what: &str, more: &[&str]| run(cluster, &[&["ceremony", what, &id], &step[..], more].concat(), None);
    assert!(ceremony("statement", &[]).unwrap_err().contains("needs --reason"));
    let statement = ceremony("statement", &["--reason", "Only a test"]).unwrap();
    assert!(statement.lines().nth(3) == Some("verdict: withdraw, because: Only a test"), "{statement}");

    let locked = folder.join("locked");
    std::fs::copy(&me.key, &locked).unwrap();
    let locks = Command::new("ssh-keygen").args(["-q", "-p", "-N", "right", "-f"]).arg(&locked).status();
    assert!(locks.unwrap().success());
    let abort = ["ceremony", "abort", &id, "--reason", "Only a test", "--key", locked.to_str().unwrap()];
    let unattended = run(cluster, &abort, None).unwrap_err();
    assert!(unattended.contains(&statement) && unattended.contains("there is no terminal"), "{unattended}");
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::HUP]
    {
        let mut asked = Terminal::open_with(cluster, &abort);
        asked.wait_for("Type `sign`");
        asked.press("sign\r");
        asked.wait_for("passphrase of");
        wait_for("the hidden question", || (!asked.echoes()).then_some(()));
        rustix::process::kill_process(rustix::process::Pid::from_child(&asked.process.0), signal).unwrap();
        assert!(!wait_for("its end", || asked.process.0.try_wait().unwrap()).success());
        wait_for("the terminal", || asked.echoes().then_some(()));
    }
    let mut declined = Terminal::open_with(cluster, &abort);
    declined.wait_for("Type `sign`");
    declined.press("no\r");
    declined.wait_for("was not typed: nothing was signed");

    let signature = sign_elsewhere(folder, me, &statement);
    let signature = ["--reason", "Only a test", "--signature", signature.to_str().unwrap()];
    assert!(ceremony("submit", &signature).unwrap().contains("recorded by"));
    let shown = run(cluster, &["ceremony", "show", &id], None).unwrap();
    assert!(shown.contains("withdrawn by administrator-1: Only a test"), "{shown}");
}

/// At a terminal the statement is read, the word typed, and a passphrase with it, slips and all.
fn signs_at_a_terminal(folder: &Path, cluster: &Path, room: &Room, id: &CeremonyId) {
    let ceremony = room.ceremony(id).unwrap();
    let step = ceremony.current_step().unwrap();
    let me = room.people(Role::Operator).next().unwrap();
    assert!(ceremony.signers(step).contains_key(&Role::Operator));
    let locked = folder.join("operator");
    std::fs::copy(&me.key, &locked).unwrap();
    let locks = Command::new("ssh-keygen").args(["-q", "-p", "-N", "right", "-f"]).arg(&locked).status();
    assert!(locks.unwrap().success());
    let sign =
        ["ceremony", "sign", id.as_str(), "--step", step.id.as_str(), "--role", "operator", "--person"];
    let sign = [&sign[..], &[me.person.as_str(), "--key", locked.to_str().unwrap()]].concat();
    let mut asked = Terminal::open_with(cluster, &sign);
    asked.wait_for("Type `sign`");
    assert!(asked.contents().contains(&format!("ceremony: {id}")), "{}", asked.contents());
    asked.press("sign\r");
    asked.wait_for("passphrase of");
    wait_for("the hidden question", || (!asked.echoes()).then_some(()));
    asked.press("wrong\x15righX\x08t\r");
    asked.wait_for("recorded by");
    assert!(!asked.contents().contains("right"), "{}", asked.contents());
}
