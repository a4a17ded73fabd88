//! Frames of the link, as either side reads them from the other.
#![no_main]

use enclave_link::message::{FromEnclave, ToEnclave};
use enclave_link::split;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tokio::io::{join, sink};
use tokio::runtime::Builder;

fuzz_target!(|data: &[u8]| {
    let runtime = Builder::new_current_thread().build().expect("a runtime without I/O");
    runtime.block_on(async {
        receive_all::<ToEnclave>(data).await;
        receive_all::<FromEnclave>(data).await;
    });
});

/// Receives until the end or the first refusal. What was received fits into what it came in, and is received
/// again when it is sent on.
async fn receive_all<M: Message + Default + PartialEq>(data: &[u8]) {
    let (mut receiver, _) = split(join(data, sink()));
    let mut size = 0;
    while let Ok(Some(message)) = receiver.receive::<M>().await {
        let (mut there, here) = tokio::io::duplex(2 * data.len() + 64);
        let (_, mut sender) = split(&mut there);
        sender.send(&message).await.expect("room for what was received");
        let (mut again, _) = split(here);
        let again = again.receive::<M>().await.expect("a frame that was just written");
        assert!(again.as_ref() == Some(&message), "a message changed on its way");
        size += 4;
        assert!(size <= data.len(), "more frames than bytes");
    }
}
