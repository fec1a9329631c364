//! May you: a [`Principal`] and an [`Action`] → allowed or not. Pure.

use crate::types::{BlobType, Object, Principal};

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

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied(pub &'static str);

/// What is allowed to whom.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Nothing but locks can be removed (`--append-only`).
    pub append_only: bool,
}

impl Policy {
    /// Decides. Whether a name may be written again is the store's to say: it replaces nothing for anybody.
    pub const fn decide(&self, _who: &Principal, action: Action) -> Result<(), Denied> {
        match action {
            Action::Delete(Object::Blob(BlobType::Locks, _)) => Ok(()),
            Action::Delete(_) if self.append_only => {
                Err(Denied("the server is append-only: nothing but locks can be deleted"))
            }
            Action::Create | Action::List | Action::Read | Action::Store(_) | Action::Delete(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BlobId;

    #[test]
    fn append_only_keeps_all_but_locks() {
        let id = BlobId::from_digest([0; 32]);
        let objects = BlobType::ALL.into_iter().map(|kind| Object::Blob(kind, id)).chain([Object::Config]);
        for object in objects {
            let is_lock = matches!(object, Object::Blob(BlobType::Locks, _));
            for append_only in [false, true] {
                let decide = |action| Policy { append_only }.decide(&Principal::Anonymous, action).is_ok();
                assert_eq!(decide(Action::Delete(object)), is_lock || !append_only, "{object:?}");
                assert!(
                    decide(Action::Store(object))
                        && decide(Action::Create)
                        && decide(Action::Read)
                        && decide(Action::List)
                );
            }
        }
    }
}
