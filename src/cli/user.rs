//! `packhouse user`.

use std::io::{self, BufRead as _};
use std::path::Path;
use std::process::ExitCode;

use crate::auth::edit::{Change, EditError, edit, hash, users};
use crate::cli::{FAILED, complain, environment, refuse, say};
use crate::io::user::{ServiceUser, is_root};
use crate::settings::args::{PasswordArgs, UserCommand};

pub(super) fn run(command: &UserCommand) -> ExitCode {
    let (UserCommand::Add(PasswordArgs { file, .. })
    | UserCommand::Passwd(PasswordArgs { file, .. })
    | UserCommand::Del { file, .. }
    | UserCommand::List { file, .. }) = command;
    let (file, reader) = match file.file(&environment()) {
        Ok(file) => file,
        Err(problems) => return refuse(&problems),
    };
    let done = match command {
        UserCommand::Add(args) => add(&file, args, reader.as_deref()),
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

/// A new file can be read by the user that the server runs as, too.
fn add(file: &Path, args: &PasswordArgs, reader: Option<&str>) -> Result<(), String> {
    let is_new = !file.exists();
    set(file, args, |hash| Change::Add(hash))?;
    match reader.filter(|_| is_new && is_root()) {
        Some(name) => ServiceUser::find(name)
            .and_then(|user| user.let_read(file))
            .map_err(|e| format!("{}: {name} can't be given the right to read it: {e}", file.display())),
        None => Ok(()),
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
