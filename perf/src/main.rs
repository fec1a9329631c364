//! Measures packhouse and its rivals.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod http;
mod logins;
mod process;

/// Measures packhouse and its rivals.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What a flood of wrong passwords costs a user who is logged in.
    LoginFlood {
        /// The packhouse program.
        #[arg(long)]
        server: PathBuf,
        /// Seconds quiet, and as many under the flood.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Whether users can be told from strangers by the time that a wrong login takes.
    LoginEnumeration {
        /// The packhouse program.
        #[arg(long)]
        server: PathBuf,
        /// Wrong logins of each kind.
        #[arg(long, default_value_t = 100)]
        rounds: u64,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::LoginFlood { server, seconds } => logins::flood(&server, seconds),
        Command::LoginEnumeration { server, rounds } => logins::enumeration(&server, rounds),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
