//! The rules of `rustic_server`: `acl.toml`, a table a repository, and in it a right a user.
//!
//! They mean what they say, which they do not in `rustic_server` 0.4: `Append` can't delete, `Read` can't remove the locks
//! of others. A repository without a table is a matter of
//! the flags; for one with a table `--private-repos` says nothing, and `--append-only` caps what it grants.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::types::{RepoPath, Right, UserName};

/// The name that the rules have for the repository without a folder.
const ROOT: &str = "default";

/// What a rule grants.
#[derive(Clone, Copy, Debug, Deserialize)]
enum Access {
    #[serde(rename = "NoAccess", alias = "Nothing")]
    Nothing,
    Read,
    Append,
    Modify,
}

/// Rights by repository and user.
#[derive(Clone, Debug, Default)]
pub struct Acl(HashMap<RepoPath, HashMap<UserName, Option<Right>>>);

impl Acl {
    /// Reads the rules.
    ///
    /// # Errors
    /// The file can't be parsed, or has two tables for one repository (`a/b` and `/a/b/` name the same): with the place.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tables: BTreeMap<String, HashMap<String, Access>> =
            toml::from_str(text).map_err(|e| e.to_string())?;
        let mut repos = HashMap::new();
        for (name, users) in tables {
            let path = if name == ROOT { "/" } else { name.as_str() };
            let repo: RepoPath = path.parse().map_err(|_bad| format!("`{name}` can't be a repository"))?;
            let users = users.into_iter().map(|(user, access)| {
                let right = match access {
                    Access::Nothing => None,
                    Access::Read => Some(Right::Read),
                    Access::Append => Some(Right::Append),
                    Access::Modify => Some(Right::Full),
                };
                (UserName::new(&user), right)
            });
            if repos.insert(repo, users.collect()).is_some() {
                return Err(format!("`{name}`: this repository has a table by another name"));
            }
        }
        Ok(Self(repos))
    }

    /// Whether there is a table for a repository.
    pub(super) fn rules(&self, repo: &RepoPath) -> bool {
        self.0.contains_key(repo)
    }

    /// All users that are named.
    pub fn users(&self) -> impl Iterator<Item = &UserName> {
        self.0.values().flat_map(HashMap::keys)
    }

    /// The right of a user to a repository.
    pub(super) fn right(&self, user: Option<&UserName>, repo: &RepoPath) -> Option<Right> {
        match self.0.get(repo) {
            None => Some(Right::Full),
            Some(users) => user.and_then(|user| users.get(user).copied().flatten()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let acl = Acl::parse("[default]\nroot = \"Modify\"\n[shared]\nalice = \"Append\"\nbob = \"Read\"\neve = \"NoAccess\"\n[\"a/b\"]\nalice = \"Modify\"\n")
            .expect("valid");
        for (user, repo, wanted) in [
            ("alice", "/shared/", Some(Right::Append)),
            ("bob", "/shared/", Some(Right::Read)),
            ("eve", "/shared/", None),
            ("other", "/shared/", None),
            ("alice", "/a/b/", Some(Right::Full)),
            ("root", "/", Some(Right::Full)),
            ("alice", "/", None),
            ("other", "/other/", Some(Right::Full)),
        ] {
            let repo: RepoPath = repo.parse().expect("a path");
            assert_eq!(acl.right(Some(&UserName::new(user)), &repo), wanted, "{user} {repo}");
        }
        for bad in [
            "[r]\na = \"Write\"\n",
            "[r]\na = \"ForceUnlock\"\n",
            "x = 1\n",
            "[\"a//b\"]\nx = \"Read\"\n",
            "[\"a/b\"]\nx = \"Read\"\n[\"/a/b/\"]\nx = \"Modify\"\n",
            "[default]\nx = \"Read\"\n[\"/\"]\nx = \"Modify\"\n",
            "[r\n",
        ] {
            assert!(Acl::parse(bad).is_err(), "{bad}");
        }
    }
}
