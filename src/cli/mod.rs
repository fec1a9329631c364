//! The command line: which command, and with what exit code it ends.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::logging;
use crate::server::drain::Outcome;
use crate::server::{self, control};
use crate::settings::Settings;
use crate::settings::args::{Cli, Command, RepoCommand, StateArgs};

/// It failed while running.
const FAILED: u8 = 1;
/// The server could not be started.
const NOT_STARTED: u8 = 3;

/// Runs the command that the arguments ask for. Called as `rest-server`, that is `serve`.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments: Vec<_> = arguments.into_iter().collect();
    if is_rest_server(arguments.first()) && arguments.get(1).is_none_or(|first| first != "--version") {
        arguments.insert(1, "serve".into());
    }
    match Cli::try_parse_from(arguments) {
        Ok(cli) => match cli.command {
            Command::Serve(args) => serve(&args.settings()),
            Command::Repo { command: RepoCommand::Resume(state) } => resume(&state),
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

fn serve(settings: &Settings) -> ExitCode {
    let Ok(_log) = logging::init(settings.debug) else { return ExitCode::from(NOT_STARTED) };
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    match server::run(settings) {
        Ok(Outcome::Stopped) => ExitCode::SUCCESS,
        Ok(Outcome::StoppedAtOnce | Outcome::Failed) => ExitCode::from(FAILED),
        Err(e) => {
            log::error!("{e}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command that speaks to its user")]
fn resume(state: &StateArgs) -> ExitCode {
    let folder = state.state_dir();
    match control::resume(&folder) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!(
                "no packhouse answers in {}: {e}. Is it running, and was it started with this --path or --state-dir?",
                folder.display()
            );
            ExitCode::from(FAILED)
        }
    }
}
