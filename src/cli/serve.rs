//! `packhouse serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::{FAILED, NOT_STARTED, complain, environment, refuse};
use crate::io::signal::{self, Caught};
use crate::logging;
use crate::server;
use crate::server::drain::Outcome;
use crate::settings::given::Given;
use crate::settings::{Loaded, load};

pub(super) fn run(given: &Given) -> ExitCode {
    let caught = match signal::catch() {
        Ok(caught) => caught,
        Err(e) => {
            complain(&format!("error: signals can't be caught: {e}"));
            return ExitCode::from(NOT_STARTED);
        }
    };
    match load(given, &environment()) {
        Ok(loaded) => serve(loaded, given, caught),
        Err(problems) => refuse(&problems),
    }
}

fn serve(loaded: Loaded, given: &Given, caught: Caught) -> ExitCode {
    // Before there is any thread but this one, that of the log included.
    let confined = server::confine(&loaded, value_files());
    let Ok(_log) = logging::init(loaded.settings.debug) else { return ExitCode::from(NOT_STARTED) };
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    for note in &loaded.notes {
        log::warn!("{note}");
    }
    let given = given.clone();
    // What SIGHUP reads: the same sources again.
    let again =
        move || load(&given, &environment()).map_err(|e| e.all.iter().map(ToString::to_string).collect());
    match confined.and_then(|confined| server::run(loaded, confined, Box::new(again), caught)) {
        Ok(Outcome::Stopped) => ExitCode::SUCCESS,
        Ok(Outcome::StoppedAtOnce | Outcome::Failed) => ExitCode::from(FAILED),
        Err(e) => {
            log::error!("{e}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

/// Files that hold the values of variables.
fn value_files() -> Vec<PathBuf> {
    environment()
        .into_iter()
        .filter(|(name, _)| name.ends_with("_FILE"))
        .map(|(_, path)| path.into())
        .collect()
}
