//! `custody`: the operator's console as a program. Exit 0: done; 1: refused or failed, with the reason on standard
//! error; 2: usage error; 3: what was submitted may or may not be recorded.

use std::process::ExitCode;

use ceremonies::text::printable;
use clap::Parser;
use console::cli::{self, Arguments};

#[tokio::main]
async fn main() -> ExitCode {
    if let Err(error) = console::privacy::keep_memory_private() {
        cli::note(&format!("custody: this process's memory cannot be kept private: {error}"));
        return ExitCode::FAILURE;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => return refused(&usage),
    };
    match cli::run(arguments).await {
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
    let text = usage.render().to_string();
    if printable(&text) == text {
        // Perhaps nobody reads it, as behind `| head`.
        let _ = usage.print();
    } else {
        cli::note(text.trim_end());
    }
    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
}
