//! `packhouse config`.

use std::process::ExitCode;

use crate::cli::serve::refuse;
use crate::cli::{CONFIG, complain, environment, say};
use crate::server;
use crate::settings::args::ConfigCommand;
use crate::settings::{load, sample};

pub(super) fn run(command: &ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::Schema => say(&format!("{:#}", sample::schema())),
        ConfigCommand::Sample => say(sample::sample().trim_end()),
        ConfigCommand::Show { origin, given } => match load(given, &environment()) {
            Ok(loaded) => say(sample::show(&loaded, *origin).trim_end()),
            Err(problems) => return refuse(&problems),
        },
        ConfigCommand::Check(given) => match load(given, &environment()) {
            Ok(loaded) => {
                let problems = server::check(&loaded.settings);
                if !problems.is_empty() {
                    for problem in &problems {
                        complain(&format!("error: {problem}"));
                    }
                    return ExitCode::from(CONFIG);
                }
                say("the settings are right");
            }
            Err(problems) => {
                refuse(&problems);
                return ExitCode::from(CONFIG);
            }
        },
    }
    ExitCode::SUCCESS
}
