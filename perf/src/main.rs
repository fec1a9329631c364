//! Measures packhouse and its rivals.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod compare;
mod http;
mod load;
mod logins;
mod process;
mod report;
mod restic;
mod rivals;
mod scenario;

use report::Verdict;

/// Exit code if a goal was missed; 1 is a failure, 2 a wrong command line.
const MISSED: u8 = 3;

/// Measures packhouse and its rivals.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every scenario against every server, in turns. Exit code 3 if a goal was missed.
    Compare {
        /// The packhouse program.
        #[arg(long)]
        server: PathBuf,
        /// Scenarios whose names contain this.
        #[arg(long, default_value = "")]
        only: String,
        /// Rivals beside rest-server, separated by commas: rclone, rustic_server, pyrestserver, monoio-http, nginx, or all of them.
        #[arg(long, value_delimiter = ',')]
        rivals: Vec<String>,
        /// Rounds of each: 5, or 2 for a look.
        #[arg(long)]
        rounds: Option<usize>,
        /// Fewer requests, for a look.
        #[arg(long)]
        quick: bool,
        /// Also packhouse without what makes it fast, one by one, as the scenarios say.
        #[arg(long)]
        variants: bool,
        /// A folder on a real disk.
        #[arg(long, default_value = "/var/tmp")]
        disk: PathBuf,
        /// Where the scenarios are.
        #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"))]
        scenarios: PathBuf,
        /// Where the results go.
        #[arg(long, default_value = "target/perf-results")]
        out: PathBuf,
    },
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
        Command::Compare { server, only, rivals, rounds, quick, variants, disk, scenarios, out } => {
            let plan = compare::Plan {
                packhouse: server,
                scenarios,
                only,
                rivals,
                rounds: rounds.unwrap_or(if quick { 2 } else { 5 }),
                quick,
                variants,
                disk,
                out,
            };
            let done = compare::run(&plan);
            eprintln!("results are in {}", plan.out.display());
            match done {
                Ok(Verdict { failed: true, .. }) => {
                    Err(std::io::Error::other("requests failed, or there is no rest-server"))
                }
                Ok(Verdict { missed: true, .. }) => return ExitCode::from(MISSED),
                Ok(_) => Ok(()),
                Err(e) => Err(e),
            }
        }
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
