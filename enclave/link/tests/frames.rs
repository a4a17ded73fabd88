//! The link between enclave and agent: a message too large for a frame is an error of that message only.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use enclave_link::message::{FromEnclave, Progress, Refused, from_enclave};
use enclave_link::{MAX_FRAME, SendError, TooLarge, check_size, split};
use tokio::io::AsyncWriteExt as _;

fn refused(length: usize) -> FromEnclave {
    let kind = from_enclave::Kind::Refused(Refused { request: 1, reason: "x".repeat(length) });
    FromEnclave { kind: Some(kind) }
}

#[tokio::test]
async fn message_that_no_frame_holds_is_not_sent_and_the_next_one_is() {
    let (agent, enclave) = tokio::io::duplex(1024);
    let (mut receiver, _) = split(agent);
    let (_, mut sender) = split(enclave);
    let large = refused(MAX_FRAME);
    let bytes = prost::Message::encoded_len(&large);
    assert_eq!(check_size(&large), Err(TooLarge { bytes }));
    let sent = sender.send(&large).await;
    assert!(matches!(sent, Err(SendError::TooLarge(error)) if error.bytes == bytes), "{sent:?}");
    let small = FromEnclave { kind: Some(from_enclave::Kind::Progress(Progress::default())) };
    sender.send(&small).await.unwrap();
    assert_eq!(receiver.receive::<FromEnclave>().await.unwrap(), Some(small));
}

#[tokio::test]
async fn largest_message_that_a_frame_holds_arrives() {
    let (agent, enclave) = tokio::io::duplex(1024 * 1024);
    let (mut receiver, _) = split(agent);
    let (_, mut sender) = split(enclave);
    let overhead = prost::Message::encoded_len(&refused(MAX_FRAME)) - MAX_FRAME;
    let largest = refused(MAX_FRAME - overhead);
    assert_eq!(check_size(&largest), Ok(()));
    let sending = tokio::spawn(async move { sender.send(&largest).await.map(|()| largest) });
    let arrived = receiver.receive::<FromEnclave>().await.unwrap().unwrap();
    assert!(arrived == sending.await.unwrap().unwrap());
}

#[tokio::test]
async fn frame_over_the_limit_that_arrives_ends_the_link() {
    let (agent, mut enclave) = tokio::io::duplex(1024);
    let (mut receiver, _) = split(agent);
    let length = u32::try_from(MAX_FRAME + 1).unwrap();
    enclave.write_all(&length.to_be_bytes()).await.unwrap();
    assert!(receiver.receive::<FromEnclave>().await.is_err());
}
