//! A disk in memory that keeps what is durable apart from what is not, for tests: file data until its sync, directory
//! entries until the directory's sync. [`ModelDisk::crash`] is the power cut.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "for tests: an index that is out of bounds is a bug to be shown"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::rc::Rc;

use crate::io::dir::{DirId, Entry, Kind, Meta, Space};
use crate::io::file::File;
use crate::io::{Buffer, Fault};
use crate::store::disk::Disk;

type Inode = u64;
const ROOT: Inode = 1;

#[derive(Default)]
struct Node {
    is_dir: bool,
    entries: BTreeMap<OsString, Inode>,
    durable_entries: BTreeMap<OsString, Inode>,
    data: Vec<u8>,
    durable_data: Vec<u8>,
    owner: Option<String>,
}

struct State {
    nodes: HashMap<Inode, Node>,
    next: Inode,
    free_bytes: u64,
    crashes: u64,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct ModelDisk(Rc<RefCell<State>>);

impl Default for ModelDisk {
    fn default() -> Self {
        let root = Node { is_dir: true, ..Node::default() };
        Self(Rc::new(RefCell::new(State {
            nodes: HashMap::from([(ROOT, root)]),
            next: ROOT + 1,
            free_bytes: 1 << 40,
            crashes: 0,
        })))
    }
}

impl ModelDisk {
    /// The power goes off and on: only what was synced is there.
    pub fn crash(&self) {
        let mut state = self.0.borrow_mut();
        state.crashes += 1;
        for node in state.nodes.values_mut() {
            node.entries = node.durable_entries.clone();
            node.data = node.durable_data.clone();
        }
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
            node.data = data.to_vec();
        }
    }

    /// Paths of all files.
    pub fn files(&self) -> Vec<String> {
        let state = self.0.borrow();
        let mut found = Vec::new();
        let mut folders = vec![(String::new(), ROOT)];
        while let Some((path, inode)) = folders.pop() {
            for (name, child) in &state.nodes[&inode].entries {
                let path = format!("{path}{}", name.to_string_lossy());
                if state.nodes[child].is_dir {
                    folders.push((format!("{path}/"), *child));
                } else {
                    found.push(path);
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

    fn add(&self, dir: Inode, name: &OsStr, node: Node) -> io::Result<Inode> {
        let inode = self.make(node);
        self.enter(dir, name, inode)?;
        Ok(inode)
    }

    fn make(&self, node: Node) -> Inode {
        let mut state = self.0.borrow_mut();
        let inode = state.next;
        state.next += 1;
        state.nodes.insert(inode, node);
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

    fn with<T>(&self, inode: Inode, change: impl FnOnce(&mut Node) -> io::Result<T>) -> io::Result<T> {
        change(self.0.borrow_mut().nodes.get_mut(&inode).ok_or_else(|| Fault::Missing.to_error())?)
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

    async fn make_dir(&self, dir: &Inode, name: &OsStr) -> io::Result<bool> {
        match self.add(*dir, name, Node { is_dir: true, ..Node::default() }) {
            Err(e) if Fault::of(&e) == Fault::Exists => Ok(false),
            other => other.map(|_| true),
        }
    }

    async fn sync_dir(&self, dir: &Inode) -> io::Result<()> {
        self.with(*dir, |dir| {
            dir.durable_entries = dir.entries.clone();
            Ok(())
        })
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
        self.add(*dir, name, Node::default())
    }

    async fn link(&self, file: &Inode, dir: &Inode, name: &OsStr) -> io::Result<()> {
        self.enter(*dir, name, *file)
    }

    async fn rename(&self, dir: &Inode, from: &OsStr, to: &OsStr) -> io::Result<()> {
        let inode = self.lookup(*dir, from)?;
        self.enter(*dir, to, inode)?;
        self.unlink(dir, from).await.map(drop)
    }

    async fn unlink(&self, dir: &Inode, name: &OsStr) -> io::Result<u64> {
        let inode =
            self.with(*dir, |dir| dir.entries.remove(name).ok_or_else(|| Fault::Missing.to_error()))?;
        self.with(inode, |file| Ok(file.data.len() as u64))
    }

    async fn unlink_if_unlocked(&self, dir: &Inode, name: &OsStr) -> io::Result<bool> {
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
        self.with(*file, |file| {
            file.durable_data = file.data.clone();
            Ok(())
        })
    }

    async fn close(&self, _: Inode) -> io::Result<()> {
        Ok(())
    }
}
