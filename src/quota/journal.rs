//! What the ledger has written down: a line a repository with the most that it may hold, the last line of one counts.
//!
//! ```text
//! packhouse quota 1
//! 268435456 alice/laptop .
//! clean
//! ```
//!
//! A line without its point was cut by a crash or a full disk: nobody relied on it. With `clean` as its last line the numbers are exact: the server was stopped with nothing in flight.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::types::{FolderName, RepoPath};

const NAME: &str = "quota";
const HEADER: &str = "packhouse quota 1";
const CLEAN: &str = "clean";
/// The end of a line that is whole: no path has a point in it.
const END: &str = " .";

/// What the journal says: the bytes that each repository may hold, and whether that is what it does hold.
pub type Written = (Vec<(RepoPath, u64)>, bool);

/// The file.
pub struct Journal {
    folder: PathBuf,
    /// One writer at a time.
    writing: Mutex<()>,
}

impl Journal {
    /// The journal in this folder.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.into(), writing: Mutex::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// What it says. None if there is no journal, or none that can be understood.
    pub fn read(&self) -> io::Result<Option<Written>> {
        match std::fs::read_to_string(self.path()) {
            Ok(text) => Ok(parse(&text)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Removes it.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(self.path()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Adds a line, durably.
    pub fn append(&self, repo: &RepoPath, upto: u64) -> io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = File::options().append(true).open(self.path())?;
        // The line before may have been cut.
        file.write_all(format!("\n{}", line(repo, upto)).as_bytes())?;
        file.sync_data()
    }

    /// Puts a new journal in the place of the old, durably.
    pub fn rewrite(&self, entries: &[(RepoPath, u64)], clean: bool) -> io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = format!("{HEADER}\n");
        text.extend(entries.iter().map(|(repo, bytes)| line(repo, *bytes)));
        if clean {
            text.push_str(CLEAN);
            text.push('\n');
        }
        let temp = self.folder.join("quota.new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temp, self.path())?;
        File::open(&self.folder)?.sync_all()
    }
}

fn line(repo: &RepoPath, bytes: u64) -> String {
    let names =
        repo.folders().iter().map(|name| percent_encode(name.as_bytes(), NON_ALPHANUMERIC).to_string());
    format!("{bytes} {}{END}\n", names.collect::<Vec<_>>().join("/"))
}

fn parse(text: &str) -> Option<Written> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return None;
    }
    let (mut entries, mut clean) = (BTreeMap::new(), false);
    for line in lines {
        clean = line == CLEAN;
        if let Some(whole) = line.strip_suffix(END) {
            let (bytes, path) = whole.split_once(' ')?;
            entries.insert(decode(path)?, bytes.parse().ok()?);
        }
    }
    Some((entries.into_iter().collect(), clean))
}

fn decode(path: &str) -> Option<RepoPath> {
    if path.is_empty() {
        return Some(RepoPath::default());
    }
    let names = path.split('/').map(|name| {
        let name: Vec<u8> = percent_decode_str(name).collect();
        FolderName::parse(&name).ok()
    });
    names.collect::<Option<_>>().map(RepoPath::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let journal = Journal::new(dir.path());
        assert!(journal.read().expect("read").is_none());
        let odd = RepoPath::new(vec![
            FolderName::parse(b"a b\xff").expect("valid"),
            FolderName::parse(b"c").expect("valid"),
        ]);
        let entries = vec![(RepoPath::default(), 5), (odd.clone(), u64::MAX)];
        journal.rewrite(&entries, true).expect("written");
        assert_eq!(journal.read().expect("read"), Some((entries.clone(), true)));
        journal.append(&odd, 7).expect("written");
        assert_eq!(journal.read().expect("read"), Some((vec![(RepoPath::default(), 5), (odd, 7)], false)));
        let mut torn = std::fs::read(journal.path()).expect("read");
        torn.extend(b"\n99 c");
        std::fs::write(journal.path(), torn).expect("written");
        assert_eq!(journal.read().expect("read").map(|(entries, _)| entries.len()), Some(2));
        let next: RepoPath = "/next/".parse().expect("a path");
        journal.append(&next, 11).expect("written");
        assert_eq!(
            journal.read().expect("read").map(|(entries, _)| entries.len()),
            Some(3),
            "behind the cut line"
        );
        std::fs::write(journal.path(), "something else\n").expect("written");
        assert!(journal.read().expect("read").is_none());
    }
}
