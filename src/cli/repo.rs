//! `packhouse repo`.

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::cli::{DAMAGED, FAILED, complain, environment, refuse, say};
use crate::io::syscalls;
use crate::server::control;
use crate::server::inventory::{self, Inventory};
use crate::server::upkeep::{self, Report, Step, Sums, Verify};
use crate::settings::args::{RepoCommand, ServerArgs};
use crate::types::{RepoPath, escaped};

/// Rest between two questions whether a count has ended.
const COUNT_PAUSE: Duration = Duration::from_millis(200);

/// `repo`
pub(super) fn run(command: RepoCommand) -> ExitCode {
    // Verification gives way to others: whether it can is found out while there is one thread.
    syscalls::find_out();
    let folder = match &command {
        RepoCommand::Resume(server) => return self::command(server, control::Command::Resume),
        RepoCommand::Recount(server) => return recount(server),
        RepoCommand::List { folder, .. }
        | RepoCommand::Stat { folder, .. }
        | RepoCommand::Verify { folder, .. }
        | RepoCommand::Sweep { folder, .. } => folder.locate(&environment()),
    };
    let (path, depth) = match folder {
        Ok(folder) => folder,
        Err(problems) => return refuse(&problems),
    };
    let done = match command {
        RepoCommand::List { json, .. } => list(&path, depth, json),
        RepoCommand::Stat { repo, json, .. } => stat(&path, &repo, json),
        RepoCommand::Verify { repo, quarantine, older_than, rate, json, .. } => {
            verify(&Verify { path, repo, depth, quarantine, quiet: older_than, rate }, json)
        }
        RepoCommand::Sweep { older_than, json, .. } => sweep(&path, depth, older_than, json),
        RepoCommand::Resume(_) | RepoCommand::Recount(_) => Ok(ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(e) => {
            complain(&format!("error: {e}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Tells a running server something, and the user what it replies.
pub(super) fn command(server: &ServerArgs, command: control::Command) -> ExitCode {
    match server.state_dir(&environment()) {
        Ok(folder) => ask(&folder, command).map_or_else(
            |failed| failed,
            |said| {
                say(&said);
                ExitCode::SUCCESS
            },
        ),
        Err(problems) => refuse(&problems),
    }
}

fn ask(folder: &Path, command: control::Command) -> Result<String, ExitCode> {
    match control::tell(folder, command) {
        Ok(Ok(said)) => return Ok(said),
        Ok(Err(said)) => said.lines().for_each(|line| complain(&format!("error: {line}"))),
        Err(e) => complain(&format!(
            "no packhouse answers in {}: {e}. Is it running, and was it started with this --path or --state-dir?",
            folder.display()
        )),
    }
    Err(ExitCode::from(FAILED))
}

/// `repo recount`: waits for the end of the count.
fn recount(server: &ServerArgs) -> ExitCode {
    let folder = match server.state_dir(&environment()) {
        Ok(folder) => folder,
        Err(problems) => return refuse(&problems),
    };
    let counted = ask(&folder, control::Command::Recount).and_then(|said| {
        say(&said);
        while ask(&folder, control::Command::Counting)? == "yes" {
            std::thread::sleep(COUNT_PAUSE);
        }
        Ok(())
    });
    match counted {
        Ok(()) => {
            say("the count has ended: the server's log tells what was found");
            ExitCode::SUCCESS
        }
        Err(failed) => failed,
    }
}

fn list(path: &Path, depth: usize, json: bool) -> io::Result<ExitCode> {
    let all = inventory::all(path, depth)?;
    if json {
        say(&Value::Array(all.iter().map(as_json).collect()).to_string());
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("{:>12} {:>10}  repository", "bytes", "objects"));
    for Inventory { repo, total, .. } in &all {
        say(&format!("{:>12} {:>10}  {repo}", total.bytes, total.objects));
    }
    Ok(ExitCode::SUCCESS)
}

fn stat(path: &Path, repo: &RepoPath, json: bool) -> io::Result<ExitCode> {
    let Some(found) = inventory::one(path, repo)? else {
        complain(&format!("error: there is no repository {repo} in {}", path.display()));
        return Ok(ExitCode::from(FAILED));
    };
    if json {
        say(&as_json(&found).to_string());
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("{:>12} {:>10}  type", "bytes", "objects"));
    for (name, sum) in &found.parts {
        say(&format!("{:>12} {:>10}  {name}", sum.bytes, sum.objects));
    }
    say(&format!("{:>12} {:>10}  all of {repo}", found.total.bytes, found.total.objects));
    Ok(ExitCode::SUCCESS)
}

fn verify(what: &Verify, as_json: bool) -> io::Result<ExitCode> {
    let bar = ProgressBar::hidden();
    if io::stderr().is_terminal() {
        let all = match &what.repo {
            Some(repo) => inventory::one(&what.path, repo)?.into_iter().collect(),
            None => inventory::all(&what.path, what.depth)?,
        };
        bar.set_length(all.iter().map(|one| one.total.bytes).sum());
        bar.set_style(
            ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left")
                .map_err(io::Error::other)?,
        );
        bar.set_draw_target(ProgressDrawTarget::stderr());
    }
    let mut found = Vec::new();
    let sums = upkeep::verify(what, |step| match step {
        Step::Read(bytes) => bar.inc(bytes),
        Step::Found { path, verdict, quarantine } => {
            let path = escaped(&path);
            let (quarantined, left) = match quarantine {
                None => (None, None),
                Some(Ok(path)) => (Some(escaped(&path)), None),
                Some(Err(why)) => {
                    let advice = if why.is_young() { " (see --older-than)" } else { "" };
                    (None, Some(why.text(what.quiet) + advice))
                }
            };
            if !as_json {
                let now = quarantined.as_ref().map(|path| format!(", now {path}"));
                let stays = left.as_ref().map(|why| format!(", not renamed: {why}"));
                let aside = now.or(stays).unwrap_or_default();
                bar.suspend(|| say(&format!("{}: {path}{aside}", verdict.word())));
            }
            found.push(
                json!({"path": path, "verdict": verdict.word(), "quarantined": quarantined, "not_renamed": left}),
            );
        }
        Step::Failed(why) => bar.suspend(|| complain(&format!("error: {why}"))),
    })?;
    bar.finish_and_clear();
    let Sums { objects, bytes, damaged, misplaced, failed } = sums;
    if as_json {
        let all = json!({
            "objects": objects, "bytes": bytes, "damaged": damaged, "misplaced": misplaced, "failed": failed, "found": found,
        });
        say(&all.to_string());
    } else {
        say(&format!(
            "{objects} objects, {bytes} bytes: {damaged} damaged, {misplaced} misplaced, {failed} folders or objects could not be looked at"
        ));
    }
    Ok(match (damaged + misplaced, failed) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(FAILED),
        _ => ExitCode::from(DAMAGED),
    })
}

fn sweep(path: &Path, depth: usize, older_than: Duration, as_json: bool) -> io::Result<ExitCode> {
    let Report { removed, foreign, damaged, links, failed } = upkeep::sweep(path, depth, older_than)?;
    if as_json {
        let all = json!({"removed": removed, "left_of_rest_server": foreign, "quarantined": damaged, "links": links, "failed": failed});
        say(&all.to_string());
    } else {
        say(&format!("removed {removed} leftovers of interrupted uploads"));
        say(&format!("left {foreign} of rest-server that are too young, {damaged} objects in quarantine"));
    }
    if failed > 0 {
        complain(&format!("error: {failed} folders or files could not be looked at or removed"));
        return Ok(ExitCode::from(FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(inventory: &Inventory) -> Value {
    let parts: Map<String, Value> = inventory
        .parts
        .iter()
        .map(|(name, sum)| ((*name).to_owned(), json!({"objects": sum.objects, "bytes": sum.bytes})))
        .collect();
    json!({
        "repo": inventory.repo.to_string(),
        "objects": inventory.total.objects,
        "bytes": inventory.total.bytes,
        "types": parts,
    })
}
