//! `rustic-client REPOSITORY PASSWORD COMMAND [FOLDER]`: init, backup FOLDER, check, prune.

use std::error::Error;

use rustic_backend::BackendOptions;
use rustic_core::{
    BackupOptions, CheckOptions, ConfigOptions, Credentials, KeyOptions, PathList, PruneOptions, Repository, RepositoryOptions,
    SnapshotOptions,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [repository, password, command, rest @ ..] = arguments.as_slice() else {
        return Err("usage: rustic-client REPOSITORY PASSWORD COMMAND [FOLDER]".into());
    };
    let backends = BackendOptions::default().repository(repository).to_backends()?;
    let options = RepositoryOptions::default().no_cache(true);
    let credentials = Credentials::password(password);
    let closed = Repository::new(&options, &backends)?;
    if command == "init" {
        closed.init(&credentials, &KeyOptions::default(), &ConfigOptions::default())?;
        return Ok(());
    }
    let open = closed.open(&credentials)?;
    match (command.as_str(), rest) {
        ("backup", [folder]) => {
            let source = PathList::from_string(folder)?.sanitize()?;
            let snapshot = SnapshotOptions::default().to_snapshot()?;
            open.to_indexed_ids()?.backup(&BackupOptions::default(), &source, snapshot)?;
        }
        ("check", []) => {
            open.check(CheckOptions::default().read_data(true))?.is_ok()?;
        }
        ("prune", []) => {
            let options = PruneOptions::default();
            let plan = open.prune_plan(&options)?;
            open.prune(&options, plan)?;
        }
        _ => return Err("the commands are init, backup FOLDER, check and prune".into()),
    }
    Ok(())
}
