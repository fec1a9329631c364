//! What works, and perhaps not as it is meant: told by `config check`, at the start and by each reload in the same words.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use unicode_normalization::UnicodeNormalization as _;

use crate::api::Rules;
use crate::policy::overlaps::Overlap;
use crate::policy::{Grants, Policy, Rights};
use crate::server::rules;
use crate::settings::{Access, Loaded, OTHERS, Settings};
use crate::store::census;
use crate::store::local::LocalDisk;
use crate::types::overlap::Search;
use crate::types::{FolderName, RepoPath, Right, UserName};

/// Steps of the search for rights that meet, of all users together: about a second.
const SEARCH_STEPS: usize = 20_000_000;
/// Most such rights that are told, and most repositories that are named.
const MAX_OVERLAPS: usize = 20;
const MAX_NAMED: usize = 5;

/// What is odd about the settings alone.
pub(super) fn of_settings(loaded: &Loaded) -> Vec<String> {
    let settings = &loaded.settings;
    let mut all = exposed(loaded);
    all.extend(without_effect(&settings.access));
    all.extend(overlaps(settings));
    if settings.shared_folder && !rules::quotas(settings).is_empty() {
        all.push("shared-folder: quotas are not exact, since no server knows what the others store".into());
    }
    all
}

/// What others on this machine or network can reach that they should not.
fn exposed(loaded: &Loaded) -> Vec<String> {
    let Settings { path, state_dir, tls, logins, access, trusted_proxies, .. } = &loaded.settings;
    let is_open = |path: &Path, bits| std::fs::metadata(path).is_ok_and(|meta| meta.mode() & bits != 0);
    let keys = tls.iter().flat_map(|tls| tls.pairs.iter().map(|(_cert, key)| (key, "key")));
    let users = logins.htpasswd.iter().map(|file| (file, "password file"));
    let secrets = keys.chain(users).chain([(state_dir, "state folder")]);
    let open = secrets.filter(|(path, _)| is_open(path, 0o7)).map(|(path, what)| {
        format!("{}: this {what} is open to all users: `chmod o-rwx` it", path.display())
    });
    // No secrets, but whoever writes them is let in.
    let authorities = tls.iter().flat_map(|tls| tls.client_ca.iter().chain(&tls.client_crl));
    let trusted = authorities
        .map(|file| (file, "file of certificates"))
        .chain(access.acl_file.iter().map(|file| (file, "file of rights")))
        .chain(loaded.file.iter().map(|file| (file, "settings file")))
        .chain([(path, "data folder")]);
    let writable = trusted.filter(|(path, _)| is_open(path, 0o2)).map(|(path, what)| {
        format!("{}: all users can write to this {what}: `chmod o-w` it", path.display())
    });
    let anybody = trusted_proxies.iter().filter(|network| network.prefix_len() == 0);
    let believed = anybody.map(|network| {
        format!("trusted-proxy = {network}: everybody is believed about who and where clients are: name your proxies' networks")
    });
    open.chain(writable).chain(believed).collect()
}

/// Rights that a flag takes away.
fn without_effect(access: &Access) -> Vec<String> {
    let mut all = Vec::new();
    for (user, rules) in &access.users {
        for (pattern, right) in rules.rights.iter().flatten() {
            let who = user.escape_debug();
            if access.append_only && *right == Right::Full {
                all.push(format!("append-only caps the right `full` of user {who} on {pattern} to `append`"));
            }
            let is_foreign = |folder: &[u8]| user != OTHERS && folder != user.as_bytes();
            let is_taken = access.private_repos && *right > Right::Nothing;
            if is_taken && pattern.first_folder().is_some_and(is_foreign) {
                all.push(format!(
                    "private-repos lets user {who} reach nothing but /{who}/: the right on {pattern} has no effect"
                ));
            }
        }
    }
    all
}

/// Rights of one user of which it is not plain to see which of them counts.
fn overlaps(settings: &Settings) -> Vec<String> {
    let mut search = Search::new(SEARCH_STEPS);
    let mut all = Vec::new();
    for (name, rules) in &settings.access.users {
        let Some(rights) = &rules.rights else { continue };
        // The name of the others can be any but those that patterns have, and no pattern has this one.
        let user = UserName::new(if name == OTHERS { "{user}" } else { name });
        let grants = Grants::new(rights.clone(), false);
        let found = grants.overlaps(&user, settings.max_folder_depth, &mut search);
        let text = |Overlap { first, second, path }: Overlap| {
            format!(
                "user {}: for {path} the right `{}` on {} counts, and not `{}` on {}: if that is not meant, write a right for {path}",
                name.escape_debug(),
                first.1.as_str(),
                first.0,
                second.1.as_str(),
                second.0,
            )
        };
        all.extend(found.into_iter().map(text));
        if search.is_spent() || all.len() > MAX_OVERLAPS {
            all.truncate(MAX_OVERLAPS);
            all.push(format!(
                "of the rights of user {} and of those after it in the alphabet not all pairs are told: there are too many",
                name.escape_debug()
            ));
            break;
        }
    }
    all
}

/// Users whose names look alike: people mistake one for the other, and some disks have one folder for both.
pub(super) fn alike(names: &BTreeSet<&str>) -> Vec<String> {
    let mut by_form = BTreeMap::<String, Vec<String>>::new();
    for name in names {
        by_form.entry(form(name)).or_default().push(name.escape_default().to_string());
    }
    let several = by_form.into_values().filter(|names| names.len() > 1);
    several
        .map(|names| {
            format!(
                "users {}: these names differ by letter case or Unicode form alone, and each has a login, rights and a folder of its own: rename all but one",
                names.join(", ")
            )
        })
        .collect()
}

/// A name without its letter case, in Unicode's form NFKC (UAX #15), which is the same for all ways to write a character.
fn form(name: &str) -> String {
    let lower: String = name.nfkc().flat_map(char::to_lowercase).collect();
    // A letter may have a lower case that is written in two ways.
    lower.nfkc().collect()
}

/// Users who are to have a folder of their name, which can't be one.
pub(super) fn without_folder(names: &BTreeSet<&str>, access: &Access) -> Vec<String> {
    let mut rights = access.users.values().filter_map(|rules| rules.rights.as_ref()).flatten();
    if !access.private_repos && !rights.any(|(pattern, _)| pattern.names_user()) {
        return Vec::new();
    }
    let is_folder =
        |name: &str| FolderName::parse(name.as_bytes()).is_ok() && !FolderName::is_reserved(name.as_bytes());
    let without = names.iter().filter(|name| !is_folder(name));
    without
        .map(|name| {
            format!(
                "user {}: no repository can lie in a folder of this name, which private-repos and the pattern {{user}} mean: rename the user",
                name.escape_debug()
            )
        })
        .collect()
}

/// Those of `repos` that all users reach, since the ACL file has tables for others alone.
pub(super) fn unruled(policy: &Policy, repos: &[RepoPath]) -> Option<String> {
    let all: Vec<_> = repos.iter().filter(|repo| policy.is_for_all(repo)).collect();
    if all.is_empty() {
        return None;
    }
    let mut named: Vec<_> = all.iter().take(MAX_NAMED).map(|repo| format!("{repo}")).collect();
    if all.len() > MAX_NAMED {
        named.push(format!("and {} more", all.len() - MAX_NAMED));
    }
    let right = if policy.append_only { Right::Append } else { Right::Full };
    Some(format!(
        "acl-file: every user has the right `{}` to repositories without a table: {}. Write a table for each, or use --private-repos",
        right.as_str(),
        named.join(", ")
    ))
}

/// Tells them once the server runs: with many folders on a slow disk it takes a while to find them.
pub(super) async fn tell_unruled(disk: LocalDisk, rules: Arc<ArcSwap<Rules>>, depth: usize) {
    if !matches!(rules.load().policy.rights, Rights::Acl(_)) {
        return;
    }
    // The sweep, which reads the same folders, names those that can't be read.
    let repos = census::find_repositories(&disk, depth, drop).await;
    if let Some(warning) = unruled(&rules.load().policy, &repos) {
        log::warn!("{warning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::acl::Acl;
    use crate::settings::UserRules;

    #[test]
    fn names_that_look_alike_are_told_together() {
        let names =
            ["alice", "Alice", "bob", "jos\u{e9}", "jose\u{301}", "Jose", "\u{ff42}ob", "stra\u{df}e"];
        let told = alike(&BTreeSet::from(names));
        let starts = ["users Alice, alice: ", "users bob, \\u{ff42}ob: ", "users jose\\u{301}, jos\\u{e9}: "];
        assert_eq!(told.len(), starts.len(), "{told:?}");
        for (text, start) in told.iter().zip(starts) {
            assert!(text.starts_with(start), "{text}");
        }
        assert!(alike(&BTreeSet::from(["a", "b"])).is_empty());
    }

    #[test]
    fn names_that_can_be_no_folder_matter_where_there_are_such_folders() {
        let names = BTreeSet::from(["alice", "a/b", ".hidden", "data"]);
        let mut access = Access::default();
        assert!(without_folder(&names, &access).is_empty());
        let rights = vec![("/{user}/**".parse().expect("a pattern"), Right::Full)];
        access.users.insert(OTHERS.into(), UserRules { rights: Some(rights), ..UserRules::default() });
        assert_eq!(without_folder(&names, &access).len(), 3);
        let access = Access { private_repos: true, ..Access::default() };
        assert_eq!(without_folder(&names, &access).len(), 3);
    }

    #[test]
    fn repositories_without_a_table_are_named_unless_they_are_private() {
        let acl = Acl::parse("[a]\nx = \"Read\"\n").expect("valid");
        let mut policy = Policy { rights: Rights::Acl(acl), ..Policy::default() };
        let repos: Vec<RepoPath> =
            ["/a", "/b", "/b/c"].iter().map(|path| path.parse().expect("a path")).collect();
        let told = unruled(&policy, &repos).expect("there are some");
        assert!(told.contains("`full`") && told.contains(": /b/, /b/c/. "), "{told}");
        policy.append_only = true;
        assert!(unruled(&policy, &repos).expect("there are some").contains("`append`"));
        assert_eq!(unruled(&policy, &repos[..1]), None);
        policy.private_repos = true;
        assert_eq!(unruled(&policy, &repos), None);
        assert_eq!(unruled(&Policy::default(), &repos), None);
    }
}
