//! `packhouse repo`.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::cli::{FAILED, complain, say};
use crate::server::control;
use crate::server::inventory::{self, Inventory};
use crate::settings::args::{RepoCommand, StateArgs};
use crate::types::RepoPath;

/// `repo list` and `repo stat`.
pub(super) fn run(command: RepoCommand) -> ExitCode {
    let done = match command {
        RepoCommand::Resume(state) => return resume(&state),
        RepoCommand::List { path, max_folder_depth, json } => list(&path, max_folder_depth.into(), json),
        RepoCommand::Stat { path, repo, json } => stat(&path, &repo, json),
    };
    match done {
        Ok(code) => code,
        Err(e) => {
            complain(&format!("error: {e}"));
            ExitCode::from(FAILED)
        }
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

/// `repo resume`.
pub(super) fn resume(state: &StateArgs) -> ExitCode {
    let folder = state.state_dir();
    match control::resume(&folder) {
        Ok(said) => {
            say(&said);
            ExitCode::SUCCESS
        }
        Err(e) => {
            complain(&format!(
                "no packhouse answers in {}: {e}. Is it running, and was it started with this --path or --state-dir?",
                folder.display()
            ));
            ExitCode::from(FAILED)
        }
    }
}
