//! moto, an independent server that speaks S3, from PyPI in a folder of its own.
//!
//! It is here to disagree: if the lab's own [`s3`](crate::s3) and a vault were wrong in the same way, it would show. It
//! enforces credentials and keeps versions and locks, but lets locks be shortened.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// The release that is installed.
const VERSION: &str = "5.2.5";
/// How long the server may take to start: it loads a few hundred Python modules.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many requests it accepts from anyone: those of [`SETUP`], which ends that.
const FREE_REQUESTS: &str = "1000";

/// Makes two buckets and two users, prints the users' keys and turns credentials on.
const SETUP: &str = r#"
import json, sys, urllib.request
import boto3
url = sys.argv[1]
root = dict(endpoint_url=url, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
iam, s3 = boto3.client("iam", **root), boto3.client("s3", **root)
place = {"LocationConstraint": "eu-central-1"}
s3.create_bucket(Bucket="locked", CreateBucketConfiguration=place, ObjectLockEnabledForBucket=True)
s3.create_bucket(Bucket="versioned", CreateBucketConfiguration=place)
s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
keys = {}
writer = ["PutObject", "GetBucketVersioning", "GetBucketObjectLockConfiguration"]
for user, actions in {"writer": writer, "owner": ["*"]}.items():
    iam.create_user(UserName=user)
    statement = {"Effect": "Allow", "Action": ["s3:" + action for action in actions], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=user, PolicyName=user, PolicyDocument=policy)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    keys[user] = {"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
headers = {"Content-Type": "text/plain"}
urllib.request.urlopen(urllib.request.Request(url + "/moto-api/reset-auth", data=b"0", headers=headers))
print(json.dumps(keys))
"#;

/// A user's access key.
#[derive(Debug, Clone, Deserialize)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// The secret that requests are signed with.
    pub secret: String,
}

#[derive(Deserialize)]
struct Keys {
    writer: Key,
    owner: Key,
}

/// A running server with the buckets `locked` and `versioned` in `eu-central-1`. It stops when
/// dropped.
pub struct Moto {
    process: Child,
    url: String,
    keys: Keys,
}

impl Moto {
    /// Starts a server, installed into `tools` on first use. It blocks, so do not call it on a thread that others need.
    ///
    /// # Errors
    /// When Python cannot run or install it, or it does not start.
    pub fn start(tools: &Path) -> Result<Self> {
        let python = installed(tools).context("getting moto: python3 with venv and pip is needed")?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let process = Command::new(&python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", FREE_REQUESTS)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("running moto")?;
        let keys = Keys { writer: Key::none(), owner: Key::none() };
        let mut server = Self { process, url: format!("http://127.0.0.1:{port}"), keys };
        server.wait(port)?;
        let keys = run(Command::new(&python).args(["-c", SETUP, &server.url])).context("setting moto up")?;
        server.keys = serde_json::from_slice(&keys).context("moto's keys")?;
        Ok(server)
    }

    fn wait(&mut self, port: u16) -> Result<()> {
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("moto exited with {status}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("moto did not start");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The key of a user who may write, and nothing else.
    #[must_use]
    pub fn writer(&self) -> &Key {
        &self.keys.writer
    }

    /// The key of a user who may do everything.
    #[must_use]
    pub fn owner(&self) -> &Key {
        &self.keys.owner
    }
}

impl Key {
    fn none() -> Self {
        Self { id: String::new(), secret: String::new() }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Nothing is kept, so nothing is lost if the server is already gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The interpreter of the environment with moto in it.
fn installed(tools: &Path) -> Result<PathBuf> {
    let environment = tools.join(format!("moto-{VERSION}"));
    let python = environment.join("bin").join("python");
    if python.exists() {
        return Ok(python);
    }
    std::fs::create_dir_all(tools)?;
    // Under another name first: another process may be installing too, and must never run half of it.
    let unfinished = tempfile::tempdir_in(tools)?;
    let partial = unfinished.path().join("moto");
    run(Command::new("python3").args(["-m", "venv"]).arg(&partial))?;
    run(Command::new(partial.join("bin").join("python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"])
        .arg(format!("moto[s3,server]=={VERSION}")))?;
    if let Err(error) = std::fs::rename(&partial, &environment)
        && !python.exists()
    {
        return Err(error).context("moving moto into place");
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("running {}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let name = command.get_program().display().to_string();
    bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim())
}
