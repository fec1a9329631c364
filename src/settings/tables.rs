//! What only the settings file can say: the rules of users and the quotas of repositories.

use std::collections::HashSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::settings::file::{Places, scalar};
use crate::settings::keys::{Kind, count, number, rate, similar, size, size_note};
use crate::settings::resolve::Draft;
use crate::settings::{OTHERS, UserRules};
use crate::types::{PathPattern, RepoPath, Right};

/// The keys of a user's table.
pub const USER_KEYS: [(&str, &str); 7] = [
    (
        "rights",
        "table: a path pattern, and none, list, read, append or full. The most specific pattern counts; without one there is no right",
    ),
    ("keys", "\"open\" or \"closed\": whether the right to append includes new keys"),
    ("max-size", "most bytes below the folder of the user's name"),
    (
        "max-objects",
        "most objects there; without it, where there is a max-size, one per 64 KiB of that, and at least a million",
    ),
    ("max-repos", "repositories, in place of max-repos-per-user"),
    ("max-uploads", "uploads at once, in place of max-uploads-per-user"),
    ("upload-rate", "bytes a second uploaded, in place of upload-rate-per-user"),
];
/// The keys of a repository's table.
pub const REPO_KEYS: [(&str, &str); 1] = [("max-size", "most bytes in this repository")];

type Entry<'v, 'i> = (&'v Spanned<std::borrow::Cow<'i, str>>, &'v Spanned<DeValue<'i>>);

pub(super) fn users(users: &DeTable<'_>, draft: &mut Draft, places: &mut Places<'_>) {
    for (name, rules) in users {
        let DeValue::Table(table) = rules.get_ref() else {
            places.wrong(rules, "the rules of a user are a table");
            continue;
        };
        let mut rules = UserRules::default();
        for entry in table {
            if let Err(text) = user_rule(entry, &mut rules, places) {
                places.wrong(entry.1, text);
            }
        }
        for (key, is_there) in
            [("max-size", rules.max_size.is_some()), ("max-objects", rules.max_objects.is_some())]
        {
            if name.get_ref() == OTHERS && is_there {
                let text = format!(
                    "{key} is of one user's folder: `*` has none. Name the users, or use max-size at the top"
                );
                places.wrong(name, text);
            }
        }
        draft.settings.access.users.insert(name.get_ref().to_string(), rules);
    }
}

fn user_rule(
    (name, value): Entry<'_, '_>,
    rules: &mut UserRules,
    places: &mut Places<'_>,
) -> Result<(), String> {
    let text = |kind| scalar(kind, value.get_ref());
    let quoted = |text: &str, why: String| format!("`{}`: {why}", text.escape_debug());
    match name.get_ref().as_ref() {
        "rights" => match value.get_ref() {
            DeValue::Table(table) => {
                let mut rights = Vec::new();
                table.iter().for_each(|entry| right(entry, &mut rights, places));
                rules.rights = Some(rights);
            }
            _ => return Err("rights are a table of path patterns".into()),
        },
        "keys" => {
            rules.keys_closed = match text(Kind::Text)?.as_str() {
                "open" => Some(false),
                "closed" => Some(true),
                other => return Err(quoted(other, "write \"open\" or \"closed\"".into())),
            };
        }
        "max-size" => {
            let text = text(Kind::Size)?;
            places.note(value, size_note(&text));
            rules.max_size = Some(size(&text).map_err(|why| quoted(&text, why))?);
        }
        "max-objects" => {
            let text = text(Kind::Number)?;
            rules.max_objects = Some(count(&text).map_err(|why| quoted(&text, why))?);
        }
        "max-repos" => {
            let text = text(Kind::Number)?;
            rules.max_repos = Some(count(&text).map_err(|why| quoted(&text, why))?);
        }
        "max-uploads" => {
            let text = text(Kind::Number)?;
            rules.max_uploads = Some(number(&text, 1, usize::MAX).map_err(|why| quoted(&text, why))?);
        }
        "upload-rate" => {
            let text = text(Kind::Size)?;
            places.note(value, size_note(&text));
            rules.upload_rate = Some(rate(&text).map_err(|why| quoted(&text, why))?);
        }
        _ => places.unknown(name, USER_KEYS.iter().map(|(known, _)| *known)),
    }
    Ok(())
}

fn right((path, value): Entry<'_, '_>, rights: &mut Vec<(PathPattern, Right)>, places: &mut Places<'_>) {
    let pattern = match path.get_ref().parse::<PathPattern>() {
        Ok(pattern) if rights.iter().any(|(other, _)| *other == pattern) => {
            return places.wrong(path, "this path has a right already");
        }
        Ok(pattern) => pattern,
        Err(text) => return places.wrong(path, text),
    };
    let parse = |text: String| {
        text.parse::<Right>().map_err(|why| {
            let known = Right::ALL.iter().map(|right| right.as_str());
            let meant =
                similar(&text, known).map_or(String::new(), |right| format!(": did you mean `{right}`?"));
            format!("`{}`: {why}{meant}", text.escape_debug())
        })
    };
    match scalar(Kind::Text, value.get_ref()).and_then(parse) {
        Ok(right) => rights.push((pattern, right)),
        Err(text) => places.wrong(value, text),
    }
}

pub(super) fn repos(repos: &DeTable<'_>, draft: &mut Draft, places: &mut Places<'_>) {
    let mut known = HashSet::new();
    for (path, rules) in repos {
        let (Ok(repo), DeValue::Table(table)) = (path.get_ref().parse::<RepoPath>(), rules.get_ref()) else {
            places.wrong(path, "write [repos.\"/path/\"], and its settings below");
            continue;
        };
        if path.get_ref().contains(['*', '{']) {
            places
                .wrong(path, "[repos] names one repository, and no pattern: name each, or use [users.NAME]");
            continue;
        }
        if !known.insert(repo.clone()) {
            places.wrong(path, "this repository has a table by another name");
            continue;
        }
        for (name, value) in table {
            let parsed = if name.get_ref().as_ref() == "max-size" {
                scalar(Kind::Size, value.get_ref()).and_then(|text| {
                    places.note(value, size_note(&text));
                    size(&text).map_err(|why| format!("`{}`: {why}", text.escape_debug()))
                })
            } else {
                places.unknown(name, REPO_KEYS.iter().map(|(known, _)| *known));
                continue;
            };
            match parsed {
                Ok(bytes) => draft.settings.quotas.repos.push((repo.clone(), bytes)),
                Err(text) => places.wrong(value, text),
            }
        }
    }
}
