//! The command line. rest-server's flags as it spells them, Go's forms (`--append-only=true`) included.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

use crate::settings::cpus::CpuList;
use crate::settings::{IoDriver, Settings, Timeouts, Workers};
use crate::types::ListenAddress;

/// Largest `--workers`.
const MAX_WORKERS: usize = 1024;
/// Largest `--max-folder-depth`: what fits into `PATH_MAX` with the longest names.
const MAX_DEPTH: usize = 12;

/// A restic REST server: thread-per-core, io_uring, every acknowledged object verified and durable.
#[derive(Debug, Parser)]
#[command(name = "packhouse", version, about, long_about = None, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, or stopped by a signal after a clean drain; 1 failed while running, or stopped at once by a second
signal; 2 the command line is wrong; 3 the server could not be started, the message says why and what to do.";

const SERVE_EXAMPLES: &str = "\
Examples:
  Try it out on this machine, without passwords:
    packhouse serve --path /tmp/backups --no-auth --listen 127.0.0.1:8000
    restic -r rest:http://127.0.0.1:8000/mine/ init
  Backups that no client can delete, for the users of a password file:
    htpasswd -B -c /srv/backups/.htpasswd alice
    packhouse serve --path /srv/backups --append-only
  Behind a proxy on the same machine:
    packhouse serve --path /srv/backups --listen unix:/run/packhouse.sock

Exit codes: 0 stopped by a signal; 1 failed while running, or stopped at once by a second signal; 2 the command line is
wrong; 3 the server could not be started, the message says why and what to do.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve repositories to restic.
    #[command(after_help = SERVE_EXAMPLES, args_override_self = true)]
    Serve(Box<ServeArgs>),
    /// Look after the store of a running server.
    Repo {
        /// What to do.
        #[command(subcommand)]
        command: RepoCommand,
    },
}

/// The commands on a store.
#[derive(Debug, Subcommand)]
pub enum RepoCommand {
    /// Let the server write again, after a failed flush to disk made it stop and the disk was looked at.
    Resume(StateArgs),
}

/// Which server is meant.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// The data folder of the running server.
    #[arg(long, value_name = "DIR")]
    pub path: PathBuf,
    /// The server's own folder, if it was started with one [default: .packhouse in the data folder].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl StateArgs {
    /// The server's own folder.
    pub fn state_dir(&self) -> PathBuf {
        state_dir(self.state_dir.clone(), &self.path)
    }
}

fn state_dir(given: Option<PathBuf>, path: &std::path::Path) -> PathBuf {
    given.unwrap_or_else(|| path.join(".packhouse"))
}

/// The flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Data folder: one folder a repository, as restic's local backend and rest-server have it.
    #[arg(long, value_name = "DIR")]
    path: PathBuf,
    /// Where to listen; may be given several times [default: :8000].
    #[arg(long, value_name = ":PORT|HOST:PORT|unix:PATH")]
    listen: Vec<ListenAddress>,
    /// Let everybody in.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    no_auth: Option<bool>,
    /// Password file with bcrypt or {SHA} hashes [default: .htpasswd in the data folder].
    #[arg(long, value_name = "FILE")]
    htpasswd_file: Option<PathBuf>,
    /// Let nobody delete or replace anything but locks.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    append_only: Option<bool>,
    /// Let the file system's group read and write repositories.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    group_accessible_repos: Option<bool>,
    /// Store uploads without checking that their SHA-256 is their name. Damage on the way will not be noticed.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    no_verify_upload: Option<bool>,
    /// Log every request, not refusals alone.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    debug: Option<bool>,
    /// Folders that a repository's path may have.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = |text: &str| number(text, 0..=MAX_DEPTH))]
    max_folder_depth: usize,
    /// Room kept free for locks and deletes, such as 500MiB [default: the smaller of 64MiB and 1% of the file system].
    #[arg(long, value_name = "SIZE")]
    min_free: Option<ByteSize>,
    /// Folder for the server's own files [default: .packhouse in the data folder].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Worker threads [default: one a core that the process may use].
    #[arg(long, value_name = "N", conflicts_with = "cpus", value_parser = |text: &str| number(text, 1..=MAX_WORKERS))]
    workers: Option<usize>,
    /// Run one worker pinned to each of these processors, such as 0-3,8.
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,
    /// How workers wait for the kernel.
    #[arg(long, value_name = "DRIVER", value_enum, default_value_t = IoDriver::Auto)]
    io_driver: IoDriver,
    /// Time for requests in flight after SIGTERM.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    /// Time for a request head.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    head_timeout: Duration,
    /// Time until an idle connection is closed.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = humantime::parse_duration)]
    idle_timeout: Duration,
    /// Time without a byte of a body, in either direction, until the connection is given up.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    body_timeout: Duration,
    /// Slowest body in bytes per second, averaged over --body-grace and once that has passed.
    #[arg(long, value_name = "N", default_value_t = 64)]
    body_min_rate: u64,
    /// See --body-min-rate.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = humantime::parse_duration)]
    body_grace: Duration,
}

fn number(text: &str, allowed: RangeInclusive<usize>) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| format!("write a number from {} to {}", allowed.start(), allowed.end()))
}

/// The words that Go's `strconv.ParseBool` takes.
fn go_bool(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false"),
    }
}

impl ServeArgs {
    /// The settings that the flags make.
    pub fn settings(self) -> Settings {
        let htpasswd = self.htpasswd_file.unwrap_or_else(|| self.path.join(".htpasswd"));
        let workers = match (self.cpus, self.workers) {
            (Some(cpus), _) => Workers::Pinned(cpus.0),
            (None, Some(count)) => Workers::Count(count),
            (None, None) => Workers::Auto,
        };
        Settings {
            state_dir: state_dir(self.state_dir, &self.path),
            path: self.path,
            listen: if self.listen.is_empty() { vec![ListenAddress::AnyHost(8000)] } else { self.listen },
            htpasswd: (!self.no_auth.unwrap_or(false)).then_some(htpasswd),
            append_only: self.append_only.unwrap_or(false),
            group_accessible: self.group_accessible_repos.unwrap_or(false),
            verify: !self.no_verify_upload.unwrap_or(false),
            debug: self.debug.unwrap_or(false),
            max_folder_depth: self.max_folder_depth,
            min_free: self.min_free.map(|size| size.as_u64()),
            workers,
            io_driver: self.io_driver,
            drain: self.drain_timeout,
            timeouts: Timeouts {
                head: self.head_timeout,
                idle: self.idle_timeout,
                stall: self.body_timeout,
                min_rate: self.body_min_rate,
                grace: self.body_grace,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn serve(flags: &[&str]) -> Result<Settings, clap::Error> {
        let cli = Cli::try_parse_from(["packhouse", "serve", "--path", "/d"].iter().chain(flags))?;
        match cli.command {
            Command::Serve(args) => Ok(args.settings()),
            Command::Repo { .. } => unreachable!("it says serve"),
        }
    }

    #[test]
    fn the_command_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_rest_servers() {
        let settings = serve(&[]).expect("valid");
        assert_eq!(settings.listen, [ListenAddress::AnyHost(8000)]);
        assert_eq!(settings.htpasswd, Some("/d/.htpasswd".into()));
        assert!(settings.verify && !settings.append_only && !settings.group_accessible);
        assert_eq!((settings.max_folder_depth, settings.state_dir), (2, "/d/.packhouse".into()));
    }

    #[test]
    fn go_forms_and_repeats() {
        let settings = serve(&[
            "--no-auth",
            "--append-only=true",
            "--no-verify-upload=T",
            "--append-only=0",
            "--listen",
            ":1",
            "--listen=:2",
        ])
        .expect("valid");
        assert_eq!((settings.htpasswd, settings.append_only, settings.verify), (None, false, false));
        assert_eq!(settings.listen, [ListenAddress::AnyHost(1), ListenAddress::AnyHost(2)]);
        assert_eq!(serve(&["--no-auth=false"]).expect("valid").htpasswd, Some("/d/.htpasswd".into()));
        for bad in [
            &["--append-only=yes"][..],
            &["--listen", "x"],
            &["--workers", "0"],
            &["--workers", "1", "--cpus", "0"],
            &["extra"],
            &["--unknown"],
        ] {
            assert!(serve(bad).is_err(), "{bad:?}");
        }
        assert_eq!(serve(&["--cpus", "0-1", "--min-free", "1KiB"]).expect("valid").min_free, Some(1024));
    }
}
