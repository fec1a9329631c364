//! Rights, and the patterns of repository paths that they are given for.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::types::repo::MAX_FOLDERS;
use crate::types::{FolderName, RepoPath, UserName};

/// What a user may do to a repository. Each right includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Nothing: what a more specific pattern takes out of another one.
    Nothing,
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
    pub const ALL: [Self; 5] = [Self::Nothing, Self::List, Self::Read, Self::Append, Self::Full];

    /// Its name in the settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "none",
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
        right.ok_or("write none, list, read, append or full")
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
///
/// It has at most [`MAX_FOLDERS`] levels beside `**`, and no two `**` side by side: a set of its levels fits into an integer.
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
        let mut levels: Vec<Level> = levels.collect::<Result<_, String>>()?;
        // Any number of folders, twice, is any number of folders.
        levels.dedup_by(|level, before| *level == Level::Any && level == before);
        if levels.iter().filter(|level| **level != Level::Any).count() > MAX_FOLDERS {
            return Err(format!(
                "a repository's path has at most {MAX_FOLDERS} folders: this pattern means none"
            ));
        }
        Ok(Self(levels))
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

    /// The folder in which everything lies that is meant, if it is named.
    pub fn first_folder(&self) -> Option<&[u8]> {
        match self.0.first() {
            Some(Level::Folder(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether it depends on who asks.
    pub fn names_user(&self) -> bool {
        self.0.contains(&Level::User)
    }

    /// The names of folders in it, when `user` asks.
    pub(super) fn names<'n>(&'n self, user: &'n UserName) -> impl Iterator<Item = &'n [u8]> {
        self.0.iter().filter_map(move |level| match level {
            Level::Any | Level::One => None,
            Level::User => Some(user.as_str().as_bytes()),
            Level::Folder(name) => Some(name.as_slice()),
        })
    }

    /// Whether `repo` is meant, when `user` asks. Takes at most levels times folders, however many `**` there are.
    pub fn matches(&self, repo: &RepoPath, user: Option<&UserName>) -> bool {
        let folders = repo.folders().iter();
        self.is_end(folders.fold(self.begin(), |at, folder| self.step(at, folder.as_bytes(), user)))
    }

    /// Where a path can be in this pattern before its first folder: in a set of levels, of which bit `n` says that those from
    /// `n` on are to match the rest of the path.
    pub(super) fn begin(&self) -> u32 {
        self.skip(1)
    }

    /// Where it can be one folder later. An empty set stays empty: the pattern does not match.
    pub(super) fn step(&self, at: u32, folder: &[u8], user: Option<&UserName>) -> u32 {
        let own = user.map(|user| user.as_str().as_bytes());
        let mut next = 0_u32;
        for (n, level) in self.0.iter().enumerate().filter(|(n, _)| (at >> n) & 1 == 1) {
            next |= match level {
                Level::Any => 1_u32 << n,
                Level::One => 2_u32 << n,
                Level::User if own == Some(folder) => 2_u32 << n,
                Level::Folder(name) if name == folder => 2_u32 << n,
                Level::User | Level::Folder(_) => 0,
            };
        }
        self.skip(next)
    }

    /// Whether a path that ends there is meant.
    pub(super) fn is_end(&self, at: u32) -> bool {
        (at >> self.0.len()) & 1 == 1
    }

    /// `**` may be no folder at all: what is before one is behind it as well.
    fn skip(&self, at: u32) -> u32 {
        let any = self.0.iter().enumerate().filter(|(_, level)| **level == Level::Any);
        any.fold(at, |at, (n, _)| at | ((at & (1 << n)) << 1))
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

/// `/`, `/a`, `/a/b` and so on: all paths or patterns of at most `most` of these levels.
#[cfg(test)]
pub(super) fn texts(levels: &[&str], most: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut longest = all.clone();
    for _ in 0..most {
        let with = |text: &String| levels.iter().map(|level| format!("{text}/{level}")).collect::<Vec<_>>();
        longest = longest.iter().flat_map(with).collect();
        all.extend(longest.iter().cloned());
    }
    if let Some(root) = all.first_mut() {
        root.push('/');
    }
    all
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

    /// What matching means: each `**` is tried with any number of folders.
    fn is_meant(pattern: &[Level], folders: &[FolderName], user: &UserName) -> bool {
        let Some((first, rest)) = pattern.split_first() else { return folders.is_empty() };
        if *first == Level::Any {
            return (0..=folders.len()).any(|taken| is_meant(rest, &folders[taken..], user));
        }
        folders.split_first().is_some_and(|(folder, below)| {
            let fits = match first {
                Level::Any | Level::One => true,
                Level::User => folder.as_bytes() == user.as_str().as_bytes(),
                Level::Folder(name) => folder.as_bytes() == name,
            };
            fits && is_meant(rest, below, user)
        })
    }

    #[test]
    fn matching_is_what_trying_everything_finds() {
        let alice = UserName::new("alice");
        let paths = texts(&["a", "b", "alice"], 4);
        for pattern in texts(&["**", "*", "{user}", "a", "b"], 4) {
            let pattern: PathPattern = pattern.parse().expect("a pattern");
            for path in &paths {
                let repo = repo(path);
                let wanted = is_meant(&pattern.0, repo.folders(), &alice);
                assert_eq!(pattern.matches(&repo, Some(&alice)), wanted, "{pattern} {path}");
            }
        }
    }

    /// With trial and error a hundred of them would take years.
    #[test]
    fn any_number_of_stars_is_matched_at_once() {
        let pattern: PathPattern = format!("{}/z", "/**".repeat(100)).parse().expect("a pattern");
        assert_eq!(pattern.to_string(), "/**/z/");
        let longest = "/**/a".repeat(MAX_FOLDERS);
        let pattern: PathPattern = format!("{longest}/**").parse().expect("a pattern");
        assert!(pattern.matches(&repo(&"/a".repeat(MAX_FOLDERS)), None));
        assert!(!pattern.matches(&repo(&"/a".repeat(MAX_FOLDERS - 1)), None));
        assert!(!pattern.matches(&repo(&"/b".repeat(MAX_FOLDERS)), None));
        let refused = format!("{longest}/*").parse::<PathPattern>().expect_err("it can't match");
        assert!(refused.contains("at most 12 folders"), "{refused}");
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
