//! Defaults < file < environment < flags, and where each value came from.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::settings::Settings;
use crate::settings::file::{self, Problem};
use crate::settings::given::Given;
use crate::settings::keys::{self, Key, Kind, similar};
use crate::settings::resolve::Draft;

/// The variable that names the settings file.
const CONFIG_VARIABLE: &str = "PACKHOUSE_CONFIG";
/// What a variable's value has in it if it was no UTF-8.
const NOT_TEXT: char = char::REPLACEMENT_CHARACTER;

/// The variables of the environment.
pub type Variables = BTreeMap<String, String>;

/// Settings, and how they came about.
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What was set: the setting, its texts, and where.
    pub origins: Vec<(&'static Key, Vec<String>, String)>,
    /// The settings file.
    pub file: Option<PathBuf>,
    /// Notes on settings that are right, for the operator.
    pub notes: Vec<Problem>,
}

/// Why there are no settings.
#[derive(Debug)]
pub struct Problems {
    /// All of them.
    pub all: Vec<Problem>,
    /// Whether nothing but the flags is to blame.
    pub only_flags: bool,
}

/// Brings together what file, environment and flags say. An empty variable counts as not set.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(given: &Given, variables: &Variables) -> Result<Loaded, Problems> {
    let set: Variables = variables
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let mut draft = Draft::default();
    let mut problems = misspelt(&set);
    let mut notes = Vec::new();
    let mut chosen: HashMap<&str, (&'static Key, Vec<String>, String)> = HashMap::new();
    let path = given.config.clone().or_else(|| set.get(CONFIG_VARIABLE).map(Into::into));
    if let Some(path) = &path {
        match file::read(path, &mut draft) {
            Ok(read) => {
                problems.extend(read.problems);
                notes.extend(read.notes);
                chosen.extend(read.values.into_iter().map(|v| (v.key.name, (v.key, v.texts, v.place))));
            }
            // Every setting of an unreadable file would be reported as missing: report only the file.
            Err(problem) => return Err(Problems { all: vec![problem], only_flags: false }),
        }
    }
    for key in keys::all() {
        match from_environment(key, &set) {
            Ok(Some((texts, place))) => drop(chosen.insert(key.name, (key, texts, place))),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    let mut only_flags = problems.is_empty();
    // `--listen=` and the like, which scripts leave behind, mean nothing to rest-server either.
    let is_set = |texts: &[String]| texts.iter().any(|text| !text.is_empty());
    for (key, texts) in given.values.iter().filter(|(_, texts)| is_set(texts)) {
        chosen.insert(key.name, (key, texts.clone(), format!("--{}", key.name)));
    }
    // In the table's order, so that lists of problems read well.
    let origins: Vec<_> = keys::all().filter_map(|key| chosen.remove(key.name)).collect();
    for (key, texts, place) in &origins {
        for text in texts {
            let problem = |text| Problem { place: place.clone(), text };
            if let Err(why) = (key.set)(&mut draft, text) {
                only_flags &= place.starts_with("--");
                problems.push(problem(format!("`{}`: {why}", text.escape_debug())));
            }
            notes.extend(note(key, text).map(problem));
        }
    }
    // A flag of rest-server that is none here is a matter of settings, whoever says it.
    only_flags &= draft.cpu_profile.is_none();
    let place = path.as_ref().map_or_else(|| "settings".into(), |path| path.display().to_string());
    notes.extend(draft.notes().into_iter().map(|text| Problem { place: place.clone(), text }));
    match draft.resolve() {
        Ok(settings) if problems.is_empty() => return Ok(Loaded { settings, origins, file: path, notes }),
        Ok(_) => {}
        Err(more) => {
            problems.extend(more.into_iter().map(|text| Problem { place: place.clone(), text }));
            only_flags &= origins.iter().all(|(_, _, place)| place.starts_with("--"));
        }
    }
    problems.sort_by_key(line_and_column);
    Err(Problems { all: problems, only_flags })
}

/// How a value was understood, where that is not plain.
fn note(key: &Key, text: &str) -> Option<String> {
    match key.kind {
        Kind::Size if key.name == "max-size" && text.starts_with('-') => {
            Some(format!("`{}` is no limit", text.escape_debug()))
        }
        Kind::Size => keys::size_note(text),
        _ => None,
    }
}

impl Loaded {
    /// The settings that differ from those of `old` and can't change in a running server. What they mean is compared, not
    /// how they are written: to spell a default out changes nothing. `in_effect` tells what this machine makes of settings.
    pub fn unchangeable(&self, old: &Self, in_effect: impl Fn(Settings) -> Settings) -> Vec<&'static str> {
        let new = in_effect(self.settings.clone());
        let fixed = keys::all().filter(|key| !key.live);
        fixed
            .filter(|key| self.with_value_of(old, key).map(&in_effect).as_ref() != Some(&new))
            .map(|key| key.name)
            .collect()
    }

    /// The settings of now with one of `old`'s in the place of its own; none if they do not fit together.
    fn with_value_of(&self, old: &Self, key: &Key) -> Option<Settings> {
        let own = self.origins.iter().filter(|(other, ..)| other.name != key.name);
        let theirs = old.origins.iter().filter(|(other, ..)| other.name == key.name);
        let mut draft = Draft::default();
        for (key, texts, _) in own.chain(theirs) {
            texts.iter().try_for_each(|text| (key.set)(&mut draft, text)).ok()?;
        }
        // What only the file can say is the same.
        draft.settings.access.users.clone_from(&self.settings.access.users);
        draft.settings.quotas.repos.clone_from(&self.settings.quotas.repos);
        draft.resolve().ok()
    }
}

/// In the order of the file; what stands elsewhere comes behind.
fn line_and_column(problem: &Problem) -> (usize, usize) {
    let mut parts = problem.place.rsplit(':').map(|part| part.parse().unwrap_or(usize::MAX));
    let (column, line) = (parts.next().unwrap_or(usize::MAX), parts.next().unwrap_or(usize::MAX));
    (line, column)
}

/// What a variable says, or the file that the same variable with `_FILE` names (for secrets that a container is given).
fn from_environment(
    key: &'static Key,
    variables: &Variables,
) -> Result<Option<(Vec<String>, String)>, Problem> {
    let name = key.variable();
    let split = |text: &str| match key.kind {
        Kind::List => text.split([',', ' ']).filter(|part| !part.is_empty()).map(Into::into).collect(),
        _ => vec![text.to_owned()],
    };
    match variables.get(&name) {
        Some(text) if text.contains(NOT_TEXT) => {
            return Err(Problem { place: name, text: "its value is no UTF-8".into() });
        }
        Some(text) => return Ok(Some((split(text), name))),
        None => {}
    }
    let by_file = format!("{name}_FILE");
    let is_a_setting = keys::all().any(|key| key.variable() == by_file);
    let Some(path) = variables.get(&by_file).filter(|_| !is_a_setting) else { return Ok(None) };
    match file::text_of(path.as_ref()) {
        Ok(text) => Ok(Some((split(text.trim()), by_file))),
        Err(e) => Err(Problem { place: by_file, text: format!("{path}: {e}") }),
    }
}

/// Variables that look like settings and are none. An operator who wrote `PACKHOUSE_APPENDONLY=true` must not have a server
/// that lets clients delete.
fn misspelt(variables: &Variables) -> Vec<Problem> {
    const PREFIX: &str = "PACKHOUSE_";
    let known: Vec<_> = keys::all().map(Key::variable).chain([CONFIG_VARIABLE.to_owned()]).collect();
    let unknown = variables.keys().filter(|name| {
        let is_file = |key: &Key| name.strip_suffix("_FILE") == Some(&key.variable());
        let is_known = known.iter().any(|known| known == *name) || keys::all().any(is_file);
        name.starts_with(PREFIX) && !is_known && !is_of_kubernetes(name)
    });
    let own = |name: &str| name.trim_start_matches(PREFIX).to_owned();
    // What all names begin with would make all of them alike, and words run together would make none of them alike.
    let plain = |name: &str| own(name).replace('_', "");
    let names: Vec<_> = known.iter().map(|name| (plain(name), own(name))).collect();
    let hint = |name: &String| {
        let meant = similar(&plain(name), names.iter().map(|(plain, _)| plain.as_str()))
            .and_then(|meant| names.iter().find(|(plain, _)| plain == meant))
            .map_or(String::new(), |(_, meant)| format!(": did you mean {PREFIX}{meant}?"));
        Problem { place: name.clone(), text: format!("this variable is no setting{meant}") }
    };
    unknown.map(hint).collect()
}

/// Whether Kubernetes makes such a variable, for a service whose name begins with ours:
/// `PACKHOUSE_SERVICE_HOST`, `PACKHOUSE_MAIN_SERVICE_PORT_HTTP`, `PACKHOUSE_PORT`, `PACKHOUSE_PORT_8000_TCP_ADDR`.
fn is_of_kubernetes(name: &str) -> bool {
    let has_number = |rest: &str| {
        rest.split('_').next().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.match_indices("_PORT_").any(|(at, port)| name.get(at + port.len()..).is_some_and(has_number))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::settings::args::given;
    use crate::types::ListenAddress;

    fn loaded(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<Loaded, Vec<String>> {
        let mut toml = tempfile::NamedTempFile::new().expect("a file");
        toml.write_all(file.as_bytes()).expect("written");
        let mut all = vec!["--config", toml.path().to_str().expect("text")];
        all.extend(flags);
        let variables = variables.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let prefix = toml.path().display().to_string();
        load(&given(&all).expect("known flags"), &variables)
            .map_err(|problems| problems.all.iter().map(|p| p.to_string().replace(&prefix, "F")).collect())
    }

    #[test]
    fn a_later_source_wins() {
        let file = "path = \"/file\"\nlisten = [\":1\", \":2\"]\nappend-only = true\nworkers = 3\n";
        let env = [("PACKHOUSE_WORKERS", "4"), ("PACKHOUSE_LISTEN", ":3,:4 :5")];
        let got = loaded(file, &env, &["--workers", "5", "--append-only=false"])
            .unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(got.settings.workers, crate::settings::Workers::Count(5));
        assert_eq!(got.settings.listen, [3, 4, 5].map(ListenAddress::AnyHost));
        assert!(!got.settings.access.append_only);
        let origins: Vec<_> = got.origins.iter().map(|(key, _, place)| (key.name, place.as_str())).collect();
        assert!(
            origins.contains(&("workers", "--workers")) && origins.contains(&("listen", "PACKHOUSE_LISTEN"))
        );
        assert!(origins.iter().any(|(name, place)| *name == "path" && place.ends_with(":1:8")));
    }

    #[test]
    fn all_problems_are_told_with_their_places() {
        let file = "path = \"/d\"\nlistn = \":1\"\nworkers = \"many\"\n[users.alice]\nrights = { \"/a\" = \"write\", b = \"full\" }\nkeys = 1\nmax-sise = 5\n[repos.\"/x/\"]\nmax-size = \"a lot\"\n";
        let problems =
            loaded(file, &[("PACKHOUSE_IO_DRIVER", "magic")], &["--max-size", "x"]).err().expect("problems");
        for wanted in [
            "F:2:1: there is no setting `listn`: did you mean `listen`?",
            "F:3:11: `many`: write a whole number",
            "F:5:19: `write`: write none, list, read, append or full",
            "F:5:28: a path begins with /",
            "F:6:8: write text in quotes",
            "F:7:1: there is no setting `max-sise`: did you mean `max-size`?",
            "F:9:12: `a lot`: write a number of bytes, or a size such as 500MiB",
            "PACKHOUSE_IO_DRIVER: `magic`: write auto, uring or epoll",
            "--max-size: `x`: write a number of bytes, or a size such as 500MiB",
        ] {
            assert!(problems.iter().any(|problem| problem == wanted), "{wanted} is not among {problems:#?}");
        }
        assert_eq!(problems.len(), 9, "{problems:#?}");
    }

    #[test]
    fn a_file_that_is_no_toml_has_a_place_too() {
        let problems = loaded("path = \"/d\"\nx = \n", &[], &[]).err().expect("problems");
        assert!(problems.iter().any(|problem| problem.starts_with("F:2:")), "{problems:?}");
        let missing = load(&given(&["--config", "/no/such/file"]).expect("known"), &Variables::new());
        assert!(
            missing.err().is_some_and(|p| !p.only_flags
                && p.all.len() == 1
                && p.all[0].text.contains("can't be read"))
        );
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (flags, wanted) in [
            (&["--tls-cert", "x"][..], "without tls"),
            (&["--tls", "--tls-cert", "x"], "every tls-cert needs its tls-key"),
            (&["--cpu-profile", "x"], "perf record"),
            (&["--no-auth", "--acl-file", "x"], "acl-file needs to know users"),
            (&["--workers", "1", "--cpus", "0"], "use one of them"),
        ] {
            let all: Vec<_> = ["--path", "/d"].iter().chain(flags).copied().collect();
            let problems =
                load(&given(&all).expect("known flags"), &Variables::new()).err().expect("a problem");
            assert!(problems.all.iter().any(|p| p.text.contains(wanted)), "{flags:?}: {:?}", problems.all);
            assert_eq!(problems.only_flags, !flags.contains(&"--cpu-profile"));
        }
    }

    #[test]
    fn a_variable_may_name_a_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"3\n").expect("written");
        let path = file.path().to_str().expect("text");
        let got = loaded("path = \"/d\"", &[("PACKHOUSE_WORKERS_FILE", path)], &[])
            .unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(got.settings.workers, crate::settings::Workers::Count(3));
        let got = loaded("path = \"/d\"", &[("PACKHOUSE_HTPASSWD_FILE", "/u")], &[])
            .unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(got.settings.logins.htpasswd, Some("/u".into()));
    }

    #[test]
    fn a_variable_that_is_no_setting_ends_the_start_and_an_empty_one_is_not_set() {
        let load = |name: &str, value: &str| loaded("path = \"/d\"", &[(name, value)], &[]);
        for (name, meant) in [
            ("PACKHOUSE_LISTN", "did you mean PACKHOUSE_LISTEN?"),
            ("PACKHOUSE_APPENDONLY", "did you mean PACKHOUSE_APPEND_ONLY?"),
            ("PACKHOUSE_NOAUTH", "did you mean PACKHOUSE_NO_AUTH?"),
            ("PACKHOUSE_ZZZ", "is no setting"),
            ("PACKHOUSE_PORT_X", "is no setting"),
        ] {
            let problems = load(name, "true").err().expect("a problem");
            assert!(problems[0].starts_with(name) && problems[0].contains(meant), "{problems:?}");
        }
        for of_kubernetes in [
            "PACKHOUSE_SERVICE_HOST",
            "PACKHOUSE_MAIN_SERVICE_PORT",
            "PACKHOUSE_SERVICE_PORT_HTTP",
            "PACKHOUSE_PORT",
            "PACKHOUSE_PORT_8000_TCP",
            "PACKHOUSE_MAIN_PORT_8000_TCP_ADDR",
        ] {
            assert!(load(of_kubernetes, "tcp://10.0.0.1:8000").is_ok(), "{of_kubernetes}");
        }
        for empty in [
            "PACKHOUSE_LOG",
            "PACKHOUSE_MAX_SIZE",
            "PACKHOUSE_TLS",
            "PACKHOUSE_TLS_CERT_FILE",
            "PACKHOUSE_LISTN",
        ] {
            assert!(load(empty, "").is_ok_and(|got| got.origins.len() == 1), "{empty}");
        }
        assert!(load("PACKHOUSE_PATH", "/d\u{fffd}").is_err());
    }

    #[test]
    fn what_is_taken_and_means_nothing_is_told() {
        for (flags, wanted) in [
            (&["--no-auth", "--private-repos"][..], "private-repos has no effect"),
            (&["--prometheus-no-auth"], "prometheus-no-auth has no effect"),
            (&["--max-size", "-1"], "`-1` is no limit"),
            (&["--max-size=-0x10"], "is no limit"),
            (&["--min-free", "100G"], "`100G` is read as 100GiB"),
        ] {
            let got = loaded("path = \"/d\"", &[], flags).unwrap_or_else(|e| panic!("{e:?}"));
            assert!(got.notes.iter().any(|note| note.text.contains(wanted)), "{flags:?}: {:?}", got.notes);
            assert!(!got.settings.access.private_repos);
        }
        let got = loaded("path = \"/d\"\n[users.a]\nmax-size = \"5G\"\n", &[], &[])
            .unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(got.notes.len(), 1);
        assert_eq!(got.settings.access.users["a"].max_size, Some(5 << 30));
    }

    #[test]
    fn a_reload_compares_values_and_not_how_they_are_written() {
        let old = loaded("path = \"/d\"\nmin-free = 1024\n", &[], &[]).unwrap_or_else(|e| panic!("{e:?}"));
        for same in [
            "sandbox = true",
            "listen = \":8000\"",
            "state-dir = \"/d/.packhouse\"",
            "io-driver = \"auto\"",
            "append-only = true",
        ] {
            let new = loaded(&format!("{same}\npath = \"/d/\"\nmin-free = \"1KiB\"\n"), &[], &[]);
            assert_eq!(new.unwrap_or_else(|e| panic!("{e:?}")).unchangeable(&old, |s| s), [""; 0], "{same}");
        }
        for (other, name) in
            [("sandbox = false", "sandbox"), ("listen = \":1\"", "listen"), ("workers = 3", "workers")]
        {
            let new = loaded(&format!("{other}\npath = \"/d\"\nmin-free = 1024\n"), &[], &[]);
            assert_eq!(new.unwrap_or_else(|e| panic!("{e:?}")).unchangeable(&old, |s| s), [name]);
        }
    }
}
