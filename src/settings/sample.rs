//! What can be made of the table of settings: a commented sample file, a JSON schema, and what holds now.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::settings::keys::{self, KEYS, Key, Kind, Section};
use crate::settings::merge::Loaded;
use crate::settings::tables::{REPO_KEYS, USER_KEYS};
use crate::types::Right;

/// Columns of a comment in the sample.
const WIDTH: usize = 100;

/// A settings file with every setting, commented out, at its default.
pub fn sample() -> String {
    let mut out = String::from(
        "# Settings of packhouse. Flags count more than variables (PACKHOUSE_LISTEN), variables more than this file.\n",
    );
    for Section(heading, keys) in KEYS {
        write!(out, "\n## {heading}\n").ok();
        // A flag that is no setting has no place in a file.
        for key in keys.iter().filter(|key| key.name != "cpu-profile") {
            let live = if key.live { " SIGHUP changes it in a running server." } else { "" };
            out.push('\n');
            comment(&mut out, &format!("{}.{live}", key.help));
            writeln!(out, "#{} = {}", key.name, example(key)).ok();
        }
    }
    out.push_str(
        "\n## Users: `*` is everybody who has no table. Of several patterns the most specific counts.\n\n",
    );
    for (name, help) in USER_KEYS {
        comment(&mut out, &format!("{name}: {help}"));
    }
    out.push_str("#[users.alice]\n#rights = { \"/alice/**\" = \"full\", \"/shared/*\" = \"append\" }\n#keys = \"closed\"\n#max-size = \"100GiB\"\n#max-uploads = 8\n#upload-rate = \"20MiB\"\n\n#[users.\"*\"]\n#rights = { \"/{user}/**\" = \"append\" }\n\n## Repositories\n\n");
    for (name, help) in REPO_KEYS {
        comment(&mut out, &format!("{name}: {help}"));
    }
    out.push_str("#[repos.\"/alice/laptop/\"]\n#max-size = \"50GiB\"\n");
    out
}

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + word.len() >= WIDTH {
            writeln!(out, "{line}").ok();
            line = "#".into();
        }
        write!(line, " {word}").ok();
    }
    writeln!(out, "{line}").ok();
}

fn example(key: &Key) -> String {
    let text = if key.example.is_empty() { key.default } else { key.example };
    match key.kind {
        Kind::Switch | Kind::Number => text.to_owned(),
        Kind::List => json!([text]).to_string(),
        Kind::Size | Kind::Time | Kind::Text => json!(text).to_string(),
    }
}

/// A JSON schema of the settings file.
pub fn schema() -> Value {
    let size = || json!({"type": ["integer", "string"], "minimum": 0});
    let of_key = |key: &Key| match key.kind {
        Kind::Switch => json!({"type": "boolean"}),
        Kind::Number => json!({"type": "integer", "minimum": 0}),
        Kind::Size => size(),
        Kind::Time | Kind::Text => json!({"type": "string"}),
        Kind::List => json!({"type": ["string", "array"], "items": {"type": "string"}}),
    };
    let rights: Vec<_> = Right::ALL.iter().map(|right| right.as_str()).collect();
    let of_user = |name: &str| match name {
        "rights" => json!({"type": "object", "additionalProperties": {"enum": rights}}),
        "keys" => json!({"enum": ["open", "closed"]}),
        "max-uploads" => json!({"type": "integer", "minimum": 1}),
        _ => size(),
    };
    let table = |properties: Map<String, Value>| {
        let one = json!({"type": "object", "additionalProperties": false, "properties": properties});
        json!({"type": "object", "additionalProperties": one})
    };
    let mut properties: Map<_, _> =
        keys::all().map(|key| described(key.name, key.help, of_key(key))).collect();
    let users = USER_KEYS.iter().map(|(name, help)| described(name, help, of_user(name)));
    let repos = REPO_KEYS.iter().map(|(name, help)| described(name, help, size()));
    properties.insert("users".into(), table(users.collect()));
    properties.insert("repos".into(), table(repos.collect()));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "packhouse settings",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn described(name: &str, help: &str, mut schema: Value) -> (String, Value) {
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".into(), help.into());
    }
    (name.to_owned(), schema)
}

/// What holds: every setting that somebody set, the others at their defaults. With `origins`, where each comes from.
pub fn show(loaded: &Loaded, origins: bool) -> String {
    let mut out = String::new();
    for key in keys::all() {
        let set = loaded.origins.iter().find(|(other, ..)| other.name == key.name);
        let (text, place) = match set {
            Some((_, texts, place)) if key.kind == Kind::List => (json!(texts).to_string(), place.as_str()),
            Some((_, texts, place)) => {
                (plain(key.kind, texts.last().map_or("", String::as_str)), place.as_str())
            }
            None if key.default.is_empty() => continue,
            None if key.default.starts_with('(') => {
                writeln!(out, "# {} = {}", key.name, key.default).ok();
                continue;
            }
            None if key.kind == Kind::List => (json!([key.default]).to_string(), "default"),
            None => (plain(key.kind, key.default), "default"),
        };
        let origin = if origins { format!("  # {place}") } else { String::new() };
        writeln!(out, "{} = {text}{origin}", key.name).ok();
    }
    let (users, repos) = (loaded.settings.access.users.len(), loaded.settings.quotas.repos.len());
    if let Some(file) = loaded.file.as_ref().filter(|_| users + repos > 0) {
        writeln!(out, "# and the rules of {users} users and {repos} repositories in {}", file.display()).ok();
    }
    out
}

fn plain(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Switch => keys::switch(text).is_ok_and(|on| on).to_string(),
        Kind::Number => text.to_owned(),
        Kind::Size | Kind::Time | Kind::Text | Kind::List => json!(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::file::{self, parse};
    use crate::settings::resolve::Draft;

    #[test]
    fn the_sample_names_every_setting_and_is_right() {
        let sample = sample();
        // Without the marks of the comments it is a settings file.
        let lines = sample.lines().filter(|line| !line.starts_with("# ") && !line.starts_with("##"));
        let text = lines.map(|line| line.trim_start_matches('#')).collect::<Vec<_>>().join("\n");
        let mut draft = Draft::default();
        let file::Read { values, problems, .. } = parse("sample".into(), &text, &mut draft);
        assert_eq!(problems, [], "{text}");
        assert_eq!(values.len(), keys::all().count() - 1, "all but cpu-profile");
        for value in &values {
            for text in &value.texts {
                (value.key.set)(&mut draft, text).unwrap_or_else(|e| panic!("{}: {e}", value.key.name));
            }
        }
        assert_eq!((draft.settings.access.users.len(), draft.settings.quotas.repos.len()), (2, 1));
        assert!(sample.lines().all(|line| line.len() <= 120));
    }

    #[test]
    fn the_schema_names_every_setting() {
        let schema = schema();
        for key in keys::all() {
            assert!(schema["properties"][key.name]["description"].is_string(), "{}", key.name);
        }
        assert!(schema["properties"]["users"].is_object());
    }
}
