//! Compiles the wire types in `proto/`.

use std::error::Error;
use std::fs;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = fs::read_dir("proto")?.map(|file| file.map(|f| f.path())).collect::<Result<Vec<_>, _>>()?;
    prost_build::Config::new().compile_fds(protox::compile(files, ["proto"])?)?;
    Ok(())
}
