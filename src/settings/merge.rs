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
}

/// Why there are no settings.
#[derive(Debug)]
pub struct Problems {
    /// All of them.
    pub all: Vec<Problem>,
    /// Whether nothing but the flags is to blame.
    pub only_flags: bool,
}

/// Brings together what file, environment and flags say.
///
/// # Errors
/// Everything that is wrong with them.
pub fn load(given: &Given, variables: &Variables) -> Result<Loaded, Problems> {
    let mut draft = Draft::default();
    let mut problems = Vec::new();
    let mut chosen: HashMap<&str, (&'static Key, Vec<String>, String)> = HashMap::new();
    let path = given.config.clone().or_else(|| variables.get(CONFIG_VARIABLE).map(Into::into));
    if let Some(path) = &path {
        match file::read(path, &mut draft) {
            Ok((values, wrong)) => {
                problems.extend(wrong);
                chosen.extend(values.into_iter().map(|v| (v.key.name, (v.key, v.texts, v.place))));
            }
            Err(problem) => problems.push(problem),
        }
    }
    for key in keys::all() {
        match from_environment(key, variables) {
            Ok(Some((texts, place))) => drop(chosen.insert(key.name, (key, texts, place))),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    let mut only_flags = problems.is_empty();
    for (key, texts) in &given.values {
        chosen.insert(key.name, (key, texts.clone(), format!("--{}", key.name)));
    }
    // In the table's order, so that lists of problems read well.
    let origins: Vec<_> = keys::all().filter_map(|key| chosen.remove(key.name)).collect();
    for (key, texts, place) in &origins {
        for text in texts {
            if let Err(why) = (key.set)(&mut draft, text) {
                only_flags &= place.starts_with("--");
                problems.push(Problem {
                    place: place.clone(),
                    text: format!("`{}`: {why}", text.escape_debug()),
                });
            }
        }
    }
    // A flag of rest-server that is none here is a matter of settings, whoever says it.
    only_flags &= draft.cpu_profile.is_none();
    match draft.resolve() {
        Ok(settings) if problems.is_empty() => return Ok(Loaded { settings, origins, file: path }),
        Ok(_) => {}
        Err(more) => {
            let place = path.as_ref().map_or_else(|| "settings".into(), |path| path.display().to_string());
            problems.extend(more.into_iter().map(|text| Problem { place: place.clone(), text }));
            only_flags &= origins.iter().all(|(_, _, place)| place.starts_with("--"));
        }
    }
    problems.sort_by_key(line_and_column);
    Err(Problems { all: problems, only_flags })
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
    if let Some(text) = variables.get(&name) {
        return Ok(Some((split(text), name)));
    }
    let by_file = format!("{name}_FILE");
    let is_a_setting = keys::all().any(|key| key.variable() == by_file);
    let Some(path) = variables.get(&by_file).filter(|_| !is_a_setting) else { return Ok(None) };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((split(text.trim()), by_file))),
        Err(e) => Err(Problem { place: by_file, text: format!("{path}: {e}") }),
    }
}

/// Variables that look like settings and are none, each with the one that may be meant. Not an error: Kubernetes makes
/// variables of its own for a service of our name.
pub fn misspelt(variables: &Variables) -> Vec<(String, String)> {
    let known: Vec<_> = keys::all().map(Key::variable).chain([CONFIG_VARIABLE.to_owned()]).collect();
    let ours = variables.keys().filter(|name| name.starts_with("PACKHOUSE_"));
    let unknown = ours.filter(|name| {
        let base = name.strip_suffix("_FILE").unwrap_or(name);
        !known.iter().any(|known| known == *name || known == base)
    });
    // What all names begin with would make all of them alike.
    let own = |name: &str| name.trim_start_matches("PACKHOUSE_").to_owned();
    let names: Vec<_> = known.iter().map(|name| own(name)).collect();
    let hint = |name: &String| {
        let meant = similar(&own(name), names.iter().map(String::as_str))?;
        Some((name.clone(), format!("PACKHOUSE_{meant}")))
    };
    unknown.filter_map(hint).collect()
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
            "F:3:11: write a whole number",
            "F:5:19: write list, read, append or full",
            "F:5:28: a path begins with /",
            "F:6:8: write text in quotes",
            "F:7:1: there is no setting `max-sise`: did you mean `max-size`?",
            "F:9:12: write a number of bytes, or a size such as 500MiB",
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
            missing
                .err()
                .is_some_and(|p| !p.only_flags && p.all.iter().any(|p| p.text.contains("can't be read")))
        );
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (flags, wanted) in [
            (&["--tls-cert", "x"][..], "without tls"),
            (&["--tls", "--tls-cert", "x"], "every tls-cert needs its tls-key"),
            (&["--cpu-profile", "x"], "perf record"),
            (&["--no-auth", "--private-repos"], "private-repos needs to know users"),
            (&["--workers", "1", "--cpus", "0"], "use one of them"),
            (&["--prometheus-no-auth"], "add --prometheus"),
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
        let variables = Variables::from([
            ("PACKHOUSE_LISTN".to_owned(), String::new()),
            ("PACKHOUSE_SERVICE_HOST".into(), String::new()),
        ]);
        assert_eq!(misspelt(&variables), [("PACKHOUSE_LISTN".to_owned(), "PACKHOUSE_LISTEN".to_owned())]);
    }
}
