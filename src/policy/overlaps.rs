//! Rights of one user that meet on a path, where it is not plain to see which of them counts.

use crate::policy::Grants;
use crate::types::overlap::Search;
use crate::types::repo::MAX_FOLDERS;
use crate::types::{PathPattern, RepoPath, Right, UserName};

/// Two patterns with different rights that mean the same path, of which the second is not the rule to which the first is an
/// exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// What counts there.
    pub first: (PathPattern, Right),
    /// What does not.
    pub second: (PathPattern, Right),
    /// Such a path. A folder `*` stands for any that the patterns do not name.
    pub path: RepoPath,
}

impl Grants {
    /// All of them on paths of at most `depth` folders for which there is no right before both, when `user` asks. An overlap
    /// on which the operator has decided, with a right for that very path, is none.
    pub fn overlaps(&self, user: &UserName, depth: usize, search: &mut Search) -> Vec<Overlap> {
        let mut found = Vec::new();
        for (index, first) in self.rights.iter().enumerate() {
            for second in self.rights.iter().skip(index + 1) {
                if !search.spend(1) {
                    return found;
                }
                if first.1 == second.1 || !is_odd(&first.0, &second.0, user, search) {
                    continue;
                }
                let before: Vec<_> = self.rights.iter().take(index).map(|(pattern, _)| pattern).collect();
                let path = search.path(user, &[&first.0, &second.0], &before, depth);
                found.extend(path.map(|path| Overlap { first: first.clone(), second: second.clone(), path }));
            }
        }
        found
    }
}

/// Whether two patterns mean the same path, and the first is no exception to the second: one that means less.
fn is_odd(first: &PathPattern, second: &PathPattern, user: &UserName, search: &mut Search) -> bool {
    let mut is_there = |wanted: &[&PathPattern], unwanted: &[&PathPattern]| {
        search.path(user, wanted, unwanted, MAX_FOLDERS).is_some()
    };
    is_there(&[first, second], &[]) && (is_there(&[first], &[second]) || !is_there(&[second], &[first]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rights, the depth, and what counts, what does not, and where.
    type Case<'c> = (&'c [(&'c str, Right)], usize, &'c [(&'c str, &'c str, &'c str)]);

    fn grants(rights: &[(&str, Right)]) -> Grants {
        Grants::new(rights.iter().map(|(p, r)| (p.parse().expect("a pattern"), *r)).collect(), false)
    }

    /// What counts, what does not, and where.
    fn overlaps(rights: &[(&str, Right)], depth: usize) -> Vec<(String, String, String)> {
        let alice = UserName::new("alice");
        let grants = grants(rights);
        let mut search = Search::new(1_000_000);
        let found = grants.overlaps(&alice, depth, &mut search);
        assert!(!search.is_spent());
        for Overlap { first, second, path } in &found {
            assert_eq!(grants.right(path, Some(&alice)), Some(first.1).filter(|r| *r > Right::Nothing));
            assert!(second.0.matches(path, Some(&alice)), "{second:?} {path}");
        }
        let texts = |one: &Overlap| (one.first.0.to_string(), one.second.0.to_string(), one.path.to_string());
        found.iter().map(texts).collect()
    }

    #[test]
    fn rights_that_cross_are_found_and_exceptions_are_none() {
        use Right::{Append, Full, List, Nothing, Read};
        let cases: [Case<'_>; 13] = [
            (&[("/a/**", Full), ("/*/secret", Read)], 2, &[("/a/**/", "/*/secret/", "/a/secret/")]),
            (&[("/a/**", Full), ("/*/secret", Nothing)], 2, &[("/a/**/", "/*/secret/", "/a/secret/")]),
            (&[("/{user}/**", Full), ("/*/old", Read)], 2, &[("/{user}/**/", "/*/old/", "/alice/old/")]),
            (&[("/*/b/**", Full), ("/**/c", Read)], 3, &[("/*/b/**/", "/**/c/", "/*/b/c/")]),
            // The second never counts.
            (&[("/*/**", Append), ("/**/c", Read)], 2, &[("/*/**/", "/**/c/", "/c/")]),
            (&[("/*/**", Append), ("/**/*", Read)], 2, &[("/*/**/", "/**/*/", "/*/")]),
            (&[("/alice", Read), ("/{user}", Full)], 2, &[("/alice/", "/{user}/", "/alice/")]),
            // No path is as long.
            (&[("/a/**", Full), ("/*/b/secret", Read)], 2, &[]),
            (&[("/*/b/**", Full), ("/**/c", Read)], 1, &[]),
            // The same right, a decision, exceptions, and rights that do not meet.
            (&[("/a/**", Full), ("/*/secret", Full)], 2, &[]),
            (&[("/a/**", Full), ("/*/secret", Read), ("/a/secret", Read)], 2, &[]),
            (&[("/**", List), ("/{user}/**", Full), ("/alice/old", Read), ("/*/**", Nothing)], 2, &[]),
            (&[("/alice/**", Full), ("/shared/*", Append), ("/other/x", Read)], 2, &[]),
        ];
        for (rights, depth, wanted) in cases {
            let found = overlaps(rights, depth);
            let found: Vec<_> =
                found.iter().map(|(one, two, path)| (one.as_str(), two.as_str(), path.as_str())).collect();
            assert_eq!(found, wanted, "{rights:?}");
        }
        // A decision on one path is none on another.
        let rights = [("/a/**", Full), ("/**/c", Read), ("/a/c", Read)];
        assert!(overlaps(&rights, 2).is_empty());
        assert_eq!(overlaps(&rights, 3).len(), 1);
    }
}
