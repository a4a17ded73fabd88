//! Where an enclave listens for its agent, and the loop that serves it.

use std::io;
use std::path::PathBuf;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};
use tracing::{info, warn};

use crate::shell::Enclave;

/// Where the agent finds the enclave.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// A vsock port, for every context id that this machine has.
    Vsock(u32),
    /// A unix socket; a file of that name is replaced.
    Unix(PathBuf),
}

enum Listener {
    Vsock(VsockListener),
    Unix(UnixListener),
}

/// Serves one agent connection after the other until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot listen on the endpoint.
pub async fn serve(mut enclave: Enclave, endpoint: Endpoint) -> io::Result<()> {
    let listener = match &endpoint {
        Endpoint::Vsock(port) => Listener::Vsock(VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port))?),
        Endpoint::Unix(path) => {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            Listener::Unix(UnixListener::bind(path)?)
        }
    };
    info!(?endpoint, "enclave listens");
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = accept(&mut enclave, listener) => served,
        _ = terminate.recv() => Ok(()),
        stopped = tokio::signal::ctrl_c() => stopped,
    }
}

async fn accept(enclave: &mut Enclave, listener: Listener) -> io::Result<()> {
    loop {
        let ended = match &listener {
            Listener::Vsock(listener) => enclave.serve(listener.accept().await?.0).await,
            Listener::Unix(listener) => enclave.serve(listener.accept().await?.0).await,
        };
        match ended {
            Ok(()) => info!("agent disconnected"),
            Err(error) => warn!(%error, "connection to the agent failed"),
        }
    }
}
