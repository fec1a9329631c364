//! The command line. rest-server's flags as it spells them, Go's forms (`--append-only=true`) included.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::settings::file::Problem;
use crate::settings::given::Given;
use crate::settings::keys::{self, size};
use crate::settings::merge::{Loaded, Problems, Variables, load};
use crate::types::RepoPath;

/// A restic REST server: thread-per-core, io_uring, every acknowledged object verified and durable.
#[derive(Parser)]
#[command(name = "packhouse", version, about, long_about = None, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, or stopped by a signal after a clean drain; 1 failed while running, or stopped at once by a second
signal; 2 the command line is wrong; 3 the server could not be started, the message says why and what to do; 4 damaged
objects were found; 78 the settings are wrong, every problem is named.";

const SERVE_EXAMPLES: &str = "\
Examples:
  Try it out on this machine, without passwords:
    packhouse serve --path /tmp/backups --no-auth --listen 127.0.0.1:8000
    restic -r rest:http://127.0.0.1:8000/mine/ init
  Backups that no client can delete, for the users of a password file, over HTTPS:
    packhouse user add --path /srv/backups alice
    packhouse serve --path /srv/backups --append-only --private-repos --tls --tls-cert cert.pem --tls-key key.pem
  Behind a proxy on the same machine:
    packhouse serve --path /srv/backups --listen unix:/run/packhouse.sock

`-h` names the flags that matter, `--help` all of them.

Exit codes: 0 stopped by a signal; 1 failed while running, or stopped at once by a second signal; 2 the command line is
wrong; 3 the server could not be started, the message says why and what to do; 78 the settings are wrong.";

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Serve repositories to restic.
    #[command(after_help = SERVE_EXAMPLES, args_override_self = true)]
    Serve(Box<Given>),
    /// Let a running server read its settings, users, certificates and permissions anew. Exit code 1 if it refuses.
    Reload(ServerArgs),
    /// Check and show settings. Takes the flags of `serve`.
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Edit the password file.
    User {
        /// What to do.
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Look after repositories: list, verify, quarantine, quota.
    Repo {
        /// What to do.
        #[command(subcommand)]
        command: RepoCommand,
    },
}

/// The commands on settings.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Name all that is wrong with the settings and the files that they name; exit code 78 if there is anything.
    #[command(args_override_self = true)]
    Check(Box<Given>),
    /// Print the settings that hold.
    #[command(args_override_self = true)]
    Show {
        /// Tell where each comes from.
        #[arg(long)]
        origin: bool,
        /// The flags of `serve`.
        #[command(flatten)]
        given: Box<Given>,
    },
    /// Print a JSON schema of the settings file.
    Schema,
    /// Print a settings file with every setting, commented.
    Sample,
}

/// The commands on users.
#[derive(Subcommand)]
pub enum UserCommand {
    /// Add a user. Asks for the password.
    #[command(visible_alias = "create")]
    Add(PasswordArgs),
    /// Give a user another password. Asks for it.
    #[command(visible_alias = "password")]
    Passwd(PasswordArgs),
    /// Remove a user.
    #[command(visible_aliases = ["rm", "remove", "delete"])]
    Del {
        /// The password file.
        #[command(flatten)]
        file: FileArgs,
        /// The user.
        user: String,
    },
    /// List the users.
    #[command(visible_alias = "ls")]
    List {
        /// The password file.
        #[command(flatten)]
        file: FileArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Which user gets which password.
#[derive(Args)]
pub struct PasswordArgs {
    /// The password file.
    #[command(flatten)]
    pub file: FileArgs,
    /// The user.
    pub user: String,
    /// Read the password from standard input, up to the end of the line.
    #[arg(long)]
    pub stdin: bool,
    /// bcrypt's cost: each step up doubles the time that a check takes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(8..=16))]
    pub cost: u32,
}

/// Which password file is meant: the one that a server with the same flags, variables and settings file reads.
#[derive(Args)]
pub struct FileArgs {
    /// The data folder, whose .htpasswd is meant unless the settings name another file.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// The password file.
    #[arg(long, value_name = "FILE")]
    htpasswd_file: Option<PathBuf>,
    /// The settings file of the server [default: what the variable `PACKHOUSE_CONFIG` names].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl FileArgs {
    /// The password file, and the user that a server which reads it runs as, if the settings say so.
    ///
    /// # Errors
    /// The settings are wrong, or name no password file.
    pub fn file(&self, variables: &Variables) -> Result<(PathBuf, Option<String>), Problems> {
        if let Some(file) = &self.htpasswd_file {
            return Ok((file.clone(), None));
        }
        let loaded = located(self.config.as_ref(), &[("path", self.path.as_ref())], variables)?;
        let file = loaded.settings.logins.htpasswd.ok_or_else(|| {
            let text =
                "this server reads no password file: see no-auth, proxy-auth-username and tls-client-ca"
                    .into();
            Problems { all: vec![Problem { place: "settings".into(), text }], only_flags: false }
        })?;
        Ok((file, loaded.settings.user))
    }
}

/// The settings that a server with these flags would have.
fn located(
    config: Option<&PathBuf>,
    flags: &[(&str, Option<&PathBuf>)],
    variables: &Variables,
) -> Result<Loaded, Problems> {
    let mut values = Vec::new();
    for (name, value) in flags {
        let Some((key, value)) = keys::find(name).zip(*value) else { continue };
        // Left out, it would be another folder that is worked on.
        let Some(text) = value.to_str() else {
            let problem = Problem { place: format!("--{name}"), text: "the path is not UTF-8".into() };
            return Err(Problems { all: vec![problem], only_flags: true });
        };
        values.push((key, vec![text.to_owned()]));
    }
    load(&Given { config: config.cloned(), values }, variables)
}

/// The commands on a store.
#[derive(Subcommand)]
pub enum RepoCommand {
    /// Let the server write again, after a failed flush to disk made it stop and the disk was looked at.
    Resume(ServerArgs),
    /// Let the server count what is stored anew for its quotas, after somebody has removed or copied in something by hand.
    Recount(ServerArgs),
    /// List all repositories with their objects and bytes.
    #[command(visible_alias = "ls")]
    List {
        /// Where they are.
        #[command(flatten)]
        folder: FolderArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tell what is in one repository.
    #[command(visible_alias = "show")]
    Stat {
        /// Where it is.
        #[command(flatten)]
        folder: FolderArgs,
        /// The repository, such as /alice/laptop/.
        repo: RepoPath,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Scrub now: read objects back and look whether their content is what their names say. A server may run meanwhile. Exit
    /// code 4 if something is damaged.
    #[command(visible_aliases = ["check", "scrub"])]
    Verify {
        /// Where they are.
        #[command(flatten)]
        folder: FolderArgs,
        /// The repository, such as /alice/laptop/ [default: all].
        repo: Option<RepoPath>,
        /// Rename what is damaged, but for keys and config, to NAME.packhouse-damaged-*: clients do not see it any more, and can
        /// store it again. Try `restic repair packs` first: of a pack with one wrong bit it saves the rest.
        #[arg(long)]
        quarantine: bool,
        /// Rename nothing that somebody wrote to since: it may still be copied in.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
        older_than: Duration,
        /// Throttle: bytes to read a second, such as 100MiB [default: as fast as the disk is idle].
        #[arg(long, value_name = "SIZE", value_parser = size)]
        rate: Option<u64>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove what interrupted uploads left, those of rest-server too. A server may run meanwhile.
    #[command(visible_alias = "clean")]
    Sweep {
        /// Where they are.
        #[command(flatten)]
        folder: FolderArgs,
        /// Leave those of rest-server that somebody wrote to since: it may be at work here.
        #[arg(long, value_name = "TIME", default_value = "1day", value_parser = humantime::parse_duration)]
        older_than: Duration,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Which data folder is meant: the one that a server with the same flags, variables and settings file serves.
#[derive(Args)]
pub struct FolderArgs {
    /// The data folder.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// The settings file of the server [default: what the variable `PACKHOUSE_CONFIG` names].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folders that a repository's path may have [default: as in the settings].
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=12))]
    max_folder_depth: Option<u8>,
}

impl FolderArgs {
    /// The data folder, and the folders that a repository's path may have.
    ///
    /// # Errors
    /// The settings are wrong.
    pub fn locate(&self, variables: &Variables) -> Result<(PathBuf, usize), Problems> {
        let settings = located(self.config.as_ref(), &[("path", self.path.as_ref())], variables)?.settings;
        let depth = self.max_folder_depth.map_or(settings.max_folder_depth, usize::from);
        Ok((settings.path, depth))
    }
}

/// Which running server is meant: the one with the same flags, variables and settings file.
#[derive(Args)]
pub struct ServerArgs {
    /// The data folder of the running server.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// The server's own folder, if it was started with one [default: .packhouse in the data folder].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The settings file of the server [default: what the variable `PACKHOUSE_CONFIG` names].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ServerArgs {
    /// The server's own folder.
    ///
    /// # Errors
    /// The settings are wrong.
    pub fn state_dir(&self, variables: &Variables) -> Result<PathBuf, Problems> {
        if let Some(folder) = &self.state_dir {
            return Ok(folder.clone());
        }
        Ok(located(self.config.as_ref(), &[("path", self.path.as_ref())], variables)?.settings.state_dir)
    }
}

#[cfg(test)]
pub(crate) fn given(flags: &[&str]) -> Result<Given, clap::Error> {
    let cli = Cli::try_parse_from(["packhouse", "serve"].iter().chain(flags))?;
    match cli.command {
        Command::Serve(given) => Ok(*given),
        _ => unreachable!("it says serve"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::settings::Settings;
    use crate::types::ListenAddress;

    fn serve(flags: &[&str]) -> Result<Settings, String> {
        let all: Vec<_> = ["--path", "/d"].iter().chain(flags).copied().collect();
        let given = given(&all).map_err(|e| e.to_string())?;
        load(&given, &Variables::new()).map(|loaded| loaded.settings).map_err(|e| format!("{:?}", e.all))
    }

    #[test]
    fn the_command_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn short_help_is_short_and_whole_help_is_whole() {
        let mut command = Cli::command();
        let serve = command.find_subcommand_mut("serve").expect("there");
        let (short, long) = (serve.render_help().to_string(), serve.render_long_help().to_string());
        for key in keys::all() {
            let flag = format!("--{}", key.name);
            let begins = |line: &str| {
                line.split_whitespace().next().and_then(|word| word.split(['=', '[']).next()) == Some(&flag)
            };
            let names = |text: &str| text.lines().any(begins);
            assert!(names(&long), "{flag}");
            assert_eq!(names(&short), key.brief, "{flag}");
        }
        // With `config`, which is no key.
        assert_eq!(keys::all().filter(|key| key.brief).count(), 14);
        // The words that operators search for.
        for word in ["quota", "throttle", "quarantine", "reload", "scrub", "permission"] {
            assert!(long.to_lowercase().contains(word), "{word}");
        }
        let heading = long.find("Tuning").expect("there");
        assert!(
            long.find("--sendfile").is_some_and(|at| at > heading)
                && long.find("--listen").is_some_and(|at| at < heading)
        );
    }

    #[test]
    fn defaults_are_rest_servers() {
        let settings = serve(&[]).expect("valid");
        assert_eq!(settings.listen, [ListenAddress::AnyHost(8000)]);
        assert_eq!(settings.logins.htpasswd, Some("/d/.htpasswd".into()));
        assert!(settings.verify && !settings.access.append_only && !settings.group_accessible);
        assert_eq!((settings.max_folder_depth, settings.state_dir), (2, "/d/.packhouse".into()));
        let tls = serve(&["--tls"]).expect("valid").tls.expect("on");
        assert_eq!(tls.pairs, [("/d/public_key".into(), "/d/private_key".into())]);
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
            "--log",
            "-",
        ])
        .expect("valid");
        assert_eq!(
            (settings.logins.htpasswd, settings.access.append_only, settings.verify),
            (None, false, false)
        );
        assert_eq!(settings.listen, [ListenAddress::AnyHost(1), ListenAddress::AnyHost(2)]);
        assert_eq!(serve(&["--no-auth=false"]).expect("valid").logins.htpasswd, Some("/d/.htpasswd".into()));
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
