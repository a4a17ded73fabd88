//! Why the bus is not connected. A connection that is retried for ever tells nobody what stands in its way, so each
//! server is examined once more by hand.

use std::io;
use std::time::Duration;

use ceremonies::text::one_line;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a server may take to be connected to, and then to greet.
const LOOK: Duration = Duration::from_secs(2);
/// Where NATS listens unless told otherwise.
const PORT: u16 = 4222;
/// How a NATS server begins its greeting.
const GREETING: &str = "INFO ";
/// Most bytes of a greeting that are read.
const MAX_GREETING: u64 = 8 * 1024;

/// Each server with what stands in its way, given the outcome of the last connection attempt.
pub(super) async fn diagnose(servers: &[String], heard: Option<&str>) -> String {
    let mut said = Vec::new();
    for server in servers {
        said.push(format!("{server}: {}", look_at(server, heard).await));
    }
    format!("the bus cannot be reached: {}", said.join("; "))
}

/// Host and port of a server's URL.
fn place(server: &str) -> (String, u16) {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let port = rest.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = port.unwrap_or((rest, PORT));
    (host.trim_matches(['[', ']']).to_owned(), port)
}

async fn look_at(server: &str, heard: Option<&str>) -> String {
    let (host, port) = place(server);
    let addresses = match timeout(LOOK, tokio::net::lookup_host((host.as_str(), port))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(_)) => return format!("no such host `{host}`: check `servers` in the cluster file"),
        Err(_) => {
            return format!(
                "the name `{host}` could not be resolved in time: is the name service reachable?"
            );
        }
    };
    let stream = match timeout(LOOK, TcpStream::connect(addresses.as_slice())).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return "refused: nothing listens there; is the broker running, and is this its port?".to_owned();
        }
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "no answer: the address is wrong, or a firewall is in between".to_owned(),
    };
    let greeting = greeting(stream).await;
    let asks_for_tls = greeting.as_ref().is_some_and(|text| text.contains("\"tls_required\":true"));
    let has_tls =
        asks_for_tls || greeting.as_ref().is_some_and(|text| text.contains("\"tls_available\":true"));
    let wants_tls = server.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("tls://"));
    match (greeting.as_deref().map(|text| text.starts_with(GREETING)), heard) {
        (Some(true), Some(_)) if asks_for_tls => {
            "a NATS server that asks for TLS, and no connection came of that: its certificate must be for this very \
             name, in date, and signed by an authority that this machine knows or `ca` in the cluster file names"
                .to_owned()
        }
        (Some(true), _) if wants_tls && !has_tls => {
            "a NATS server that does not speak TLS there, and the cluster file asks for it (tls://): switch TLS on in the \
             broker's configuration, or give the port at which it has TLS"
                .to_owned()
        }
        (Some(true), None) => "a NATS server that has not admitted this console yet".to_owned(),
        (Some(true), Some(heard)) if heard.to_lowercase().contains("authorization") => {
            "a NATS server that does not know this console: its NKey must be in the broker's configuration (custody \
             charter nats-config), and the broker must have loaded that"
                .to_owned()
        }
        (Some(true), Some(heard)) => format!("a NATS server: {}", one_line(heard)),
        (Some(false), _) => "not a NATS server: it sends a different greeting; is this the port of something else?".to_owned(),
        (None, _) => "it accepts connections but sends no greeting: the broker hangs, or this is the port of something \
            else?".to_owned(),
    }
}

/// The line that a server sends unasked, as far as it comes; none where nothing does.
async fn greeting(stream: TcpStream) -> Option<String> {
    let mut line = Vec::new();
    // What came before the time was over counts.
    let _ = timeout(LOOK, BufReader::new(stream.take(MAX_GREETING)).read_until(b'\n', &mut line)).await;
    (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// A server that greets everybody so, and stays.
    async fn greeting_with(text: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut guests = Vec::new();
            while let Ok((mut guest, _)) = listener.accept().await {
                let _ = guest.write_all(text.as_bytes()).await;
                guests.push(guest);
            }
        });
        format!("nats://127.0.0.1:{port}")
    }

    #[tokio::test]
    async fn every_reason_has_its_own_words() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = format!("nats://{}", closed.local_addr().unwrap());
        drop(closed);
        let nats = greeting_with("INFO {\"max_payload\":1}\r\n").await;
        let over_tls = |server: &str| server.replacen("nats", "tls", 1);
        let either = greeting_with("INFO {\"tls_available\":true}\r\n").await;
        for (server, heard, said) in [
            (refused, None, "refused: nothing listens there"),
            ("nats://no-such-host.invalid:4222".to_owned(), None, "no such host `no-such-host.invalid`"),
            (greeting_with("220 mail.example\r\n").await, None, "it sends a different greeting"),
            (greeting_with("").await, Some("timed out"), "sends no greeting"),
            (nats.clone(), Some("authorization violation: ..."), "does not know this console"),
            (nats.clone(), Some("TLS error: expired"), "a NATS server: TLS error: expired"),
            (over_tls(&nats), Some("IO error"), "does not speak TLS there"),
            (over_tls(&nats).to_uppercase(), None, "does not speak TLS there"),
            (over_tls(&either), Some("IO error"), "a NATS server: IO error"),
            (nats.clone(), Some("IO error"), "a NATS server: IO error"),
            (nats.clone(), None, "has not admitted this console yet"),
            (
                greeting_with("INFO {\"tls_required\":true}\r\n").await,
                Some("IO error"),
                "a NATS server that asks for TLS",
            ),
        ] {
            let found = diagnose(std::slice::from_ref(&server), heard).await;
            assert!(found.contains(said) && found.contains(&server), "{server}: {found}");
        }
    }

    #[test]
    fn place_of_a_server_is_read_however_it_is_written() {
        for (server, host, port) in [
            ("nats://broker.example:4333", "broker.example", 4333),
            ("tls://user:secret@broker.example/", "broker.example", PORT),
            ("broker", "broker", PORT),
            ("nats://[::1]:4222", "::1", 4222),
        ] {
            assert_eq!(place(server), (host.to_owned(), port), "{server}");
        }
    }
}
