//! A disk in memory that keeps what is durable apart from what is not, for tests: file data until its sync, directory
//! entries until the directory's sync. [`ModelDisk::crash`] is the power cut. A [`Flaw`] makes it forget a sync, so that
//! tests can show that they would notice.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "for tests: an index that is out of bounds is a bug to be shown"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::io::dir::{DirId, Kind, Meta, Space};
use crate::io::file::File;
use crate::io::listing::Entry;
use crate::io::{Buffer, Fault};
use crate::store::disk::Disk;

type Inode = u64;
const ROOT: Inode = 1;
/// What of a file that was not synced survives or not as one, in bytes. Small, as the files of tests are.
const BLOCK: usize = 8;

/// A sync that the disk says it did, and did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Of the content of files that have not got their name yet.
    NewContent,
    /// Of the content of files that have.
    NamedContent,
    /// Of the content of new files: it happens only after the next sync of a folder.
    LateContent,
    /// Of files added to a folder so many levels below the root.
    AddedFiles(usize),
    /// Of folders added to a folder so many levels below the root.
    AddedFolders(usize),
    /// Of what was removed from folders.
    Removed,
}

#[derive(Clone, Default)]
struct Node {
    is_dir: bool,
    /// Folders between it and the root.
    depth: usize,
    entries: BTreeMap<OsString, Inode>,
    durable_entries: BTreeMap<OsString, Inode>,
    data: Vec<u8>,
    durable_data: Vec<u8>,
    /// It has the name that it is to keep.
    named: bool,
    /// It is open in the process that made it.
    locked: bool,
    owner: Option<String>,
}

#[derive(Clone)]
struct State {
    /// In order, and shared with copies until they change.
    nodes: BTreeMap<Inode, Rc<Node>>,
    next: Inode,
    free_bytes: u64,
    crashes: u64,
    flaw: Option<Flaw>,
    /// Files whose sync is late.
    late: Vec<Inode>,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct ModelDisk(Rc<RefCell<State>>);

impl Default for ModelDisk {
    fn default() -> Self {
        let root = Node { is_dir: true, ..Node::default() };
        Self(Rc::new(RefCell::new(State {
            nodes: BTreeMap::from([(ROOT, Rc::new(root))]),
            next: ROOT + 1,
            free_bytes: 1 << 40,
            crashes: 0,
            flaw: None,
            late: Vec::new(),
        })))
    }
}

impl ModelDisk {
    /// Makes a repository with nothing but a folder for keys, durably.
    pub async fn make_repo(&self, path: &str) -> io::Result<()> {
        let mut reached = PathBuf::new();
        for name in &Path::new(path).join("keys") {
            let dir = self.open_dir(&reached).await?;
            self.make_dir(&dir, name).await?;
            self.sync_dir(&dir).await?;
            reached.push(name);
        }
        Ok(())
    }

    /// The power goes off and on: only what was synced is there.
    pub fn crash(&self) {
        self.crash_with(|_, _| false);
    }

    /// The power goes off and on. Of what was not synced there is what `survives` says, told the folder or file (a number
    /// that is never used again) and the entry or the block in it: the kernel writes in whatever order it likes.
    pub fn crash_with(&self, survives: impl Fn(u64, u64) -> bool) {
        let mut state = self.0.borrow_mut();
        state.crashes += 1;
        state.late.clear();
        for (inode, node) in &mut state.nodes {
            if node.locked {
                Rc::make_mut(node).locked = false;
            }
            if node.entries != node.durable_entries || node.data != node.durable_data {
                Rc::make_mut(node).crash(*inode, &survives);
            }
        }
    }

    /// A copy that goes its own way.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// From now on the disk is flawed.
    pub fn set_flaw(&self, flaw: Flaw) {
        self.0.borrow_mut().flaw = Some(flaw);
    }

    /// Sets the free space in bytes.
    pub fn set_free(&self, bytes: u64) {
        self.0.borrow_mut().free_bytes = bytes;
    }

    /// The content of the file at `path`.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.0.borrow();
        let node = state.nodes.get(&state.find(ROOT, Path::new(path))?)?;
        (!node.is_dir).then(|| node.data.clone())
    }

    /// Replaces the content of the file at `path`, as bit rot does.
    pub fn damage(&self, path: &str, data: &[u8]) {
        let mut state = self.0.borrow_mut();
        let found = state.find(ROOT, Path::new(path));
        if let Some(node) = found.and_then(|inode| state.nodes.get_mut(&inode)) {
            Rc::make_mut(node).data = data.to_vec();
        }
    }

    /// Whether there is a folder at `path`.
    pub fn has_folder(&self, path: &str) -> bool {
        let state = self.0.borrow();
        state.find(ROOT, Path::new(path)).is_some_and(|inode| state.nodes[&inode].is_dir)
    }

    /// Paths of all files.
    pub fn files(&self) -> Vec<String> {
        self.contents().into_iter().map(|(path, _)| path).collect()
    }

    /// All files, with what is in them.
    pub fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let state = self.0.borrow();
        let mut found = Vec::new();
        let mut folders = vec![(String::new(), ROOT)];
        while let Some((path, inode)) = folders.pop() {
            for (name, child) in &state.nodes[&inode].entries {
                let (path, node) = (format!("{path}{}", name.to_string_lossy()), &state.nodes[child]);
                if node.is_dir {
                    folders.push((format!("{path}/"), *child));
                } else {
                    found.push((path, node.data.clone()));
                }
            }
        }
        found.sort();
        found
    }

    fn lookup(&self, dir: Inode, name: &OsStr) -> io::Result<Inode> {
        let state = self.0.borrow();
        state
            .nodes
            .get(&dir)
            .and_then(|node| node.entries.get(name).copied())
            .ok_or_else(|| Fault::Missing.to_error())
    }

    fn add(&self, dir: Inode, name: &OsStr, mut node: Node) -> io::Result<Inode> {
        node.depth = self.with(dir, |dir| Ok(dir.depth))? + 1;
        let inode = self.make(node);
        self.enter(dir, name, inode)?;
        Ok(inode)
    }

    fn make(&self, node: Node) -> Inode {
        let mut state = self.0.borrow_mut();
        let inode = state.next;
        state.next += 1;
        state.nodes.insert(inode, Rc::new(node));
        inode
    }

    fn enter(&self, dir: Inode, name: &OsStr, inode: Inode) -> io::Result<()> {
        self.with(dir, |dir| {
            if dir.entries.contains_key(name) {
                return Err(Fault::Exists.to_error());
            }
            dir.entries.insert(name.to_owned(), inode);
            Ok(())
        })
    }

    fn sync_content(&self, file: Inode) -> io::Result<()> {
        self.with(file, |file| {
            file.durable_data.clone_from(&file.data);
            Ok(())
        })
    }

    fn with<T>(&self, inode: Inode, change: impl FnOnce(&mut Node) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.borrow_mut();
        let node = state.nodes.get_mut(&inode).ok_or_else(|| Fault::Missing.to_error())?;
        change(Rc::make_mut(node))
    }
}

impl Node {
    fn crash(&mut self, inode: Inode, survives: &impl Fn(u64, u64) -> bool) {
        for (name, child) in &self.entries {
            if self.durable_entries.get(name) != Some(child) && survives(inode, *child) {
                self.durable_entries.insert(name.clone(), *child);
            }
        }
        let removed =
            |name: &OsString, child: &Inode| self.entries.get(name) != Some(child) && survives(inode, *child);
        self.durable_entries.retain(|name, child| !removed(name, child));
        self.entries.clone_from(&self.durable_entries);
        if self.data != self.durable_data {
            if survives(inode, u64::MAX) {
                self.durable_data.resize(self.data.len(), 0);
            }
            for (block, (old, new)) in
                self.durable_data.chunks_mut(BLOCK).zip(self.data.chunks(BLOCK)).enumerate()
            {
                if survives(inode, block as u64) {
                    let len = old.len().min(new.len());
                    old[..len].copy_from_slice(&new[..len]);
                }
            }
            self.data.clone_from(&self.durable_data);
        }
    }

    /// Makes entries durable, but for those that `flaw` forgets.
    fn sync_entries(&mut self, flaw: Option<Flaw>, is_dir: impl Fn(Inode) -> bool) {
        let mut synced = self.entries.clone();
        match flaw {
            Some(Flaw::Removed) => {
                for (name, child) in &self.durable_entries {
                    synced.entry(name.clone()).or_insert(*child);
                }
            }
            Some(Flaw::AddedFiles(depth) | Flaw::AddedFolders(depth)) if depth == self.depth => {
                let folders = matches!(flaw, Some(Flaw::AddedFolders(_)));
                synced.retain(|name, child| {
                    self.durable_entries.get(name) == Some(child) || is_dir(*child) != folders
                });
            }
            _ => {}
        }
        self.durable_entries = synced;
    }
}

impl State {
    fn find(&self, dir: Inode, path: &Path) -> Option<Inode> {
        path.iter().try_fold(dir, |inode, name| self.nodes.get(&inode)?.entries.get(name).copied())
    }

    fn meta(&self, inode: Inode) -> Meta {
        let node = &self.nodes[&inode];
        Meta { kind: if node.is_dir { Kind::Dir } else { Kind::File }, size: node.data.len() as u64, inode }
    }
}

impl Disk for ModelDisk {
    type Dir = Inode;
    type File = Inode;
    type Reader = Vec<Entry>;

    fn root(&self) -> Inode {
        ROOT
    }

    fn dir_id(&self, dir: &Inode) -> io::Result<DirId> {
        // What was known to be durable before a crash need not be asked about by the process after it.
        Ok(DirId { device: self.0.borrow().crashes, inode: *dir, born: 0 })
    }

    async fn open_dir(&self, path: &Path) -> io::Result<Inode> {
        let state = self.0.borrow();
        let found = state.find(ROOT, path).filter(|inode| state.nodes[inode].is_dir);
        found.ok_or_else(|| Fault::Missing.to_error())
    }

    async fn make_dirs(&self, dir: &Inode, names: Vec<OsString>) -> io::Result<Vec<bool>> {
        let make = |name: &OsString| match self.add(*dir, name, Node { is_dir: true, ..Node::default() }) {
            Err(e) if Fault::of(&e) == Fault::Exists => Ok(false),
            other => other.map(|_| true),
        };
        names.iter().map(make).collect()
    }

    async fn sync_dir(&self, dir: &Inode) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let (flaw, late) = (state.flaw, std::mem::take(&mut state.late));
        let mut node = state.nodes.get(dir).cloned().ok_or_else(|| Fault::Missing.to_error())?;
        Rc::make_mut(&mut node).sync_entries(flaw, |child| state.nodes[&child].is_dir);
        state.nodes.insert(*dir, node);
        drop(state);
        late.iter().try_for_each(|file| self.sync_content(*file))
    }

    async fn space(&self, _: &Inode) -> io::Result<Space> {
        Ok(Space { bytes: 1 << 40, free_bytes: self.0.borrow().free_bytes, inodes: 0, free_inodes: 0 })
    }

    async fn read_dir(&self, dir: &Inode) -> io::Result<Vec<Entry>> {
        let state = self.0.borrow();
        let node = state.nodes.get(dir).ok_or_else(|| Fault::Missing.to_error())?;
        Ok(node
            .entries
            .iter()
            .map(|(name, inode)| Entry { name: name.clone(), meta: state.meta(*inode) })
            .collect())
    }

    async fn next_page(
        &self,
        reader: &mut Vec<Entry>,
        limit: usize,
        _: bool,
        wanted: fn(&[u8]) -> bool,
    ) -> io::Result<Vec<Entry>> {
        reader.retain(|entry| wanted(entry.name.as_encoded_bytes()));
        Ok(reader.drain(..limit.min(reader.len())).collect())
    }

    async fn stat(&self, dir: &Inode, path: &Path) -> io::Result<Meta> {
        self.open_file(dir, path).await.map(|(_, meta)| meta)
    }

    async fn open_file(&self, dir: &Inode, path: &Path) -> io::Result<(Inode, Meta)> {
        let state = self.0.borrow();
        let inode = state.find(*dir, path).ok_or_else(|| Fault::Missing.to_error())?;
        Ok((inode, state.meta(inode)))
    }

    async fn create_unnamed(&self, _: &Inode) -> io::Result<Inode> {
        Ok(self.make(Node::default()))
    }

    async fn create_locked(&self, dir: &Inode, name: &OsStr) -> io::Result<Inode> {
        self.add(*dir, name, Node { locked: true, ..Node::default() })
    }

    async fn link(&self, file: &Inode, dir: &Inode, name: &OsStr) -> io::Result<()> {
        self.enter(*dir, name, *file)?;
        self.with(*file, |file| {
            file.named = true;
            Ok(())
        })
    }

    async fn rename(&self, dir: &Inode, from: &OsStr, into: &Inode, to: &OsStr) -> io::Result<()> {
        let inode = self.lookup(*dir, from)?;
        self.link(&inode, into, to).await?;
        self.unlink(dir, from).await.map(drop)
    }

    async fn set_aside(&self, dir: &Inode, from: &OsStr, to: &OsStr, inode: u64) -> io::Result<bool> {
        match self.lookup(*dir, from) {
            Ok(found) if found == inode => self.rename(dir, from, dir, to).await.map(|()| true),
            _ => Ok(false),
        }
    }

    async fn unlink(&self, dir: &Inode, name: &OsStr) -> io::Result<u64> {
        let inode =
            self.with(*dir, |dir| dir.entries.remove(name).ok_or_else(|| Fault::Missing.to_error()))?;
        self.with(inode, |file| Ok(file.data.len() as u64))
    }

    async fn unlink_if_old(&self, _: &Inode, _: &OsStr, _: Duration) -> io::Result<bool> {
        // There is no clock here.
        Ok(false)
    }

    async fn unlink_if_unlocked(&self, dir: &Inode, name: &OsStr) -> io::Result<bool> {
        let inode = self.lookup(*dir, name)?;
        if self.with(inode, |file| Ok(file.locked))? {
            return Ok(false);
        }
        self.unlink(dir, name).await.map(|_| true)
    }

    fn local<'f>(&self, _: &'f Inode) -> Option<&'f File> {
        None
    }

    async fn read_at(&self, file: &Inode, mut buffer: Buffer, offset: u64) -> (io::Result<usize>, Buffer) {
        buffer.truncate(0);
        let read =
            self.with(*file, |file| Ok(buffer.append(file.data.get(offset as usize..).unwrap_or_default())));
        (read, buffer)
    }

    async fn write_all_at(&self, file: &Inode, buffer: Buffer, offset: u64) -> (io::Result<()>, Buffer) {
        if buffer.len() as u64 > self.0.borrow().free_bytes {
            return (Err(Fault::NoSpace.to_error()), buffer);
        }
        let written = self.with(*file, |file| {
            let end = offset as usize + buffer.len();
            file.data.resize(end.max(file.data.len()), 0);
            file.data[offset as usize..end].copy_from_slice(&buffer);
            Ok(())
        });
        (written, buffer)
    }

    async fn preallocate(&self, file: &Inode, offset: u64, len: u64) -> io::Result<bool> {
        if len > self.0.borrow().free_bytes {
            return Err(Fault::NoSpace.to_error());
        }
        self.with(*file, |file| {
            let end = (offset + len) as usize;
            file.data.resize(end.max(file.data.len()), 0);
            Ok(true)
        })
    }

    async fn set_owner(&self, file: &Inode, owner: &str) -> io::Result<()> {
        self.with(*file, |file| {
            file.owner = Some(owner.to_owned());
            Ok(())
        })
    }

    async fn owner(&self, file: &Inode) -> io::Result<Option<String>> {
        self.with(*file, |file| Ok(file.owner.clone()))
    }

    async fn set_len(&self, file: &Inode, len: u64) -> io::Result<()> {
        self.with(*file, |file| {
            file.data.resize(len as usize, 0);
            Ok(())
        })
    }

    async fn sync_data(&self, file: &Inode) -> io::Result<()> {
        let named = self.with(*file, |file| Ok(file.named))?;
        let mut state = self.0.borrow_mut();
        match state.flaw {
            Some(Flaw::NewContent) if !named => Ok(()),
            Some(Flaw::NamedContent) if named => Ok(()),
            Some(Flaw::LateContent) if !named => {
                state.late.push(*file);
                Ok(())
            }
            _ => {
                drop(state);
                self.sync_content(*file)
            }
        }
    }

    fn is_older_than(&self, _: &Inode, _: Duration) -> io::Result<bool> {
        // There is no clock here.
        Ok(true)
    }

    fn bypass_memory(&self, _: &Inode) {}

    async fn close(&self, file: Inode) -> io::Result<()> {
        self.with(file, |file| {
            file.locked = false;
            Ok(())
        })
    }
}
