//! The flags of a server, made of the table of settings.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::settings::keys::{self, KEYS, Key, Kind, Section};

/// What the command line says.
#[derive(Clone)]
pub struct Given {
    /// The settings file.
    pub config: Option<PathBuf>,
    /// Settings and their texts, as they were written.
    pub values: Vec<(&'static Key, Vec<String>)>,
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Settings file, TOML, read again on reload (SIGHUP); variables PACKHOUSE_* count more, flags most");
        let flags =
            KEYS.iter().flat_map(|Section(heading, keys)| keys.iter().map(move |key| flag(key, heading)));
        command.arg(config).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(key: &'static Key, heading: &'static str) -> Arg {
    let default = if key.default.is_empty() || key.default == "false" {
        String::new()
    } else {
        format!(" [default: {}]", key.default.trim_matches(['(', ')']))
    };
    let arg = Arg::new(key.name)
        .long(key.name)
        .value_name(key.value)
        .help(format!("{}{default}", key.help))
        .help_heading(heading)
        .hide_short_help(!key.brief)
        .action(if key.kind == Kind::List { ArgAction::Append } else { ArgAction::Set });
    if key.kind == Kind::Switch {
        // Go's form: a value only with `=`.
        arg.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        // `--log -`, `--max-size -1`
        arg.allow_hyphen_values(matches!(key.name, "log" | "max-size"))
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let values = keys::all().filter_map(|key| {
            let texts: Vec<String> = matches.get_many::<String>(key.name)?.cloned().collect();
            Some((key, texts))
        });
        Ok(Self { config: matches.get_one::<PathBuf>("config").cloned(), values: values.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
