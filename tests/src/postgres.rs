//! A PostgreSQL server of the lab's own, from installed binaries, on a loopback port and a private folder.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. It stops, and its folder goes, when dropped.
pub struct Postgres {
    bin: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
}

/// Where `initdb` is: on PATH, or where Debian puts it.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    // The one on PATH may be a link; its neighbours are where the link points.
    let program = |folder: PathBuf| folder.join("initdb").canonicalize().ok();
    let on_path = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).find_map(program))
        .and_then(|initdb| initdb.parent().map(Path::to_owned))
        .filter(|bin| bin.join("createdb").exists());
    let debian = || {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let mut bins: Vec<PathBuf> = versions.flatten().map(|version| version.path().join("bin")).collect();
        bins.sort();
        bins.into_iter().rfind(|bin| bin.join("initdb").exists())
    };
    on_path.or_else(debian)
}

impl Postgres {
    /// Starts a server with empty databases.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub fn start() -> Result<Self> {
        let bin = installed().context("PostgreSQL is not installed (Debian: postgresql)")?;
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let server = Self { bin, folder, port };
        if rustix::process::geteuid().is_root() {
            // The server refuses to run as root; Debian's package brings this user.
            run(Command::new("chown").arg("postgres").arg(server.folder.path()))?;
        }
        let data = server.data();
        run(server.command("initdb").args(["--auth=trust", "--username=lab", "--no-sync", "-D"]).arg(&data))?;
        let options = format!("-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories=''");
        run(server
            .command("pg_ctl")
            .arg("-D")
            .arg(&data)
            .args(["-o", &options, "-l"])
            .arg(server.log())
            .arg("start"))?;
        answers(port).context("PostgreSQL did not start")?;
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// One of the server's programs, as a user that it runs as.
    fn command(&self, program: &str) -> Command {
        Self::unprivileged(self.bin.join(program))
    }

    fn unprivileged(program: impl AsRef<OsStr>) -> Command {
        if !rustix::process::geteuid().is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
        command.current_dir("/");
        command
    }

    /// Makes an empty database and returns its URL.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn database(&self, name: &str) -> Result<String> {
        let port = self.port.to_string();
        run(self.command("createdb").args(["-h", "127.0.0.1", "-p", &port, "-U", "lab", name]))?;
        Ok(format!("postgres://lab@127.0.0.1:{port}/{name}"))
    }

    /// Puts a pooler (`PgBouncer`) before a database, which gives each transaction whatever connection is free, or each
    /// session one of its own.
    ///
    /// # Errors
    /// When `PgBouncer` is not installed or does not start.
    pub fn pooled(&self, name: &str, by_transaction: bool) -> Result<Pooler> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let (mode, server) = (if by_transaction { "transaction" } else { "session" }, self.port);
        let config = self.folder.path().join(format!("pooler-{port}.ini"));
        let text = format!(
            "[databases]\n{name} = host=127.0.0.1 port={server} dbname={name} user=lab\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n\
             default_pool_size = 2\nignore_startup_parameters = extra_float_digits\n"
        );
        std::fs::write(&config, text)?;
        let mut command = Self::unprivileged("pgbouncer");
        let child = command.arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.context("running pgbouncer (Debian: pgbouncer)")?;
        let pooler = Pooler { child, url: format!("postgres://lab@127.0.0.1:{port}/{name}") };
        answers(port).context("PgBouncer did not start")?;
        Ok(pooler)
    }
}

/// A running pooler. It ends when it is dropped.
pub struct Pooler {
    child: Child,
    url: String,
}

impl Pooler {
    /// The database's URL through it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until somebody listens on a port.
fn answers(port: u16) -> Result<()> {
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if begun.elapsed() > PATIENCE {
            bail!("nobody listens on port {port}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut stop = self.command("pg_ctl");
        // Nothing is kept, so nothing is lost by a stop that fails.
        let _ = stop.arg("-D").arg(self.data()).args(["-m", "immediate", "stop"]).output();
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let name = Path::new(command.get_program()).display().to_string();
    bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim())
}
