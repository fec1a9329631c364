//! What the process may still reach: Landlock (landlock(7)) holds it and its threads to the folders it was given.

use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

/// The newest rules that are asked for; an older kernel enforces those that it knows.
const NEWEST: ABI = ABI::V6;

/// What stays within reach. Folders that are not there are left out.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Folders below which everything may be done but running programs and making devices.
    pub write: Vec<PathBuf>,
    /// Folders in which sockets may be removed again.
    pub sockets: Vec<PathBuf>,
    /// Folders and files that may be read.
    pub read: Vec<PathBuf>,
}

/// How much of it the kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// All of it.
    Fully,
    /// What an older kernel knows of it.
    Partly,
    /// Nothing: no Landlock here.
    Not,
}

/// Gives up reading, writing, making and removing files but for those of `reach`, all new TCP connections and sockets,
/// abstract sockets of others, signals to them, and whatever a program could gain by running another. For good, for this
/// thread and those that it will start: to be called before there are others.
///
/// # Errors
/// The rules could not be made or taken.
pub fn restrict(reach: &Reach) -> io::Result<Enforced> {
    rustix::thread::set_no_new_privs(true)?;
    let all = AccessFs::from_all(NEWEST);
    let special =
        AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeFifo | AccessFs::MakeSym;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let done = || {
        let rules = Ruleset::default()
            .handle_access(all)?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        let rules = allow(rules, &reach.write, all & !(special | AccessFs::IoctlDev))?;
        let rules = allow(rules, &reach.sockets, AccessFs::RemoveFile.into())?;
        allow(rules, &reach.read, read)?.restrict_self()
    };
    let status = done().map_err(io::Error::other)?.ruleset;
    Ok(match status {
        RulesetStatus::FullyEnforced => Enforced::Fully,
        RulesetStatus::PartiallyEnforced => Enforced::Partly,
        RulesetStatus::NotEnforced => Enforced::Not,
    })
}

fn allow(
    mut rules: RulesetCreated,
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    for path in paths {
        // What is not there now can't be reached later.
        let Ok(opened) = PathFd::new(path) else { continue };
        // Nothing but reading and writing can be done to a file.
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        rules = rules.add_rule(PathBeneath::new(opened, access))?;
    }
    Ok(rules)
}
