//! `packhouse user`.

use std::io::{self, BufRead as _};
use std::path::Path;
use std::process::ExitCode;

use crate::auth::edit::{Change, EditError, edit, hash, users};
use crate::cli::{FAILED, complain, environment, refuse, say};
use crate::settings::args::{PasswordArgs, UserCommand};

pub(super) fn run(command: &UserCommand) -> ExitCode {
    let (UserCommand::Add(PasswordArgs { file, .. })
    | UserCommand::Passwd(PasswordArgs { file, .. })
    | UserCommand::Del { file, .. }
    | UserCommand::List { file, .. }) = command;
    let file = match file.file(&environment()) {
        Ok(file) => file,
        Err(problems) => return refuse(&problems),
    };
    let done = match command {
        UserCommand::Add(args) => set(&file, args, |hash| Change::Add(hash)),
        UserCommand::Passwd(args) => set(&file, args, |hash| Change::Replace(hash)),
        UserCommand::Del { user, .. } => edit(&file, user, &Change::Remove).map_err(|e| e.to_string()),
        UserCommand::List { json, .. } => list(users(&file), *json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            complain(&format!("error: {text}"));
            ExitCode::from(FAILED)
        }
    }
}

fn set(file: &Path, args: &PasswordArgs, change: impl FnOnce(&str) -> Change<'_>) -> Result<(), String> {
    let password = password(args).map_err(|e| format!("the password can't be read: {e}"))?;
    let hash = hash(&password, args.cost).map_err(|e| e.to_string())?;
    edit(file, &args.user, &change(&hash)).map_err(|e| e.to_string())
}

/// A password from the terminal, asked for twice, or one line of standard input. Never from the command line, which all
/// users of a machine can read.
fn password(args: &PasswordArgs) -> io::Result<String> {
    if args.stdin {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\n', '\r']).to_owned());
    }
    let password = rpassword::prompt_password(format!("Password of {}: ", args.user))?;
    if rpassword::prompt_password("Again: ")? != password {
        return Err(io::Error::other("the two are not the same"));
    }
    Ok(password)
}

fn list(users: Result<Vec<String>, EditError>, json: bool) -> Result<(), String> {
    let users = users.map_err(|e| e.to_string())?;
    if json {
        say(&serde_json::json!(users).to_string());
    } else {
        say(&users.join("\n"));
    }
    Ok(())
}
