//! `custody`: the operator's console as a program. Exit 0: done; 1: refused or failed, with the reason on
//! standard error; 2: usage; 3: what was handed in may be recorded or not.

use std::process::ExitCode;

use clap::Parser;
use console::cli::{self, Arguments};

#[tokio::main]
async fn main() -> ExitCode {
    if let Err(error) = console::privacy::keep_memory_private() {
        eprintln!("custody: this process's memory cannot be kept private: {error}");
        return ExitCode::FAILURE;
    }
    match cli::run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("custody: {error:#}");
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
