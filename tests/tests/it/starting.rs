//! What a person meets who starts a lab where something is in its way.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use lab::cluster::{Cluster, Plan, found};

/// Well under what the broker itself is waited for.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn port_of_the_broker_that_something_else_has_is_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan {
        folder: folder.path().to_owned(),
        nodes: 3,
        threshold: 2,
        stores: BTreeMap::new(),
        programs: lab::programs::build().unwrap(),
        machines: None,
    };
    let layout = found(&plan).unwrap();
    let settings: toml::Table =
        std::fs::read_to_string(layout.folder().join("lab.toml")).unwrap().parse().unwrap();
    let port = u16::try_from(settings["nats_port"].as_integer().unwrap()).unwrap();
    let _silent = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let begun = Instant::now();
    let refused = format!("{:#}", Cluster::start(&plan).await.err().unwrap());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(refused.contains(&format!("port {port}")) && refused.contains("stop"), "{refused}");
}
