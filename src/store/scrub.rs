//! Reads objects back and looks whether they still are what their names say. In order, so that it can go on where it ended.
//!
//! Only a rename ever changes anything: the quarantine of a damaged object is another name in its folder, so that nobody
//! lists it, restic uploads it again, and what is left of it can still be looked at.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::hash::Digest;
use crate::io::dir::{Kind, Meta};
use crate::io::runtime::{random, sleep};
use crate::io::{BufferPool, Fault};
use crate::store::disk::Disk;
use crate::store::hashing::read_back;
use crate::store::{census, layout};
use crate::types::{BlobId, BlobType, FolderName, Handle, Object, RepoPath, escaped};

/// Entries read at a time.
const PAGE_ENTRIES: usize = 1000;

/// A folder of a repository, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spot {
    /// The repository's own.
    Repo,
    /// A type's.
    Type(BlobType),
    /// A shard of `data`.
    Shard(u8),
}

impl Verdict {
    /// Whether the bytes are lost.
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Damaged | Self::Unreadable)
    }

    /// One word for people and programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Damaged => "damaged",
            Self::Unreadable => "unreadable",
            Self::Misplaced => "misplaced",
            Self::Gone => "gone",
        }
    }
}

impl Spot {
    /// All of a repository, sorted: what comes before a place was looked at before it.
    fn all() -> impl Iterator<Item = Self> {
        let mut types = BlobType::ALL;
        types.sort_unstable();
        let types = types.into_iter().map(Self::Type);
        [Self::Repo].into_iter().chain(types).chain((0..=u8::MAX).map(Self::Shard))
    }

    fn folder(self, repo: &RepoPath) -> PathBuf {
        match self {
            Self::Repo => layout::repo_dir(repo),
            Self::Type(kind) => layout::type_dir(repo, kind),
            Self::Shard(shard) => layout::type_dir(repo, BlobType::Data).join(format!("{shard:02x}")),
        }
    }

    /// Whether an object of this name belongs here.
    const fn holds(self, id: BlobId) -> bool {
        let [first, ..] = *id.digest();
        match self {
            Self::Repo | Self::Type(BlobType::Data) => false,
            Self::Type(_) => true,
            Self::Shard(shard) => shard == first,
        }
    }
}

/// Where an object lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// In which repository.
    pub repo: RepoPath,
    /// In which folder of it.
    pub spot: Spot,
    /// Under which name.
    pub name: OsString,
}

impl Place {
    /// Its path below the data folder.
    pub fn path(&self) -> PathBuf {
        self.spot.folder(&self.repo).join(&self.name)
    }

    /// The object that clients know it as, if they know it.
    pub fn handle(&self) -> Option<Handle> {
        let object = match (self.spot, BlobId::parse(self.name.as_bytes())) {
            (Spot::Type(kind), Some(id)) if kind != BlobType::Data => Object::Blob(kind, id),
            (Spot::Shard(_), Some(id)) => Object::Blob(BlobType::Data, id),
            (Spot::Repo, None) => Object::Config,
            _ => return None,
        };
        Some(Handle { repo: self.repo.clone(), object })
    }

    /// The place with this path, however it was found.
    pub fn of(path: &Path) -> Option<Self> {
        let mut parts: Vec<&[u8]> = path.iter().map(OsStr::as_bytes).collect();
        let name = OsStr::from_bytes(parts.pop()?).to_owned();
        let (spot, taken) = match *parts.as_slice() {
            [.., kind, shard] if BlobType::parse(kind) == Some(BlobType::Data) => {
                (Spot::Shard(u8::from_str_radix(str::from_utf8(shard).ok()?, 16).ok()?), 2)
            }
            [.., kind] if let Some(kind) = BlobType::parse(kind) => (Spot::Type(kind), 1),
            _ => (Spot::Repo, 0),
        };
        parts.truncate(parts.len() - taken);
        let folders = parts.into_iter().map(FolderName::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { repo: RepoPath::new(folders), spot, name })
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The bytes are right; of `config`, which is not named by its hash, all of them could be read.
    Right,
    /// The bytes are not those that the name promises.
    Damaged,
    /// The device does not give the bytes back.
    Unreadable,
    /// It is no object where it lies: restic does not find it there.
    Misplaced,
    /// It was deleted meanwhile.
    Gone,
}

/// An object that was looked at, of a disk with files `F`.
#[derive(Debug)]
pub struct Checked<F> {
    /// Where it lies.
    pub place: Place,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes that it has.
    pub size: u64,
    /// What was found.
    pub verdict: Verdict,
    /// The file, open as long as this lives so that its number stands for no other, its number, and what it hashes to.
    file: Option<(F, u64)>,
    digest: Option<Digest>,
}

impl<F> Checked<F> {
    /// Whether quarantine helps. Without its `config` or its keys nobody could open the repository, and no client stores
    /// them again; a misplaced object is whole.
    pub fn is_for_quarantine(&self) -> bool {
        let is_needed = matches!(self.place.spot, Spot::Repo | Spot::Type(BlobType::Keys));
        self.verdict.is_loss() && self.file.is_some() && !is_needed
    }
}

/// Goes through repositories, object by object, in order.
pub struct Scrubber<D: Disk> {
    disk: D,
    /// How many there are in all.
    repos: usize,
    /// Folders to come.
    folders: Box<dyn Iterator<Item = (RepoPath, Spot)>>,
    /// The current one, and names in it to come.
    here: Option<(D::Dir, RepoPath, Spot)>,
    names: VecDeque<OsString>,
    /// Folders that may be repositories and can't be read.
    unread: Vec<String>,
    /// Up to here everything was looked at before.
    after: Option<Place>,
    buffers: BufferPool,
}

impl<D: Disk> Scrubber<D> {
    /// Of one repository, or of all, which are at most `depth` folders deep; goes on behind `after`.
    pub async fn new(disk: D, only: Option<&RepoPath>, depth: usize, after: Option<Place>) -> Self {
        let depth = only.map_or(depth, |repo| repo.folders().len());
        let mut unread = Vec::new();
        let mut repos = census::find_repositories(&disk, depth, |failed| unread.push(failed)).await;
        repos.retain(|repo| only.is_none_or(|only| repo == only));
        let count = repos.len();
        let folders = repos.into_iter().flat_map(|repo| Spot::all().map(move |spot| (repo.clone(), spot)));
        let begin = after.as_ref().map(|place| (place.repo.clone(), place.spot));
        let folders =
            Box::new(folders.skip_while(move |folder| begin.as_ref().is_some_and(|begin| folder < begin)));
        Self {
            disk,
            repos: count,
            folders,
            here: None,
            names: VecDeque::new(),
            unread,
            after,
            buffers: BufferPool::new(1),
        }
    }

    /// Whether there is no repository to go through.
    pub fn is_empty(&self) -> bool {
        self.repos == 0 && self.unread.is_empty()
    }

    /// Looks at the next object; none at the end. `pause` is told the bytes of every piece that was read and says how long
    /// to wait.
    ///
    /// # Errors
    /// A folder can't be read, and what is in it is not looked at. The next call goes on behind it.
    pub async fn next(
        &mut self,
        mut pause: impl FnMut(usize) -> Duration,
    ) -> io::Result<Option<Checked<D::File>>> {
        if let Some(failed) = self.unread.pop() {
            return Err(io::Error::other(failed));
        }
        loop {
            let Some((dir, repo, spot)) = &self.here else {
                let Some((repo, spot)) = self.folders.next() else { return Ok(None) };
                if let Some((dir, names)) = self.look_into(&repo, spot).await? {
                    (self.here, self.names) = (Some((dir, repo, spot)), names);
                }
                continue;
            };
            let Some(name) = self.names.pop_front() else {
                self.here = None;
                continue;
            };
            let place = Place { repo: repo.clone(), spot: *spot, name };
            if self.after.as_ref().is_none_or(|after| place > *after) {
                return self.check(dir, place, &mut pause).await.map(Some);
            }
        }
    }

    /// A folder and the names of the objects in it, sorted; none if it is not there.
    async fn look_into(
        &self,
        repo: &RepoPath,
        spot: Spot,
    ) -> io::Result<Option<(D::Dir, VecDeque<OsString>)>> {
        let path = spot.folder(repo);
        let failed = |e: io::Error| about(&path, &e);
        let dir = match self.disk.open_dir(&path).await {
            Err(e) if Fault::of(&e) == Fault::Missing => return Ok(None),
            other => other.map_err(failed)?,
        };
        let mut reader = self.disk.read_dir(&dir).await.map_err(failed)?;
        let is_object = |name: &[u8]| name == b"config" || BlobId::parse(name).is_some();
        let mut names = Vec::new();
        loop {
            let page =
                self.disk.next_page(&mut reader, PAGE_ENTRIES, false, is_object).await.map_err(failed)?;
            if page.is_empty() {
                names.sort_unstable();
                return Ok(Some((dir, names.into())));
            }
            // A `config` is one only in the repository's own folder.
            // Folders and pipes too: the look at them tells the operator.
            names.extend(
                page.into_iter()
                    .map(|entry| entry.name)
                    .filter(|name| spot == Spot::Repo || name != "config"),
            );
        }
    }

    async fn check(
        &self,
        dir: &D::Dir,
        place: Place,
        pause: &mut impl FnMut(usize) -> Duration,
    ) -> io::Result<Checked<D::File>> {
        let id = BlobId::parse(place.name.as_encoded_bytes());
        let (file, meta) = match self.disk.open_file(dir, place.name.as_ref()).await {
            Ok(opened) => opened,
            Err(e) => {
                let verdict = match Fault::of(&e) {
                    Fault::Missing => Verdict::Gone,
                    Fault::Device => Verdict::Unreadable,
                    _ => return Err(about(&place.path(), &e)),
                };
                return Ok(Checked { place, bytes: 0, size: 0, verdict, file: None, digest: None });
            }
        };
        let Meta { kind, inode, size } = meta;
        if kind != Kind::File {
            return Err(about(
                &place.path(),
                &io::Error::other("what stands there is no file: move it away"),
            ));
        }
        if id.is_some_and(|id| !place.spot.holds(id)) {
            let verdict = Verdict::Misplaced;
            return Ok(Checked { place, bytes: 0, size, verdict, file: None, digest: None });
        }
        let (bytes, digest) = self.digest(&file, pause).await.map_err(|e| about(&place.path(), &e))?;
        let verdict = match (digest, id) {
            (None, _) => Verdict::Unreadable,
            (Some(digest), Some(id)) if digest != *id.digest() => Verdict::Damaged,
            (Some(_), _) => Verdict::Right,
        };
        Ok(Checked { place, bytes, size, verdict, file: Some((file, inode)), digest })
    }

    /// Bytes that could be read, and their SHA-256 if the device gave all of them back.
    ///
    /// # Errors
    /// Of anything but the device: they say nothing about the object.
    async fn digest(
        &self,
        file: &D::File,
        pause: &mut impl FnMut(usize) -> Duration,
    ) -> io::Result<(u64, Option<Digest>)> {
        // What is in memory says nothing of what is on the disk.
        self.disk.bypass_memory(file);
        let (bytes, digest) = read_back(&self.disk, file, &self.buffers, pause).await;
        self.disk.bypass_memory(file);
        match digest {
            Ok(digest) => Ok((bytes, Some(digest))),
            Err(e) if Fault::of(&e) == Fault::Device => Ok((bytes, None)),
            Err(e) => Err(e),
        }
    }

    /// Puts an object that was found damaged into quarantine, under the path that is returned, unless there is a reason not
    /// to. It is looked at a second time after `pause`, and left alone if it was written to within `quiet`.
    pub async fn quarantine(
        &self,
        checked: &Checked<D::File>,
        pause: Duration,
        quiet: Duration,
    ) -> io::Result<Result<Quarantined, NotRenamed>> {
        let Some((file, inode)) = &checked.file else { return Ok(Err(NotRenamed::Other)) };
        if !self.disk.is_older_than(file, quiet)? {
            return Ok(Err(NotRenamed::Young));
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
        // A cable that was loose, or a bit that flipped in memory, is no damage on the disk.
        if self.digest(file, &mut |_| Duration::ZERO).await? != (checked.bytes, checked.digest) {
            return Ok(Err(NotRenamed::Other));
        }
        let Place { repo, spot, name } = &checked.place;
        let folder = spot.folder(repo);
        let dir = self.disk.open_dir(&folder).await?;
        let new = layout::quarantine_name(name, random());
        if !self.disk.set_aside(&dir, name, &new, *inode).await? {
            return Ok(Err(NotRenamed::Other));
        }
        let synced = self.disk.sync_dir(&dir).await;
        Ok(Ok(Quarantined { path: folder.join(new), synced }))
    }
}

/// The same error, with what it is about.
fn about(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", escaped(path)))
}

/// Why a damaged object was not renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRenamed {
    /// It was written to of late, and may still be copied in.
    Young,
    /// A second look found something else, or the name stands for another file by now.
    Other,
    /// A key or a config: without it the repository could not be opened, and no client stores it again.
    Needed,
}

impl NotRenamed {
    /// Whether time alone stands in the way.
    pub const fn is_young(self) -> bool {
        matches!(self, Self::Young)
    }

    /// For the operator, where what was written to within `quiet` is left alone.
    pub fn text(self, quiet: Duration) -> String {
        match self {
            Self::Young => format!(
                "it was written less than {} ago and may still be copied in",
                humantime::format_duration(quiet)
            ),
            Self::Other => "a second look found something else".into(),
            Self::Needed => "keys and config stay where they are: restore them from a copy".into(),
        }
    }
}

/// An object in quarantine.
#[derive(Debug)]
pub struct Quarantined {
    /// Where it is now.
    pub path: PathBuf,
    /// Whether that is durable. If it is not, it may be back after a power cut, and is found again.
    pub synced: io::Result<()>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_looked_at_in_order() {
        assert!(Spot::all().is_sorted());
        assert_eq!(Spot::all().count(), 1 + BlobType::ALL.len() + 256);
    }

    #[test]
    fn a_place_is_found_again_by_its_path() {
        let id = "ab".repeat(32);
        let repo: RepoPath = "/a/b/".parse().expect("a path");
        for (spot, name) in [
            (Spot::Repo, "config"),
            (Spot::Type(BlobType::Keys), id.as_str()),
            (Spot::Type(BlobType::Data), &id),
            (Spot::Shard(0xab), &id),
        ] {
            for repo in [repo.clone(), RepoPath::default()] {
                let place = Place { repo, spot, name: name.into() };
                assert_eq!(Place::of(&place.path()), Some(place));
            }
        }
        assert_eq!(Place::of(Path::new("a/data/zz/x")), None);
        assert_eq!(Place::of(Path::new("")), None);
    }
}
