//! The command line: which command, and with what exit code it ends.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::server::control;
use crate::settings::args::{Cli, Command};
use crate::settings::merge::{Problems, Variables};

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

/// The names under which it is rest-server: its own, and that of Debian's package.
const REST_SERVER_NAMES: [&str; 2] = ["rest-server", "restic-rest-server"];

/// Runs the command that the arguments ask for. Called as `rest-server`, that is `serve`.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<_> = arguments.into_iter().collect();
    if let Some(name) = rest_server_name(arguments.first()) {
        if arguments.iter().any(|argument| argument == "--version" || argument == "-v") {
            say(&format!("{name} version packhouse {}", env!("CARGO_PKG_VERSION")));
            return ExitCode::SUCCESS;
        }
        arguments.insert(1, "serve".into());
    }
    match Cli::try_parse_from(arguments) {
        Ok(cli) => match cli.command {
            Command::Serve(given) => serve::run(&given),
            Command::Reload(server) => repo::command(&server, control::Command::Reload),
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

fn rest_server_name(program: Option<&OsString>) -> Option<&'static str> {
    let name = Path::new(program?).file_name()?;
    REST_SERVER_NAMES.into_iter().find(|known| name == *known)
}

/// The variables of the environment that may be settings. A value that is no UTF-8 has a mark in its place, for which it is
/// refused.
fn environment() -> Variables {
    let all = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.to_string_lossy().into_owned())));
    all.filter(|(name, _)| name.starts_with("PACKHOUSE_")).collect()
}

/// Names all problems of settings.
fn refuse(problems: &Problems) -> ExitCode {
    for problem in &problems.all {
        complain(&format!("error: {problem}"));
    }
    ExitCode::from(if problems.only_flags { USAGE } else { CONFIG })
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
