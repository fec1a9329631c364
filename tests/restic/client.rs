//! restic as a client.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Server, skip};

/// The programs named by an environment variable, which `tests/run` sets, or what the system has under `name`.
pub fn programs(variable: &str, name: &str) -> Vec<PathBuf> {
    if let Ok(list) = std::env::var(variable) {
        return list.split(':').filter(|path| !path.is_empty()).map(Into::into).collect();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .into_iter()
        .collect()
}

pub fn restics() -> Vec<PathBuf> {
    let found = programs("TEST_RESTIC", "restic");
    if found.is_empty() {
        skip("no restic was found");
    }
    found
}

/// A restic client with a cache and a password of its own.
pub struct Restic {
    program: PathBuf,
    repository: String,
    cache: tempfile::TempDir,
    /// Flags of every command.
    pub flags: Vec<String>,
}

impl Restic {
    pub fn new(program: &Path, repository: String) -> Self {
        Self { program: program.into(), repository, cache: tempfile::tempdir().unwrap(), flags: Vec::new() }
    }

    pub fn on(program: &Path, server: &Server, repo: &str) -> Self {
        Self::new(program, format!("rest:http://{}/{repo}/", server.addresses[0]))
    }

    pub fn version(&self) -> String {
        let output = Command::new(&self.program).arg("version").output().unwrap();
        String::from_utf8_lossy(&output.stdout).split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn run(&self, args: &[&str]) -> String {
        let (success, text) = self.try_run(args);
        assert!(success, "{} {args:?}:\n{text}", self.version());
        text
    }

    /// Runs a command; tells whether it succeeded, and what it printed.
    pub fn try_run(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(&self.program);
        command
            .env("RESTIC_PASSWORD", "test")
            .env("RESTIC_CACHE_DIR", self.cache.path())
            .env("GOMAXPROCS", "2");
        command.args(["-r", &self.repository]).args(&self.flags).args(args).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }
}
