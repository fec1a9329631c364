//! May you: a [`Principal`], a repository and an [`Action`] → a [`Decision`]. Pure.
//!
//! Whether a name may be written again is the store's to say: it replaces nothing for anybody.

use std::collections::HashMap;

use crate::types::{BlobType, Object, PathPattern, Principal, RepoPath, Right, UserName};

pub mod acl;
pub mod ahead;
pub mod overlaps;
pub mod rate;
pub mod repos;

/// What somebody wants to do to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make its folders.
    Create,
    /// Ask for names or sizes.
    List,
    /// Read an object.
    Read,
    /// Store an object.
    Store(Object),
    /// Remove an object.
    Delete(Object),
}

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All of it.
    Allowed,
    /// If the object is the user's own.
    IfOwn,
    /// If the repository exists already.
    IfThere,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied(pub &'static str);

/// What is allowed to whom.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Nothing but locks can be removed (`--append-only`), whatever right somebody has.
    pub append_only: bool,
    /// Users reach what is below the folder of their name only (`--private-repos`).
    pub private_repos: bool,
    /// Who has which right.
    pub rights: Rights,
}

/// Who has which right.
#[derive(Clone, Debug, Default)]
pub enum Rights {
    /// Everybody has every right.
    #[default]
    Full,
    /// As the settings file says.
    ByUser {
        /// The rules of single users.
        users: HashMap<UserName, Grants>,
        /// The rules of everybody else, if there are any.
        others: Option<Grants>,
    },
    /// As `rustic_server`'s rules say.
    Acl(acl::Acl),
}

/// The rights of one user.
#[derive(Clone, Debug)]
pub struct Grants {
    /// The more specific patterns first.
    rights: Vec<(PathPattern, Right)>,
    keys_closed: bool,
}

impl Grants {
    /// Rights by path; with `keys_closed`, the right to append includes no new keys.
    pub fn new(mut rights: Vec<(PathPattern, Right)>, keys_closed: bool) -> Self {
        rights.sort_by(|one, two| two.0.compare(&one.0));
        Self { rights, keys_closed }
    }

    fn right(&self, repo: &RepoPath, user: Option<&UserName>) -> Option<Right> {
        let (_, right) = self.rights.iter().find(|(pattern, _)| pattern.matches(repo, user))?;
        Some(*right).filter(|right| *right > Right::Nothing)
    }
}

impl Policy {
    /// Decides.
    pub fn decide(&self, who: &Principal, repo: &RepoPath, action: Action) -> Result<Decision, Denied> {
        // A table for the repository says more than the flag.
        let ruled = matches!(&self.rights, Rights::Acl(acl) if acl.rules(repo));
        if self.private_repos && !ruled && !is_own(who, repo) {
            return Err(Denied("the repository is another user's"));
        }
        let (right, keys_closed) = self.right(who, repo);
        let right = right.ok_or(Denied("the user has no right to this repository"))?;
        if let Action::Delete(object) = action {
            return self.decide_delete(right, object);
        }
        if right < needed(action) {
            return Err(Denied("the user's right to this repository does not include that"));
        }
        match action {
            Action::Store(Object::Blob(BlobType::Keys, _)) if keys_closed && right < Right::Full => {
                Err(Denied("the right to append does not include new keys here"))
            }
            // To make a lock is not to make a repository.
            Action::Store(_) if right < Right::Append => Ok(Decision::IfThere),
            _ => Ok(Decision::Allowed),
        }
    }

    const fn decide_delete(&self, right: Right, object: Object) -> Result<Decision, Denied> {
        match (object, right) {
            (Object::Blob(BlobType::Locks, _), Right::Full) => Ok(Decision::Allowed),
            (Object::Blob(BlobType::Locks, _), Right::Read | Right::Append) => Ok(Decision::IfOwn),
            _ if self.append_only => {
                Err(Denied("the server is append-only: nothing but locks can be deleted"))
            }
            (_, Right::Full) => Ok(Decision::Allowed),
            _ => Err(Denied("the user's right to this repository does not include deleting")),
        }
    }

    /// Whether there are tables of repositories, and none for this one, so that every user has every right to it.
    pub fn is_for_all(&self, repo: &RepoPath) -> bool {
        !self.private_repos && matches!(&self.rights, Rights::Acl(acl) if !acl.rules(repo))
    }

    /// The right to a repository, if there is any, and whether its keys are closed.
    fn right(&self, who: &Principal, repo: &RepoPath) -> (Option<Right>, bool) {
        let user = who.user();
        match &self.rights {
            Rights::Full => (Some(Right::Full), false),
            Rights::Acl(acl) => (acl.right(user, repo), false),
            Rights::ByUser { users, others } => {
                let own = user.and_then(|user| users.get(user));
                let Some(grants) = own.or(others.as_ref()) else { return (None, false) };
                (grants.right(repo, user), grants.keys_closed)
            }
        }
    }
}

const fn needed(action: Action) -> Right {
    match action {
        Action::List => Right::List,
        Action::Read | Action::Store(Object::Blob(BlobType::Locks, _)) => Right::Read,
        Action::Create | Action::Store(_) => Right::Append,
        Action::Delete(_) => Right::Full,
    }
}

fn is_own(who: &Principal, repo: &RepoPath) -> bool {
    let first = repo.folders().first();
    first.zip(who.user()).is_some_and(|(folder, user)| folder.as_bytes() == user.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BlobId;

    fn repo(path: &str) -> RepoPath {
        path.parse().expect("a path")
    }

    fn user(name: &str) -> Principal {
        Principal::User(UserName::new(name))
    }

    fn blob(kind: BlobType) -> Object {
        Object::Blob(kind, BlobId::from_digest([0; 32]))
    }

    fn objects() -> impl Iterator<Item = Object> {
        BlobType::ALL.into_iter().map(blob).chain([Object::Config])
    }

    fn with(right: Right, keys_closed: bool, append_only: bool) -> Policy {
        let grants = Grants::new(vec![("/**".parse().expect("a pattern"), right)], keys_closed);
        let rights = Rights::ByUser { users: HashMap::from([(UserName::new("a"), grants)]), others: None };
        Policy { append_only, private_repos: false, rights }
    }

    #[test]
    fn the_table_of_rights() {
        use Decision::{Allowed, IfOwn, IfThere};
        // By right: create, list, read, store a lock, store a key, store other objects, delete a lock, delete others.
        let table: [(Right, [Option<Decision>; 8]); 4] = [
            (Right::List, [None, Some(Allowed), None, None, None, None, None, None]),
            (Right::Read, [None, Some(Allowed), Some(Allowed), Some(IfThere), None, None, Some(IfOwn), None]),
            (
                Right::Append,
                [
                    Some(Allowed),
                    Some(Allowed),
                    Some(Allowed),
                    Some(Allowed),
                    Some(Allowed),
                    Some(Allowed),
                    Some(IfOwn),
                    None,
                ],
            ),
            (Right::Full, [Some(Allowed); 8]),
        ];
        for (right, wanted) in table {
            for (closed, append_only) in [(false, false), (true, false), (false, true), (true, true)] {
                let policy = with(right, closed, append_only);
                let [create, list, read, lock, key, other, unlock, delete] = wanted;
                let check = |action, wanted: Option<Decision>| {
                    let got = policy.decide(&user("a"), &repo("/x/"), action).ok();
                    assert_eq!(got, wanted, "{right:?} closed={closed} append_only={append_only} {action:?}");
                    assert!(policy.decide(&user("b"), &repo("/x/"), action).is_err(), "no rule is no right");
                    assert!(policy.decide(&Principal::Anonymous, &repo("/x/"), action).is_err());
                };
                check(Action::Create, create);
                check(Action::List, list);
                check(Action::Read, read);
                for object in objects() {
                    let (stored, deleted) = match object {
                        Object::Blob(BlobType::Locks, _) => (lock, unlock),
                        Object::Blob(BlobType::Keys, _) if closed && right == Right::Append => (None, delete),
                        Object::Blob(BlobType::Keys, _) => (key, delete.filter(|_| !append_only)),
                        _ => (other, delete.filter(|_| !append_only)),
                    };
                    check(Action::Store(object), stored);
                    check(Action::Delete(object), deleted);
                }
            }
        }
    }

    #[test]
    fn flags_alone() {
        for append_only in [false, true] {
            let policy = Policy { append_only, ..Policy::default() };
            for object in objects() {
                let is_lock = object == blob(BlobType::Locks);
                for who in [user("a"), Principal::Anonymous] {
                    let decide = |action| policy.decide(&who, &repo("/"), action) == Ok(Decision::Allowed);
                    assert_eq!(decide(Action::Delete(object)), is_lock || !append_only);
                    assert!(decide(Action::Store(object)) && decide(Action::Create) && decide(Action::Read));
                }
            }
        }
    }

    #[test]
    fn private_repositories() {
        let policy = Policy { private_repos: true, ..Policy::default() };
        for (path, wanted) in [
            ("/alice/", true),
            ("/alice/sub/", true),
            ("/", false),
            ("/bob/", false),
            ("/alicex/", false),
            ("/Alice/", false),
            ("/bob/alice/", false),
        ] {
            assert_eq!(policy.decide(&user("alice"), &repo(path), Action::List).is_ok(), wanted, "{path}");
            assert!(policy.decide(&Principal::Anonymous, &repo(path), Action::List).is_err());
        }
    }

    #[test]
    fn the_most_specific_pattern_counts_and_a_star_is_for_the_others() {
        let rules = |rules: &[(&str, Right)]| {
            Grants::new(rules.iter().map(|(p, r)| (p.parse().expect("a pattern"), *r)).collect(), false)
        };
        let alice = rules(&[
            ("/**", Right::List),
            ("/alice/**", Right::Full),
            ("/alice/old", Right::Read),
            ("/alice/gone", Right::Nothing),
        ]);
        let others = rules(&[("/{user}/**", Right::Append)]);
        let rights =
            Rights::ByUser { users: HashMap::from([(UserName::new("alice"), alice)]), others: Some(others) };
        let policy = Policy { rights, ..Policy::default() };
        for (who, path, wanted) in [
            ("alice", "/x/", Some(Right::List)),
            ("alice", "/alice/", Some(Right::Full)),
            ("alice", "/alice/old/", Some(Right::Read)),
            ("alice", "/alice/old/more/", Some(Right::Full)),
            ("alice", "/alice/gone/", None),
            ("bob", "/bob/a/b/", Some(Right::Append)),
            ("bob", "/alice/", None),
        ] {
            assert_eq!(policy.right(&user(who), &repo(path)).0, wanted, "{who} {path}");
        }
        assert_eq!(policy.right(&Principal::Anonymous, &repo("/bob/")).0, None);
    }
}
