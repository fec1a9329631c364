//! What the ledger has written down: a line a repository with the most bytes on disk that it may hold and the objects that it
//! held then, the last line of one counts.
//!
//! ```text
//! packhouse quota 2
//! 268435456 1204 alice/laptop .
//! clean
//! ```
//!
//! A line without its point was cut by a crash or a full disk: nobody relied on it. With `clean` as its last line the numbers are exact: the server was stopped with nothing in flight.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::io::flush;
use crate::quota::bounds::Amount;
use crate::types::{FolderName, RepoPath};

const NAME: &str = "quota";
/// The journal that is to take its place.
const NEXT: &str = "quota.new";
const HEADER: &str = "packhouse quota 2";
const CLEAN: &str = "clean";
/// The end of a line that is whole: no path has a point in it.
const END: &str = " .";

/// What the journal says: what each repository may hold, and whether that is what it does hold.
pub type Written = (Vec<(RepoPath, Amount)>, bool);

/// Where the journal's files lie.
pub trait Folder: Send + Sync {
    /// What is in a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Writes a file anew; its content is durable afterwards, its name is not.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Adds to a file that is there, durably. A crash meanwhile may leave a part.
    fn append(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Puts a file in the place of another.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names durable.
    fn sync_names(&self) -> io::Result<()>;
}

impl Folder for PathBuf {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.join(name))
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(self.join(name))?;
        file.write_all(content)?;
        flush::file(&file)
    }

    fn append(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = File::options().append(true).open(self.join(name))?;
        file.write_all(content)?;
        flush::data(&file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.join(from), self.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        flush::folder(self)
    }
}

/// The file.
pub struct Journal {
    folder: Box<dyn Folder>,
    /// One writer at a time.
    writing: Mutex<()>,
}

impl Journal {
    /// The journal in this folder.
    pub fn new(folder: impl Folder + 'static) -> Self {
        Self { folder: Box::new(folder), writing: Mutex::default() }
    }

    /// What it says. None if there is no journal, or none that can be understood.
    pub fn read(&self) -> io::Result<Option<Written>> {
        match self.folder.read(NAME) {
            Ok(text) => Ok(String::from_utf8(text).ok().and_then(|text| parse(&text))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Removes it, durably: one that came back after a crash would not know what was stored without it.
    pub fn remove(&self) -> io::Result<()> {
        match self.folder.remove(NAME) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            // Who removed it may not have got as far as this.
            _ => self.folder.sync_names(),
        }
    }

    /// Adds a line, durably.
    pub fn append(&self, repo: &RepoPath, upto: Amount) -> io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // The line before may have been cut.
        self.folder.append(NAME, format!("\n{}", line(repo, upto)).as_bytes())
    }

    /// Puts a new journal in the place of the old, durably.
    pub fn rewrite(&self, entries: &[(RepoPath, Amount)], clean: bool) -> io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = format!("{HEADER}\n");
        text.extend(entries.iter().map(|(repo, upto)| line(repo, *upto)));
        if clean {
            text.push_str(CLEAN);
            text.push('\n');
        }
        self.folder.write(NEXT, text.as_bytes())?;
        self.folder.rename(NEXT, NAME)?;
        self.folder.sync_names()
    }
}

fn line(repo: &RepoPath, Amount { bytes, objects }: Amount) -> String {
    let names =
        repo.folders().iter().map(|name| percent_encode(name.as_bytes(), NON_ALPHANUMERIC).to_string());
    format!("{bytes} {objects} {}{END}\n", names.collect::<Vec<_>>().join("/"))
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
            let mut words = whole.splitn(3, ' ');
            let [bytes, objects, path] = [words.next()?, words.next()?, words.next()?];
            let upto = Amount { bytes: bytes.parse().ok()?, objects: objects.parse().ok()? };
            entries.insert(decode(path)?, upto);
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
        let (journal, path) = (Journal::new(dir.path().to_owned()), dir.path().join(NAME));
        assert!(journal.read().expect("read").is_none());
        let odd = RepoPath::new(vec![
            FolderName::parse(b"a b\xff").expect("valid"),
            FolderName::parse(b"c").expect("valid"),
        ]);
        let upto = |bytes, objects| Amount { bytes, objects };
        let entries = vec![(RepoPath::default(), upto(5, 1)), (odd.clone(), upto(u64::MAX, 0))];
        journal.rewrite(&entries, true).expect("written");
        assert_eq!(journal.read().expect("read"), Some((entries.clone(), true)));
        journal.append(&odd, upto(7, 2)).expect("written");
        let last = vec![(RepoPath::default(), upto(5, 1)), (odd, upto(7, 2))];
        assert_eq!(journal.read().expect("read"), Some((last, false)));
        let mut torn = std::fs::read(&path).expect("read");
        torn.extend(b"\n99 c");
        std::fs::write(&path, torn).expect("written");
        assert_eq!(journal.read().expect("read").map(|(entries, _)| entries.len()), Some(2));
        let next: RepoPath = "/next/".parse().expect("a path");
        journal.append(&next, upto(11, 3)).expect("written");
        assert_eq!(
            journal.read().expect("read").map(|(entries, _)| entries.len()),
            Some(3),
            "behind the cut line"
        );
        std::fs::write(&path, "something else\n").expect("written");
        assert!(journal.read().expect("read").is_none());
    }
}
