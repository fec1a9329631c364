//! Rights, and the patterns of repository paths that they are given for.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::types::{FolderName, RepoPath, UserName};

/// What a user may do to a repository. Each right includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Ask for names and sizes.
    List,
    /// Read objects, make locks, remove own locks.
    Read,
    /// Make the repository, add objects.
    Append,
    /// Remove objects.
    Full,
}

impl Right {
    /// All of them, the smallest first.
    pub const ALL: [Self; 4] = [Self::List, Self::Read, Self::Append, Self::Full];

    /// Its name in the settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Append => "append",
            Self::Full => "full",
        }
    }
}

impl FromStr for Right {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let right = Self::ALL.into_iter().find(|right| right.as_str() == text);
        right.ok_or("write list, read, append or full")
    }
}

/// One level of a pattern, the less specific first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// `**`
    Any,
    /// `*`
    One,
    /// `{user}`
    User,
    Folder(Vec<u8>),
}

/// A pattern of repository paths: `/a/*/c`, where `*` is one folder, `**` any number of them and `{user}` the folder of
/// the user's own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(Vec<Level>);

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix('/').ok_or("a path begins with /")?;
        if path.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let levels = path.split('/').map(|folder| match folder {
            "**" => Ok(Level::Any),
            "*" => Ok(Level::One),
            "{user}" => Ok(Level::User),
            _ if folder.contains(['*', '{', '}']) => {
                Err(format!("`{folder}`: only whole levels can be *, ** or {{user}}"))
            }
            _ => FolderName::parse(folder.as_bytes())
                .map(|_| Level::Folder(folder.into()))
                .map_err(|_bad| format!("`{folder}` can't be the name of a folder")),
        });
        levels.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for level in &self.0 {
            match level {
                Level::Any => f.write_str("/**")?,
                Level::One => f.write_str("/*")?,
                Level::User => f.write_str("/{user}")?,
                Level::Folder(name) => write!(f, "/{}", name.escape_ascii())?,
            }
        }
        f.write_str("/")
    }
}

impl PathPattern {
    /// Everything below the folder of the user's name.
    pub fn own_folder() -> Self {
        Self(vec![Level::User, Level::Any])
    }

    /// Every repository.
    pub fn everything() -> Self {
        Self(vec![Level::Any])
    }

    /// Exactly this repository.
    pub fn exactly(repo: &RepoPath) -> Self {
        Self(repo.folders().iter().map(|folder| Level::Folder(folder.as_bytes().into())).collect())
    }

    /// The folder in which everything lies that is meant, if it is named.
    pub fn first_folder(&self) -> Option<&[u8]> {
        match self.0.first() {
            Some(Level::Folder(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether `repo` is meant, when `user` asks.
    pub fn matches(&self, repo: &RepoPath, user: Option<&UserName>) -> bool {
        matches(&self.0, repo.folders(), user)
    }

    /// Which of two patterns says more about the same path: level by level from the left, a name before `{user}` before
    /// `*` before an end before `**`.
    pub fn compare(&self, other: &Self) -> Ordering {
        let (mut ours, mut theirs) = (self.0.iter(), other.0.iter());
        loop {
            let order = match (ours.next(), theirs.next()) {
                (None, None) => return Ordering::Equal,
                (Some(Level::Any), None) => Ordering::Less,
                (None, Some(Level::Any)) | (Some(_), None) => Ordering::Greater,
                (None, Some(_)) => Ordering::Less,
                (Some(one), Some(two)) => rank(one).cmp(&rank(two)),
            };
            if order != Ordering::Equal {
                return order;
            }
        }
    }
}

const fn rank(level: &Level) -> u8 {
    match level {
        Level::Any => 0,
        Level::One => 1,
        Level::User => 2,
        Level::Folder(_) => 3,
    }
}

/// Paths are a few levels deep, patterns the operator's: this ends soon.
fn matches(pattern: &[Level], folders: &[FolderName], user: Option<&UserName>) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return folders.is_empty() };
    let fits = |folder: &FolderName| match first {
        Level::Any | Level::One => true,
        Level::User => user.is_some_and(|user| user.as_str().as_bytes() == folder.as_bytes()),
        Level::Folder(name) => name == folder.as_bytes(),
    };
    let next = folders.split_first().filter(|(folder, _)| fits(folder));
    match first {
        Level::Any => {
            matches(rest, folders, user) || next.is_some_and(|(_, below)| matches(pattern, below, user))
        }
        _ => next.is_some_and(|(_, below)| matches(rest, below, user)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(text: &str) -> RepoPath {
        text.parse().expect("a path")
    }

    #[test]
    fn patterns_match_whole_levels() {
        let alice = UserName::new("alice");
        for (pattern, path, wanted) in [
            ("/", "/", true),
            ("/", "/a/", false),
            ("/**", "/", true),
            ("/**", "/a/b/", true),
            ("/*", "/a/", true),
            ("/*", "/a/b/", false),
            ("/*", "/", false),
            ("/a/**", "/a/", true),
            ("/a/**", "/a/b/c/", true),
            ("/a/**", "/ab/", false),
            ("/**/c", "/a/b/c/", true),
            ("/**/c", "/c/", true),
            ("/**/c", "/c/a/", false),
            ("/{user}/**", "/alice/x/", true),
            ("/{user}/**", "/Alice/x/", false),
            ("/{user}/", "/alicex/", false),
        ] {
            let pattern: PathPattern = pattern.parse().expect("a pattern");
            assert_eq!(pattern.matches(&repo(path), Some(&alice)), wanted, "{pattern} {path}");
        }
        assert!(!PathPattern::own_folder().matches(&repo("/alice/"), None));
        for bad in ["", "a", "//", "/a//b", "/a*", "/../b", "/.x", "/{host}"] {
            assert!(bad.parse::<PathPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_more_specific_wins() {
        let ascending = [
            "/**",
            "/**/c",
            "/*/**",
            "/*",
            "/{user}/**",
            "/{user}/*",
            "/a/**",
            "/a",
            "/a/*",
            "/a/b/**",
            "/a/b",
        ];
        let patterns: Vec<PathPattern> =
            ascending.iter().map(|text| text.parse().expect("a pattern")).collect();
        for (at, pattern) in patterns.iter().enumerate() {
            for (other_at, other) in patterns.iter().enumerate() {
                assert_eq!(pattern.compare(other), at.cmp(&other_at), "{pattern} {other}");
            }
        }
    }
}
