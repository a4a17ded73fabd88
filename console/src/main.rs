//! `custody`: the operator's console as a program. Exit 0: done; 1: refused or failed, with the reason on standard
//! error; 2: usage error; 3: what was submitted may or may not be recorded.

use std::process::ExitCode;

use clap::Parser;
use console::cli::{self, Arguments};

fn main() -> ExitCode {
    if let Err(error) = console::privacy::keep_memory_private() {
        cli::note(&format!("custody: this process's memory cannot be kept private: {error}"));
        return ExitCode::FAILURE;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => return refused(&usage),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            cli::note(&format!("custody: no threads can be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(cli::run(arguments));
    // An SSH agent or a plugin that never answers must not keep a program that was told to end.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = cli::exit_code(&error);
            if code != 0 {
                cli::note(&format!("custody: {error:#}"));
            }
            ExitCode::from(code)
        }
    }
}

/// What clap prints: help on standard output, or an error about the arguments, which may hold anything.
fn refused(usage: &clap::Error) -> ExitCode {
    if usage.use_stderr() {
        cli::note(usage.render().to_string().trim_end());
    } else {
        // Perhaps nobody reads it, as behind `| head`.
        let _ = usage.print();
    }
    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
}
