//! Compiles `proto/link.proto`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    prost_build::Config::new()
        // Written by hand, so that no secret is ever printed.
        .skip_debug(["custody.link.Credentials"])
        .compile_fds(protox::compile(["proto/link.proto"], ["proto"])?)?;
    Ok(())
}
