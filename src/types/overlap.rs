//! Which paths some patterns mean and others do not: all patterns are walked at once, a folder at a time.

use std::collections::{BTreeSet, HashSet};

use crate::types::{FolderName, PathPattern, RepoPath, UserName};

/// Stands for any folder that no pattern names: none can name this one.
const OTHER: &[u8] = b"*";

/// Looks for paths, as long as it has steps left. A step is a folder that is held against a pattern.
pub struct Search {
    left: usize,
}

impl Search {
    /// Takes at most so many steps, of some 50 ns each: patterns can be such that every set of their levels is reached.
    pub const fn new(steps: usize) -> Self {
        Self { left: steps }
    }

    /// Takes that many steps. False once there are none left.
    pub const fn spend(&mut self, steps: usize) -> bool {
        self.left = self.left.saturating_sub(steps);
        self.left > 0
    }

    /// Whether it has given up: what it has found none of since may be there.
    pub const fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// One of the shortest paths of at most `depth` folders that all of `wanted` mean and none of `unwanted`, when `user`
    /// asks. A folder `*` in it stands for any that the patterns do not name.
    pub fn path(
        &mut self,
        user: &UserName,
        wanted: &[&PathPattern],
        unwanted: &[&PathPattern],
        depth: usize,
    ) -> Option<RepoPath> {
        // Where only `unwanted` name a folder, another one does as well: it matches no more of them.
        let names = wanted.iter().flat_map(|pattern| pattern.names(user));
        let folders: BTreeSet<FolderName> = names
            .chain([OTHER])
            .filter(|name| !FolderName::is_reserved(name))
            .filter_map(|name| FolderName::parse(name).ok())
            .collect();
        let all = [wanted, unwanted].concat();
        let is_found = |at: &[u32]| {
            let mut ends = all.iter().zip(at).map(|(pattern, at)| pattern.is_end(*at));
            ends.by_ref().take(wanted.len()).all(|end| end) && !ends.any(|end| end)
        };
        let mut seen = HashSet::new();
        let mut longest = vec![(Vec::new(), all.iter().map(|pattern| pattern.begin()).collect::<Vec<_>>())];
        for _ in 0..=depth {
            if let Some((path, _)) = longest.iter().find(|(_, at)| is_found(at)) {
                return Some(RepoPath::new(path.clone()));
            }
            let mut longer = Vec::new();
            for (path, at) in &longest {
                for folder in &folders {
                    if !self.spend(all.len()) {
                        return None;
                    }
                    let step = |(pattern, at): (&&PathPattern, &u32)| {
                        pattern.step(*at, folder.as_bytes(), Some(user))
                    };
                    let at: Vec<u32> = all.iter().zip(at).map(step).collect();
                    let can_match = at.iter().take(wanted.len()).all(|at| *at != 0);
                    if can_match && seen.insert(at.clone()) {
                        longer.push(([path.as_slice(), std::slice::from_ref(folder)].concat(), at));
                    }
                }
            }
            longest = longer;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::right::texts;

    const DEPTH: usize = 4;

    #[test]
    fn a_search_finds_what_trying_all_paths_finds() {
        let alice = UserName::new("alice");
        let paths: Vec<RepoPath> = texts(&["*", "a", "b", "alice"], DEPTH)
            .iter()
            .map(|path| path.parse().expect("a path"))
            .collect();
        let patterns: Vec<PathPattern> = texts(&["**", "*", "{user}", "a"], 3)
            .iter()
            .map(|pattern| pattern.parse().expect("a pattern"))
            .collect();
        let meant = |pattern: &PathPattern| -> Vec<bool> {
            paths.iter().map(|path| pattern.matches(path, Some(&alice))).collect()
        };
        let table: Vec<Vec<bool>> = patterns.iter().map(meant).collect();
        let mut search = Search::new(usize::MAX);
        for (one, of_one) in patterns.iter().zip(&table) {
            for (two, of_two) in patterns.iter().zip(&table) {
                // The paths are sorted by their length.
                let first = |second: bool| {
                    let is_it = |(one, two): (&bool, &bool)| *one && *two == second;
                    of_one.iter().zip(of_two).position(is_it).map(|at| &paths[at])
                };
                let both = search.path(&alice, &[one, two], &[], DEPTH);
                let only_one = search.path(&alice, &[one], &[two], DEPTH);
                for (found, second) in [(both, true), (only_one, false)] {
                    let wanted = first(second);
                    assert_eq!(found.is_some(), wanted.is_some(), "{one} {two} {second}");
                    let (Some(found), Some(wanted)) = (found, wanted) else { continue };
                    assert_eq!(found.folders().len(), wanted.folders().len(), "{one} {two} {found}");
                    assert!(one.matches(&found, Some(&alice)), "{one} {found}");
                    assert_eq!(two.matches(&found, Some(&alice)), second, "{two} {found}");
                }
            }
        }
    }

    /// Of this pattern every set of levels can be reached, and of two of them every pair of sets.
    #[test]
    fn a_search_ends_where_there_is_too_much_to_search() {
        let stars = |name: &str| -> PathPattern {
            format!("/**/{name}{}/**/end", "/*".repeat(10)).parse().expect("a pattern")
        };
        let (one, two) = (stars("a"), stars("b"));
        let mut search = Search::new(1000);
        let user = UserName::new("u");
        assert!(search.path(&user, &[&one, &two], &[], 12).is_none() && search.is_spent());
    }
}
