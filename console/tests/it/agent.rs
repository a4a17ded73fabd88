//! SSH agents that do not do what they should: none of them holds the console for ever.

use std::cell::RefCell;
use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ceremonies::text::chain;
use console::agent::{Agent, AgentError};
use console::waiting::Waiting;
use ssh_key::PrivateKey;
use ssh_key::private::Ed25519Keypair;

use crate::reference::has;

const MESSAGE: &[u8] = b"what is signed";
const A_MOMENT: Duration = Duration::from_millis(200);

fn key() -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]))
}

/// What came of asking an agent that answers every connection so, and what the person was told.
fn asked(answer: impl Fn(UnixStream) + Send + 'static) -> (AgentError, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for guest in listener.incoming() {
            answer(guest.unwrap());
        }
    });
    let told = RefCell::new(Vec::new());
    let tell = |line: &str| told.borrow_mut().push(line.to_owned());
    let begun = Instant::now();
    let waiting = Waiting { limit: A_MOMENT, tell: &tell };
    let refused = Agent::at(socket).sign(key().public_key(), MESSAGE, waiting).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(20), "{refused}");
    (refused, told.into_inner())
}

#[test]
fn agent_that_takes_a_question_and_never_answers_is_given_up_with_the_reason() {
    let (refused, told) = asked(std::mem::forget);
    assert!(matches!(&refused, AgentError::Silent { limit: A_MOMENT, .. }), "{refused}");
    assert!(refused.to_string().contains("agent.sock did not answer"), "{refused}");
    assert!(told[0].contains("waiting at most") && told[0].contains("touch the security key"), "{told:?}");
}

#[test]
fn agent_whose_answer_trickles_in_is_given_up_too() {
    let (refused, _) = asked(|mut guest| {
        // A long answer begins, and its bytes come one by one.
        let _ = guest.write_all(&[0, 0, 0xff, 0xff, 14]);
        while guest.write_all(&[0]).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(matches!(refused, AgentError::Silent { .. }), "{refused}");
}

#[test]
fn agent_that_is_stopped_and_takes_no_connection_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let _never_accepts = UnixListener::bind(&socket).unwrap();
    let connected = || {
        let guest = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        let address = socket2::SockAddr::unix(&socket).unwrap();
        guest.connect_timeout(&address, A_MOMENT).is_ok().then_some(guest)
    };
    let _queue: Vec<_> = std::iter::from_fn(connected).take(20_000).collect();
    let waiting = Waiting { limit: A_MOMENT, ..Waiting::quiet() };
    let refused = Agent::at(socket.clone()).sign(key().public_key(), MESSAGE, waiting).unwrap_err();
    assert!(matches!(refused, AgentError::Unreachable(..)), "{refused}");
}

#[test]
fn agent_that_refuses_hangs_up_or_babbles_is_not_called_silent() {
    let failure: fn(UnixStream) = |mut guest| drop(guest.write_all(&[0, 0, 0, 1, 5]));
    let hangs_up: fn(UnixStream) = |guest| drop(guest);
    let babbles: fn(UnixStream) = |mut guest| drop(guest.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    for agent in [failure, hangs_up, babbles] {
        let (refused, _) = asked(agent);
        assert!(matches!(refused, AgentError::Refused(_)), "{}", chain(&refused));
    }
    let nobody = Agent::at("/nowhere/agent.sock".into());
    let refused = nobody.sign(key().public_key(), MESSAGE, Waiting::quiet()).unwrap_err();
    assert!(chain(&refused).contains("/nowhere/agent.sock: No such file"), "{}", chain(&refused));
}

/// Ends with the test.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The agent of OpenSSH, once it can be asked.
fn openssh(socket: &Path) -> Ends {
    let agent = Command::new("ssh-agent").args(["-D", "-a"]).arg(socket).stdout(Stdio::null()).spawn();
    let agent = Ends(agent.unwrap());
    let begun = Instant::now();
    while UnixStream::connect(socket).is_err() {
        assert!(begun.elapsed() < Duration::from_mins(1), "the agent did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
    agent
}

#[test]
fn agent_of_openssh_signs_with_the_keys_that_it_holds_and_no_others() {
    if !has("ssh-agent", "agent_of_openssh_signs_with_the_keys_that_it_holds_and_no_others") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (socket, file) = (folder.path().join("agent.sock"), folder.path().join("key"));
    key().write_openssh_file(&file, ssh_key::LineEnding::LF).unwrap();
    let _agent = openssh(&socket);
    let ask = || Agent::at(socket.clone()).sign(key().public_key(), MESSAGE, Waiting::quiet());
    let refused = ask().unwrap_err();
    assert!(matches!(refused, AgentError::Refused(_)), "{refused}");
    let added =
        Command::new("ssh-add").arg(&file).env("SSH_AUTH_SOCK", &socket).stderr(Stdio::null()).status();
    assert!(added.unwrap().success());
    let signature = ask().unwrap();
    assert_eq!(
        signature.as_bytes(),
        p256::ecdsa::signature::Signer::<ssh_key::Signature>::try_sign(&key(), MESSAGE).unwrap().as_bytes()
    );
}
