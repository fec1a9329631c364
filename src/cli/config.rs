//! `packhouse config`.

use std::process::ExitCode;

use crate::cli::{CONFIG, complain, environment, refuse, say};
use crate::io::syscalls;
use crate::io::user::is_root;
use crate::server;
use crate::settings::args::ConfigCommand;
use crate::settings::{Loaded, load, sample};

pub(super) fn run(command: &ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::Schema => say(&format!("{:#}", sample::schema())),
        ConfigCommand::Sample => say(sample::sample().trim_end()),
        ConfigCommand::Show { origin, given } => match load(given, &environment()) {
            Ok(loaded) => say(sample::show(&loaded, *origin).trim_end()),
            Err(problems) => return refuse(&problems),
        },
        ConfigCommand::Check(given) => match load(given, &environment()) {
            Ok(loaded) => return check(&loaded),
            Err(problems) => {
                refuse(&problems);
                return ExitCode::from(CONFIG);
            }
        },
    }
    ExitCode::SUCCESS
}

/// Checks as the user that the server would run as: root can read everything.
fn check(loaded: &Loaded) -> ExitCode {
    let user = match server::service_user(&loaded.settings) {
        Ok(user) => user,
        Err(e) if !is_root() => {
            complain(&format!("warning: {e} The files are judged as the calling user."));
            None
        }
        Err(e) => {
            complain(&format!("error: {e}"));
            return ExitCode::from(CONFIG);
        }
    };
    let Some(user) = user else { return ExitCode::from(report(loaded)) };
    let checked = syscalls::as_other_user(
        || user.become_it(),
        |became| match became {
            Ok(()) => report(loaded),
            Err(e) => {
                complain(&format!("error: can't become {user}: {e}"));
                CONFIG
            }
        },
    );
    match checked {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            complain(&format!("error: {e}"));
            ExitCode::from(CONFIG)
        }
    }
}

fn report(loaded: &Loaded) -> u8 {
    let found = server::check(loaded);
    for warning in &found.warnings {
        complain(&format!("warning: {warning}"));
    }
    for problem in &found.problems {
        complain(&format!("error: {problem}"));
    }
    if !found.problems.is_empty() {
        return CONFIG;
    }
    say("the settings are right");
    0
}
