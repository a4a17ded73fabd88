//! This node's health as metrics, for Prometheus to fetch from a loopback address
//! (<https://prometheus.io/docs/practices/naming/>). They say what the heartbeat says, and nothing secret. Nobody is
//! alarmed by them here: `runbooks/monitoring/alerts.yml` is.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use ceremonies::charter::Charter;
use ceremonies::ids::NodeIndex;
use ceremonies::wire::bus::Heartbeat;
use metrics::{counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use metrics_util::MetricKindMask;
use tokio::task::JoinSet;
use tracing::error;

use super::intake::Surplus;

/// After how long without news of it a wallet or peer is no longer listed.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// Where the metrics of this node are gathered.
pub(super) struct Metrics {
    recorder: PrometheusRecorder,
    node: NodeIndex,
    surplus: Surplus,
}

impl Metrics {
    /// Serves metrics at an address for as long as the tasks run. An address that cannot be used is reported, and keeps
    /// nobody from signing: Prometheus notices.
    pub(super) fn serve(
        node: NodeIndex,
        at: SocketAddr,
        surplus: Surplus,
        tasks: &mut JoinSet<()>,
    ) -> Option<Self> {
        let builder = PrometheusBuilder::new()
            .with_http_listener(at)
            .add_global_label("node", node.to_string())
            .idle_timeout(MetricKindMask::GAUGE, Some(FORGOTTEN));
        let (recorder, exporter) = match builder.build() {
            Ok(built) => built,
            Err(trouble) => {
                error!(%at, %trouble, "metrics are not served: is the address in use? restart the agent once it is free");
                return None;
            }
        };
        tasks.spawn(async move {
            if let Err(trouble) = exporter.await {
                error!(?trouble, "metrics are no longer served");
            }
        });
        with_local_recorder(&recorder, describe);
        Some(Self { recorder, node, surplus })
    }

    /// Takes what the node says of itself.
    pub(super) fn take(&self, charter: &Charter, heartbeat: &Heartbeat) {
        with_local_recorder(&self.recorder, || {
            self.of_node(charter, heartbeat);
            of_process();
        });
    }

    fn of_node(&self, charter: &Charter, heartbeat: &Heartbeat) {
        gauge!("custody_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        gauge!("custody_heartbeat_timestamp_seconds").set(seconds(heartbeat.time_ms));
        gauge!("custody_charter_threshold").set(f64::from(charter.threshold()));
        for (part, trouble) in parts(heartbeat) {
            gauge!("custody_part_works", "part" => part).set(yes(trouble.is_empty()));
        }
        let hears = |peer: NodeIndex| heartbeat.peers.iter().any(|heard| heard.node == u32::from(peer));
        for peer in charter.members().into_iter().filter(|peer| *peer != self.node) {
            gauge!("custody_peer_heard", "peer" => peer.to_string()).set(yes(hears(peer)));
        }
        for (peer, bytes) in self.surplus.so_far().filter(|(peer, _)| charter.node(*peer).is_some()) {
            counter!("custody_peer_surplus_bytes_total", "peer" => peer.to_string()).absolute(bytes);
        }
        let in_use = heartbeat.shares.iter().filter(|share| share.state == "current");
        for share in in_use {
            gauge!("custody_wallet_generation", "wallet" => share.wallet.clone())
                .set(f64::from(share.generation));
        }
        counter!("custody_log_entries_total").absolute(heartbeat.entries);
        gauge!("custody_log_ceremonies").set(f64::from(heartbeat.ceremonies));
        gauge!("custody_log_forks").set(count(heartbeat.forked.len()));
        for (name, at) in [
            ("custody_last_round_timestamp_seconds", heartbeat.last_round_ms),
            ("custody_last_signature_timestamp_seconds", heartbeat.last_signature_ms),
        ] {
            // 0 stands for never.
            if at > 0 {
                gauge!(name).set(seconds(at));
            }
        }
    }
}

/// What a node needs, and what is wrong with it.
fn parts(heartbeat: &Heartbeat) -> [(&'static str, &str); 5] {
    [
        ("enclave", heartbeat.enclave.as_ref().map_or("none", |enclave| &enclave.trouble)),
        ("kms", &heartbeat.kms_trouble),
        ("store", &heartbeat.store_trouble),
        ("stream", &heartbeat.stream_trouble),
        ("vault", &heartbeat.vault_trouble),
    ]
}

fn describe() {
    describe_gauge!("custody_build_info", "The version of the agent; always 1.");
    describe_gauge!("custody_heartbeat_timestamp_seconds", "When the agent last looked at itself.");
    describe_gauge!("custody_charter_threshold", "How many shares sign, by the charter in force.");
    describe_gauge!("custody_part_works", "1 while a part that the node needs works, 0 while it does not.");
    describe_gauge!(
        "custody_peer_heard",
        "1 while another node's heartbeats arrive here, 0 while they do not."
    );
    describe_counter!(
        "custody_peer_surplus_bytes_total",
        "Bytes dropped unread because another node sent more than it may."
    );
    describe_gauge!("custody_wallet_generation", "The generation whose share this node has in use.");
    describe_counter!("custody_log_entries_total", "Entries taken since the agent was started.");
    describe_gauge!("custody_log_ceremonies", "Ceremonies in this node's record.");
    describe_gauge!("custody_log_forks", "Ceremonies whose logs fork, as far as this node has heard.");
    describe_gauge!(
        "custody_last_round_timestamp_seconds",
        "When the enclave last told of a protocol round."
    );
    describe_gauge!("custody_last_signature_timestamp_seconds", "When the enclave last signed.");
    describe_gauge!("process_resident_memory_bytes", "Resident memory of the agent.");
    describe_gauge!("process_open_fds", "Open file descriptors of the agent.");
}

/// What the kernel says of this process (proc(5)). Where it says nothing, nothing is reported.
fn of_process() {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let resident = pages.and_then(|pages| pages.split_whitespace().nth(1)?.parse::<u32>().ok());
    if let (Some(pages), Ok(size)) = (resident, u32::try_from(rustix::param::page_size())) {
        gauge!("process_resident_memory_bytes").set(f64::from(pages) * f64::from(size));
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(count(open.count()));
    }
}

fn yes(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// A time in milliseconds, in seconds: exact to the millisecond for 285,000 years.
#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn count(things: usize) -> f64 {
    u32::try_from(things).map_or(f64::INFINITY, f64::from)
}
