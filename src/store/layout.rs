//! Where objects lie below the data folder. Pure.
//!
//! Byte for byte restic's local backend and rest-server's layout: `REPO/config`, `REPO/TYPE/ID`, and for data
//! `REPO/data/ID[0..2]/ID`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::types::{BlobId, BlobType, FolderName, Handle, Object, RepoPath};

/// What marks the name of an upload in progress, where the file system knows no unnamed files.
const TEMP_MARK: &str = ".packhouse-tmp-";
/// What marks the name of an object that was found damaged.
const QUARANTINE_MARK: &str = ".packhouse-damaged-";
/// What marks uploads of rest-server in progress.
const REST_SERVER_MARK: &[u8] = b".rest-server-temp";

/// The folder of a repository.
pub fn repo_dir(repo: &RepoPath) -> PathBuf {
    repo.folders().iter().map(FolderName::as_os_str).collect()
}

/// The folder of one type of blobs.
pub fn type_dir(repo: &RepoPath, kind: BlobType) -> PathBuf {
    repo_dir(repo).join(kind.as_str())
}

/// The folder that holds an object.
pub fn object_dir(handle: &Handle) -> PathBuf {
    match handle.object {
        Object::Config => repo_dir(&handle.repo),
        Object::Blob(BlobType::Data, id) => type_dir(&handle.repo, BlobType::Data).join(shard(id)),
        Object::Blob(kind, _) => type_dir(&handle.repo, kind),
    }
}

/// The object's file.
pub fn object_path(handle: &Handle) -> PathBuf {
    object_dir(handle).join(object_name(handle.object))
}

/// The object's file name in its folder.
pub fn object_name(object: Object) -> OsString {
    match object {
        Object::Config => "config".into(),
        Object::Blob(_, id) => id.hex().as_str().into(),
    }
}

/// The shard folder of a data blob.
pub fn shard(id: BlobId) -> String {
    let [first, ..] = id.digest();
    format!("{first:02x}")
}

/// How many shard folders `data` has.
pub const SHARDS: u64 = 256;

/// All shard folders of `data`.
pub fn shards() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(|first| format!("{first:02x}"))
}

/// What a repository consists of: there is a repository where one of these is.
pub fn repo_marks() -> impl Iterator<Item = &'static str> {
    FolderName::reserved()
}

/// Whether the entry `name` of a folder must be a folder itself: that of a type, or a shard of `data`.
pub fn is_folder(folder: &Path, name: &OsStr) -> bool {
    let is_data = folder.file_name() == Some(OsStr::new(BlobType::Data.as_str()));
    BlobType::parse(name.as_bytes()).is_some() || is_data && is_shard(name.as_bytes())
}

/// Whether a name is that of a shard of `data`.
pub fn is_shard(name: &[u8]) -> bool {
    name.len() == 2 && name.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name for an upload in progress.
pub fn temp_name(object: Object, unique: u64) -> OsString {
    let mut name = object_name(object);
    name.push(format!("{TEMP_MARK}{unique:016x}"));
    name
}

/// Whether a name is one of [`temp_name`]'s.
pub fn is_temp(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let Some((base, unique)) = name.len().checked_sub(16).and_then(|cut| name.split_at_checked(cut)) else {
        return false;
    };
    let Some(base) = base.strip_suffix(TEMP_MARK.as_bytes()) else { return false };
    (base == b"config" || BlobId::parse(base).is_some()) && unique.iter().all(u8::is_ascii_hexdigit)
}

/// A name in quarantine. No client can ask for it.
pub fn quarantine_name(name: &OsStr, unique: u64) -> OsString {
    let mut quarantined = name.to_owned();
    quarantined.push(format!("{QUARANTINE_MARK}{unique:016x}"));
    quarantined
}

/// Whether a name is one of [`quarantine_name`]'s.
pub fn is_quarantined(name: &OsStr) -> bool {
    name.as_bytes().windows(QUARANTINE_MARK.len()).any(|part| part == QUARANTINE_MARK.as_bytes())
}

/// Whether a name is a leftover of rest-server.
pub fn is_rest_server_temp(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (base, _) = name.split_at(name.len() - digits);
    let is_of = |base: &[u8]| base == b"config" || BlobId::parse(base).is_some();
    digits > 0 && base.strip_suffix(REST_SERVER_MARK).is_some_and(is_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(object: Object) -> Handle {
        Handle {
            repo: RepoPath::new(vec![
                FolderName::parse(b"a").expect("valid"),
                FolderName::parse(b"b").expect("valid"),
            ]),
            object,
        }
    }

    #[test]
    fn objects_lie_where_restic_looks_for_them() {
        let id = BlobId::from_digest([0xab; 32]);
        let place =
            |object| object_dir(&handle(object)).join(object_name(object)).to_string_lossy().into_owned();
        assert_eq!(place(Object::Config), "a/b/config");
        assert_eq!(place(Object::Blob(BlobType::Data, id)), format!("a/b/data/ab/{}", "ab".repeat(32)));
        assert_eq!(place(Object::Blob(BlobType::Locks, id)), format!("a/b/locks/{}", "ab".repeat(32)));
        assert_eq!(repo_dir(&RepoPath::default()), PathBuf::new());
        assert_eq!((shards().count(), shards().last()), (256, Some("ff".into())));
    }

    #[test]
    fn only_our_own_temps_are_taken_for_ours() {
        let id = BlobId::from_digest([7; 32]);
        assert!(is_temp(&temp_name(Object::Blob(BlobType::Keys, id), 1)));
        assert!(is_temp(&temp_name(Object::Config, u64::MAX)));
        for other in [
            "",
            "config",
            "x.packhouse-tmp-0000000000000000",
            "config.packhouse-tmp-1",
            &format!("{id}.rest-server-temp5577006791947779410"),
        ] {
            assert!(!is_temp(OsStr::new(other)), "{other}");
        }
        assert!(is_rest_server_temp(OsStr::new(&format!("{id}.rest-server-temp5577006791947779410"))));
    }
}
