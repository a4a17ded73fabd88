//! What is known of a node, in front of everything.

use ceremonies::ids::NodeIndex;

use super::model::Model;

/// All that is known of a node now, which a line of the screen may cut.
pub(super) fn text(model: &Model, node: NodeIndex) -> String {
    let nodes = model.health().nodes;
    let Some(status) = nodes.iter().find(|status| status.node == node) else {
        return "This node is not in the charter any more.".to_owned();
    };
    let heard = match status.heard_ms_ago {
        Some(ms) => format!("{}.{} s ago", ms / 1000, ms % 1000 / 100),
        None => "not known".to_owned(),
    };
    let shares = match status.shares.as_deref() {
        None => "not known".to_owned(),
        Some([]) => "none".to_owned(),
        Some(shares) => shares.join(", "),
    };
    let mut text = format!(
        "{} {}\n\nattestation: {}\nshares: {shares}\nlast heartbeat: {heard}\nprogram: {}",
        status.level.mark(),
        status.summary,
        status.attestation,
        if status.build.is_empty() { "not known" } else { &status.build },
    );
    if let Some(started) = status.started {
        text += &format!("\nagent runs since {started}");
    }
    for past in &status.lately {
        text += &format!("\nover: {past}");
    }
    if let Some(accused) = &status.accused {
        text += &format!("\n{accused}");
    }
    if let Some(check) = status.check {
        text += &format!("\n\nThe runbook says:\n“{}”", check.what_to_do());
    }
    text
}
