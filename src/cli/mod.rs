//! The command line: which command, and with what exit code it ends.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::settings::args::{Cli, Command};
use crate::settings::merge::Variables;

mod config;
mod repo;
mod serve;
mod user;

/// It failed while running.
const FAILED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;
/// The server could not be started.
const NOT_STARTED: u8 = 3;
/// Damaged objects were found.
const DAMAGED: u8 = 4;
/// The settings are wrong (`EX_CONFIG` of sysexits.h).
const CONFIG: u8 = 78;

/// Runs the command that the arguments ask for. Called as `rest-server`, that is `serve`.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<_> = arguments.into_iter().collect();
    if is_rest_server(arguments.first()) && arguments.get(1).is_none_or(|first| first != "--version") {
        arguments.insert(1, "serve".into());
    }
    match Cli::try_parse_from(arguments) {
        Ok(cli) => match cli.command {
            Command::Serve(given) => serve::run(&given),
            Command::Config { command } => config::run(&command),
            Command::User { command } => user::run(&command),
            Command::Repo { command } => repo::run(command),
        },
        Err(e) => {
            let code = e.exit_code();
            // Help that can't be printed has nowhere to go.
            e.print().ok();
            u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn is_rest_server(program: Option<&OsString>) -> bool {
    program.and_then(|program| Path::new(program).file_name()).is_some_and(|name| name == "rest-server")
}

/// The variables of the environment that may be settings.
fn environment() -> Variables {
    let all = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    all.filter(|(name, _)| name.starts_with("PACKHOUSE_")).collect()
}

/// Speaks to the user of a command.
#[expect(clippy::print_stdout, reason = "a command that speaks to its user")]
fn say(text: &str) {
    println!("{text}");
}

/// Tells the user of a command what went wrong.
#[expect(clippy::print_stderr, reason = "a command that speaks to its user")]
fn complain(text: &str) {
    eprintln!("{text}");
}
