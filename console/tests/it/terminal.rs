//! The terminal is the shell's: stopped, killed or written over, the console gives it back, and takes it again.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ceremonies::charter::Charter;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use crate::data;

const PATIENCE: Duration = Duration::from_mins(1);

/// A cluster without a broker: the console shows that it is waiting.
fn cluster(folder: &Path) -> std::path::PathBuf {
    let key = nkeys::KeyPair::new_user();
    let mut draft = Charter::parse(&std::fs::read(data("charter.toml")).unwrap()).unwrap().draft();
    draft.consoles[0].nkey = key.public_key();
    std::fs::write(folder.join("charter.toml"), draft.to_toml().unwrap()).unwrap();
    std::fs::write(folder.join("seed"), key.seed().unwrap()).unwrap();
    std::fs::copy(data("root.pem"), folder.join("root.pem")).unwrap();
    let text = "charter = \"charter.toml\"\nroot = \"root.pem\"\ncache = \"cache\"\n[nats]\n\
                servers = [\"nats://127.0.0.1:1\"]\nseed = \"seed\"\n";
    let file = folder.join("cluster.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// The console on a pseudo-terminal.
struct Console {
    process: Child,
    terminal: OwnedFd,
    theirs: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Console {
    fn open(folder: &Path) -> Self {
        Self::run(folder, &[])
    }

    fn run(folder: &Path, arguments: &[&str]) -> Self {
        let terminal: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let flags = OpenptFlags::NOCTTY.bits().cast_signed();
        let theirs = File::options().read(true).write(true).custom_flags(flags).open(name).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_custody"))
            .arg("--cluster")
            .arg(cluster(folder))
            .args(arguments)
            .env("TERM", "xterm-256color")
            .stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs.try_clone().unwrap())
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(24, 80, 0)));
        let (mut output, shown) = (File::from(terminal.try_clone().unwrap()), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        let console = Self { process, terminal, theirs, screen };
        console.wait("the first frame", |console| console.is_taken() && console.shows("1 Cluster"));
        console
    }

    fn wait(&self, what: &str, until: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !until(self) {
            assert!(begun.elapsed() < PATIENCE, "{what} did not come");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn shows(&self, text: &str) -> bool {
        self.screen.lock().unwrap().screen().contents().contains(text)
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// In raw mode, and on a screen of its own.
    fn is_taken(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        let raw = !modes.intersects(LocalModes::ECHO | LocalModes::ICANON);
        raw && self.screen.lock().unwrap().screen().alternate_screen()
    }

    fn is_given_back(&self) -> bool {
        self.echoes() && !self.screen.lock().unwrap().screen().alternate_screen()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn press(&self, keys: &str) {
        File::from(self.terminal.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    fn wait_stopped(&self) {
        self.wait("the stop", |console| {
            let options = WaitOptions::UNTRACED | WaitOptions::NOHANG;
            waitpid(Some(console.pid()), options).unwrap().is_some_and(|(_, status)| status.stopped())
        });
    }
}

#[test]
fn stopped_console_gives_the_terminal_back_and_takes_it_again_when_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let console = Console::open(folder.path());
    for _ in 0..2 {
        console.signal(Signal::TSTP);
        console.wait_stopped();
        console.wait("the screen", Console::is_given_back);
        console.signal(Signal::CONT);
        console.wait("the console", |console| console.is_taken() && console.shows("1 Cluster"));
    }
    // Nobody is told of this stop; the shell takes the terminal as it wants it.
    let mut cooked = tcgetattr(&console.terminal).unwrap();
    console.signal(Signal::STOP);
    console.wait_stopped();
    cooked.local_modes |= LocalModes::ECHO | LocalModes::ICANON;
    tcsetattr(&console.terminal, OptionalActions::Now, &cooked).unwrap();
    assert!(console.echoes());
    console.signal(Signal::CONT);
    console.wait("the console", |console| console.is_taken() && console.shows("1 Cluster"));
}

#[test]
fn console_that_is_ended_by_any_signal_gives_the_terminal_back_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for (signal, name) in [
        (Signal::INT, "SIGINT"),
        (Signal::TERM, "SIGTERM"),
        (Signal::HUP, "SIGHUP"),
        (Signal::QUIT, "SIGQUIT"),
    ] {
        let mut console = Console::open(folder.path());
        console.signal(signal);
        assert_eq!(console.process.wait().unwrap().code(), Some(1), "{name}");
        console.wait("the screen", Console::is_given_back);
        console.wait("why it ended", |console| console.shows(&format!("custody: ended by {name}")));
    }
}

#[test]
fn control_l_draws_over_whatever_another_program_has_written() {
    let folder = tempfile::tempdir().unwrap();
    let console = Console::open(folder.path());
    // Again until it stands: a frame that the console was still drawing covers what was written into it.
    console.wait("what another program writes", |console| {
        (&console.theirs).write_all(b"\x1b[10;10HSOMETHING ELSE").unwrap();
        console.shows("SOMETHING ELSE")
    });
    console.press("\x0c");
    console.wait("the frame", |console| !console.shows("SOMETHING ELSE") && console.shows("1 Cluster"));
}

#[test]
fn reason_why_no_bus_is_there_is_on_the_screen() {
    let folder = tempfile::tempdir().unwrap();
    let console = Console::open(folder.path());
    console.wait("the reason", |console| console.shows("nothing listens"));
    console.press("2");
    console.wait("the list", |console| {
        console.shows("nothing listens")
            && console.shows("Not read: the bus cannot be reached")
            && !console.shows(" yet")
    });
}

#[test]
fn what_was_recorded_is_its_owners_alone_and_is_shown_again() {
    let folder = tempfile::tempdir().unwrap();
    let film = folder.path().join("session.cast");
    let film = film.to_str().unwrap();
    let mut console = Console::run(folder.path(), &["--record", film]);
    console.press("2");
    console.wait("the list", |console| console.shows("Not read: the bus cannot be reached"));
    console.press("q");
    assert!(console.process.wait().unwrap().success());
    assert_eq!(std::fs::metadata(film).unwrap().permissions().mode() & 0o077, 0);

    let mut replay = Console::run(folder.path(), &["replay", film]);
    replay.wait("the list again", |replay| replay.shows("Not read: the bus cannot be reached"));
    replay.press("q");
    assert!(replay.process.wait().unwrap().success());
    replay.wait("the screen", Console::is_given_back);
}
