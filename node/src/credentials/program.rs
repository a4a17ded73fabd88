//! Running a program that prints credentials.
//!
//! The program and everything it starts form one process group, killed as soon as nobody waits for it any more; only a
//! program that leaves the group on purpose outlives that. This module must never wait without a limit, and never
//! repeat what the program prints on its standard output.

use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ceremonies::ids::{Line, MAX_TEXT};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::{CredentialError, enough, is_too_long, room};
use crate::deadline::Within;

/// How much of the end of a program's standard error is kept, in bytes.
const MAX_STDERR: usize = 4 * 1024;
/// How many of its last lines are repeated: some programs end with a line that says nothing.
const MAX_LINES: usize = 3;
/// Stands for a line that is not repeated.
const WITHHELD: &str = "(a line with a secret's name, not repeated)";

/// A program's last words on its standard error, printable and cut. In a message they follow what went wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said(Option<Line>);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(words) => write!(f, "; it said: {words}"),
            None => Ok(()),
        }
    }
}

/// What a program printed and said before it ended successfully.
pub(super) struct Printed {
    pub(super) program: String,
    pub(super) text: Zeroizing<Vec<u8>>,
    pub(super) said: Said,
}

pub(super) async fn run(words: &[String], limit: Duration) -> Result<Printed, CredentialError> {
    let (program, arguments) = words.split_first().ok_or(CredentialError::NoProgram)?;
    let cannot_run = |source| CredentialError::Run(program.clone(), source);
    let mut helper = Helper::start(program, arguments).map_err(cannot_run)?;
    let (mut text, mut tail) = (room(), Tail::default());
    let ended = tokio::time::timeout(limit, helper.ends(&mut text, &mut tail)).await;
    let (program, within, said) = (program.clone(), Within(limit), tail.said());
    match ended {
        Ok(Ok(status)) if status.success() => Ok(Printed { program, text, said }),
        Ok(Ok(status)) => Err(CredentialError::Failed { program, status, said }),
        Ok(Err(Cut::TooLong)) => {
            Err(CredentialError::TooLong { source_name: format!("AWS credential program {program}") })
        }
        Ok(Err(Cut::Broken(source))) => Err(CredentialError::Run(program, source)),
        Err(_) if helper.has_exited() => Err(CredentialError::HeldOpen { program, within, said }),
        Err(_) => Err(CredentialError::Late { program, within, said }),
    }
}

/// Why a program's output was not read to its end.
enum Cut {
    TooLong,
    Broken(io::Error),
}

/// A program that runs until it is dropped, at the latest.
struct Helper(Child);

impl Helper {
    fn start(program: &str, arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map(Self)
    }

    /// Reads all that the program prints and waits for its end. The wait comes last: until then the kernel keeps the
    /// program's id, and with it the group's, from being given to others.
    async fn ends(&mut self, text: &mut Vec<u8>, tail: &mut Tail) -> Result<ExitStatus, Cut> {
        let (stdout, stderr) = (self.0.stdout.take(), self.0.stderr.take());
        let print = async {
            let Some(stdout) = stdout else { return Ok(()) };
            stdout.take(enough()).read_to_end(text).await.map_err(Cut::Broken)?;
            if is_too_long(text) { Err(Cut::TooLong) } else { Ok(()) }
        };
        let say = async {
            let Some(stderr) = stderr else { return Ok(()) };
            tail.follow(stderr).await.map_err(Cut::Broken)
        };
        tokio::try_join!(print, say)?;
        self.0.wait().await.map_err(Cut::Broken)
    }

    /// Whether the program itself has ended, without waiting for it.
    fn has_exited(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.group().is_none_or(|id| matches!(waitid(WaitId::Pid(id), look), Ok(Some(_))))
    }

    /// The id of the program and its group, as long as nobody else can have it.
    fn group(&self) -> Option<Pid> {
        self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(group) = self.group() {
            // It fails if nothing is left to kill.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The end of what a program says on its standard error.
#[derive(Default)]
struct Tail {
    bytes: Zeroizing<Vec<u8>>,
    is_cut: bool,
}

impl Tail {
    async fn follow(&mut self, mut stderr: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut piece = Zeroizing::new([0; MAX_STDERR]);
        loop {
            let length = stderr.read(&mut *piece).await?;
            if length == 0 {
                return Ok(());
            }
            self.add(&piece[..length]);
        }
    }

    fn add(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        let surplus = self.bytes.len().saturating_sub(MAX_STDERR);
        self.is_cut |= surplus > 0;
        self.bytes.drain(..surplus);
    }

    /// The last lines, as many as fit a message.
    fn said(&self) -> Said {
        let text = String::from_utf8_lossy(&self.bytes);
        let mut lines = text.split(['\n', '\r']);
        if self.is_cut {
            // The beginning of this line is lost, and may have announced a secret.
            lines.next();
        }
        let lines = lines.filter(|line| !line.trim().is_empty());
        let lines = lines.map(|line| if names_a_secret(line) { WITHHELD } else { line });
        let lines: Vec<Line> = lines.map(Line::lossy).collect();
        let mut words = String::new();
        for line in lines.iter().rev().take(MAX_LINES) {
            let longer = if words.is_empty() { line.to_string() } else { format!("{line} / {words}") };
            if longer.chars().count() > MAX_TEXT {
                break;
            }
            words = longer;
        }
        Said((!words.is_empty()).then(|| Line::lossy(&words)))
    }
}

/// Whether a line names one of the secrets of an answer, and so may hold it: a program that prints to the wrong
/// stream, or a shell that traces its commands. A sentence about a `session token` is repeated.
fn names_a_secret(line: &str) -> bool {
    let plain = line.replace(['_', '-'], "").to_ascii_lowercase();
    ["secretaccesskey", "sessiontoken"].iter().any(|name| plain.contains(name))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::path::Path;
    use std::time::Instant;

    use super::*;
    use crate::config::CredentialSource;
    use crate::credentials::fetch_within;

    /// Long enough for a script to begin on a busy machine.
    const SOON: Duration = Duration::from_secs(2);
    const PATIENCE: Duration = Duration::from_secs(20);
    const GOOD: &str = r#"{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "hidden"}"#;

    fn shell(script: &str) -> CredentialSource {
        CredentialSource::Process(["sh", "-c", script].map(str::to_owned).to_vec())
    }

    async fn refused_within(script: &str, limit: Duration) -> CredentialError {
        let begun = Instant::now();
        let error = fetch_within(&shell(script), limit).await.unwrap_err();
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        assert!(!ceremonies::text::chain(&error).contains("hidden"), "{error}");
        error
    }

    async fn refusal(script: &str) -> String {
        refused_within(script, PATIENCE).await.to_string()
    }

    /// The id that a script wrote into the file, once it is there.
    async fn id_in(file: &Path) -> Pid {
        let read = || std::fs::read_to_string(file).unwrap_or_default().trim_end().parse().ok();
        until(|| read().and_then(Pid::from_raw)).await
    }

    /// Waits until a process is gone, or dead and not yet buried.
    async fn ends(id: Pid) {
        let stat = format!("/proc/{}/stat", id.as_raw_pid());
        let is_dead = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        until(|| is_dead().then_some(())).await;
    }

    async fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn program_that_prints_credentials_and_ends_is_believed() {
        let fetched = fetch_within(&shell(&format!("echo notice >&2; echo '{GOOD}'")), PATIENCE).await;
        assert_eq!(fetched.unwrap().secret_access_key, "hidden");
    }

    #[tokio::test]
    async fn program_without_end_is_killed_at_the_deadline_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let (leader, child) = (dir.path().join("leader"), dir.path().join("child"));
        let script = format!(
            "echo $$ >{}; sleep 600 & echo $! >{}; echo waiting for a password >&2; wait",
            leader.display(),
            child.display()
        );
        let late = refused_within(&script, SOON).await;
        assert!(matches!(late, CredentialError::Late { .. }), "{late}");
        let expected = "AWS credential program sh did not exit within 2 s and was killed; it said: waiting for a \
            password";
        assert_eq!(late.to_string(), expected);
        ends(id_in(&leader).await).await;
        ends(id_in(&child).await).await;
    }

    #[tokio::test]
    async fn program_is_killed_when_nobody_waits_for_it_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let (leader, child) = (dir.path().join("leader"), dir.path().join("child"));
        let script = format!("sleep 600 & echo $! >{}; echo $$ >{}; wait", child.display(), leader.display());
        let source = shell(&script);
        let leader = tokio::select! {
            _ = fetch_within(&source, PATIENCE) => None,
            id = id_in(&leader) => Some(id),
        };
        ends(leader.unwrap()).await;
        ends(id_in(&child).await).await;
    }

    #[tokio::test]
    async fn program_that_closes_its_output_and_lives_on_is_late() {
        let late = refused_within(&format!("echo '{GOOD}'; exec >&- 2>&-; exec sleep 600"), SOON).await;
        assert!(matches!(late, CredentialError::Late { .. }), "{late}");
    }

    #[tokio::test]
    async fn program_that_leaves_another_with_its_output_is_told_apart_and_the_other_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let child = dir.path().join("child");
        let script = format!("sleep 600 & echo $! >{}; echo '{GOOD}'", child.display());
        let open = refused_within(&script, SOON).await;
        assert!(matches!(open, CredentialError::HeldOpen { .. }), "{open}");
        ends(id_in(&child).await).await;
    }

    #[tokio::test]
    async fn program_that_leaves_its_group_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let child = dir.path().join("child");
        let script = format!("setsid sh -c 'echo $$ >{}; exec sleep 600'", child.display());
        let late = refused_within(&script, SOON).await;
        assert!(matches!(late, CredentialError::Late { .. }), "{late}");
        kill_process_group(id_in(&child).await, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn endless_output_is_cut_off_long_before_the_deadline() {
        for script in ["yes hidden", "head -c 1000000000 /dev/zero", "exec cat /dev/zero"] {
            let cut = refused_within(script, PATIENCE).await;
            assert!(matches!(cut, CredentialError::TooLong { .. }), "{cut}");
        }
    }

    #[tokio::test]
    async fn endless_words_are_read_without_being_kept() {
        let late = refused_within("yes still trying >&2", SOON).await;
        assert!(late.to_string().contains("it said: still trying / still trying / "), "{late}");
        let unbroken = refused_within("tr '\\0' x </dev/zero >&2", SOON).await;
        assert!(unbroken.to_string().ends_with("was killed"), "{unbroken}");
    }

    #[tokio::test]
    async fn last_words_of_a_program_that_fails_are_repeated_printable_and_cut() {
        for (script, expected) in [
            ("exit 3", "failed with exit status: 3"),
            ("echo token expired >&2; exit 1", "failed with exit status: 1; it said: token expired"),
            ("printf 'one\\n\\ntwo\\r\\nthree\\nfour' >&2; exit 1", "it said: two / three / four"),
            ("printf 'a\\033[31mb\\342\\200\\256c\\377' >&2; exit 1", "it said: a [31mb c\u{fffd}"),
            ("kill -9 $$", "failed with signal: 9 (SIGKILL)"),
        ] {
            let refused = refusal(script).await;
            assert!(refused.ends_with(expected), "{refused}");
        }
        let long = refusal("printf '%0300d\\n' 1 >&2; printf '%0300d\\n' 2 >&2; exit 1").await;
        assert!(long.ends_with(&format!("it said: {}", "0".repeat(MAX_TEXT - 1) + "…")), "{long}");
    }

    #[tokio::test]
    async fn lines_that_name_a_secret_and_lines_without_beginning_are_not_repeated() {
        for script in [
            format!("echo '{GOOD}' >&2; exit 1"),
            "set -x; AWS_SESSION_TOKEN=hidden; exit 1".to_owned(),
            "echo 'aws_secret_access_key = hidden' >&2; exit 1".to_owned(),
        ] {
            let refused = refusal(&script).await;
            assert!(refused.contains(WITHHELD), "{refused}");
        }
        let cut = refusal("printf 'SessionToken %5000d hidden\\nno reply\\n' 0 >&2; exit 1").await;
        assert!(cut.ends_with("it said: no reply"), "{cut}");
        let sentence = refusal("echo the session token has expired >&2; exit 1").await;
        assert!(sentence.ends_with("it said: the session token has expired"), "{sentence}");
    }

    #[tokio::test]
    async fn answer_of_a_program_that_is_no_answer_is_refused_with_its_words() {
        let empty = refusal("echo no profile >&2").await;
        assert!(empty.ends_with("it is empty; it said: no profile"), "{empty}");
        let malformed = refusal("echo SecretAccessKey = hidden").await;
        assert!(
            malformed.contains("program sh did not give") && malformed.ends_with("it is not JSON"),
            "{malformed}"
        );
    }

    #[tokio::test]
    async fn program_that_cannot_be_run_is_named() {
        let absent = CredentialSource::Process(vec!["/absent/helper".to_owned()]);
        let refused = fetch_within(&absent, PATIENCE).await.unwrap_err();
        assert!(refused.to_string().contains("/absent/helper cannot be run"), "{refused}");
        let nothing = fetch_within(&CredentialSource::Process(Vec::new()), PATIENCE).await.unwrap_err();
        assert!(matches!(nothing, CredentialError::NoProgram));
    }
}
