//! Says before anything is built which tools the tests would miss. Cargo runs this first, for it rests on nothing.

use std::path::{Path, PathBuf};

/// What tests start that is not built here, and the Debian package that has it.
const TOOLS: [(&str, &str); 10] = [
    ("age", "age"),
    ("faketime", "faketime"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("openssl", "openssl"),
    ("pgbouncer", "pgbouncer"),
    ("prometheus", "prometheus"),
    ("python3", "python3-pip"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("ssh-keygen", "openssh-client"),
];

/// Where Debian has PostgreSQL's programs: not on the path.
const POSTGRESQL: &str = "/usr/lib/postgresql";

fn main() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    println!("cargo::rerun-if-env-changed=PATH");
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        // Its time changes when a tool is installed.
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    let is_there = |tool: &str| folders.iter().any(|folder| folder.join(tool).is_file());
    let mut packages: Vec<&str> =
        TOOLS.into_iter().filter(|(tool, _)| !is_there(tool)).map(|(_, package)| package).collect();
    if !is_there("initdb") && !Path::new(POSTGRESQL).is_dir() {
        packages.push("postgresql");
    }
    if !packages.is_empty() {
        println!(
            "cargo::warning=`cargo test` will skip what needs more tools: on Debian, apt-get install {}",
            packages.join(" ")
        );
    }
    if !is_there("vhost-device-vsock") {
        println!(
            "cargo::warning=`cargo test` will skip the virtual machines: cargo install --locked vhost-device-vsock \
             --version 0.3.0"
        );
    }
}
