//! tmp
use crate::config::Cluster;
/// tmp
pub async fn run(_c: Cluster) -> anyhow::Result<()> {
    Ok(())
}
