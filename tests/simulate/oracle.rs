//! What was promised to clients, and whether a disk keeps it.

use std::collections::BTreeMap;

use packhouse::hash::Sha256;
use packhouse::store::layout;
use packhouse::store::model::ModelDisk;
use packhouse::types::{BlobId, Handle, Object, on_disk};

/// When, in events of a history.
pub type Time = u64;

/// A request that changes an object.
struct Request {
    begun: Time,
    /// When it was answered, if it was.
    ended: Option<Time>,
    acknowledged: bool,
}

impl Request {
    /// Whether it was over before another one began.
    fn is_before(&self, begun: Time) -> bool {
        self.ended.is_some_and(|ended| ended < begun)
    }
}

#[derive(Default)]
struct Record {
    /// With what they were to store.
    puts: Vec<(Request, Vec<u8>)>,
    deletes: Vec<Request>,
    /// Somebody else put it there, by which nothing was promised.
    foreign: bool,
}

impl Record {
    /// The content that must be there; if there are several, something was acknowledged that must not have been.
    fn promised(&self) -> impl Iterator<Item = &Vec<u8>> {
        let kept =
            |put: &Request| put.acknowledged && self.deletes.iter().all(|delete| delete.is_before(put.begun));
        self.puts.iter().filter(move |(put, _)| kept(put)).map(|(_, content)| content)
    }

    /// What somebody else put there need not be whole before a client was told that it is.
    fn is_excused(&self) -> bool {
        self.foreign && self.promised().next().is_none()
    }

    /// Whether nothing may be there.
    fn is_gone(&self) -> bool {
        let after_all = |begun: Time| self.puts.iter().all(|(put, _)| put.is_before(begun));
        let deleted = self.deletes.iter().any(|delete| delete.acknowledged && after_all(delete.begun));
        !self.foreign && (deleted || self.puts.is_empty())
    }
}

/// All requests of a history so far, by the path of what they change.
#[derive(Default)]
pub struct Oracle {
    clock: Time,
    records: BTreeMap<String, Record>,
    /// Repositories whose making was acknowledged.
    made: Vec<String>,
}

/// A request under way.
pub struct Pending {
    path: String,
    at: usize,
    is_put: bool,
}

impl Oracle {
    fn tick(&mut self) -> Time {
        self.clock += 1;
        self.clock
    }

    fn request(&mut self) -> Request {
        Request { begun: self.tick(), ended: None, acknowledged: false }
    }

    pub fn begin_put(&mut self, handle: &Handle, content: &[u8]) -> Pending {
        let (path, request) = (path_of(handle), self.request());
        let puts = &mut self.records.entry(path.clone()).or_default().puts;
        puts.push((request, content.to_vec()));
        Pending { at: puts.len() - 1, path, is_put: true }
    }

    pub fn begin_delete(&mut self, handle: &Handle) -> Pending {
        let (path, request) = (path_of(handle), self.request());
        let deletes = &mut self.records.entry(path.clone()).or_default().deletes;
        deletes.push(request);
        Pending { at: deletes.len() - 1, path, is_put: false }
    }

    pub fn end(&mut self, pending: &Pending, acknowledged: bool) {
        let now = self.tick();
        let record = self.records.get_mut(&pending.path).expect("it was begun");
        let request =
            if pending.is_put { &mut record.puts[pending.at].0 } else { &mut record.deletes[pending.at] };
        (request.ended, request.acknowledged) = (Some(now), acknowledged);
    }

    pub fn foreign(&mut self, handle: &Handle) {
        self.records.entry(path_of(handle)).or_default().foreign = true;
    }

    pub fn made(&mut self, repo: &str) {
        self.made.push(repo.to_owned());
    }

    /// What is wrong with a disk, if something is. After a crash it was swept.
    pub fn verdict(&self, disk: &ModelDisk, crashed: bool) -> Option<String> {
        let files: BTreeMap<String, Vec<u8>> = disk.contents().into_iter().collect();
        for (path, record) in &self.records {
            let there = files.get(path);
            for promised in record.promised() {
                match there {
                    None => return Some(format!("{path} was acknowledged and is lost")),
                    Some(content) if content != promised => {
                        return Some(format!("{path} was acknowledged and has other bytes: {content:?}"));
                    }
                    Some(_) => {}
                }
            }
            if there.is_some() && record.is_gone() {
                return Some(format!("{path} was deleted, which was acknowledged, and is there"));
            }
        }
        for (path, content) in &files {
            if crashed && is_leftover(path) {
                return Some(format!("{path} is left over"));
            }
            let record = self.records.get(path);
            let excused = record.is_some_and(Record::is_excused);
            let is_object = !is_leftover(path) && !layout::is_quarantined(path.as_ref());
            if is_object && !excused && !is_right(path, content, record) {
                return Some(format!("{path} is there in part, or wrong: {content:?}"));
            }
        }
        for repo in &self.made {
            if ["data", "snapshots"].iter().any(|kind| !disk.has_folder(&format!("{repo}/{kind}"))) {
                return Some(format!("{repo} was made, which was acknowledged, and lacks folders"));
            }
        }
        None
    }

    /// After a crash and a look at it: what is there stays, what is not does not come back.
    pub fn begin_anew(&mut self, disk: &ModelDisk) {
        let now = self.tick();
        for record in self.records.values_mut() {
            *record = Record { foreign: record.is_excused(), ..Record::default() };
        }
        let kept = disk.contents().into_iter().filter(|(path, _)| !layout::is_quarantined(path.as_ref()));
        for (path, content) in kept {
            let record = self.records.entry(path).or_default();
            if !record.foreign {
                let request = Request { begun: now, ended: Some(now), acknowledged: true };
                record.puts.push((request, content));
            }
        }
    }
}

fn path_of(handle: &Handle) -> String {
    layout::object_path(handle).to_string_lossy().into_owned()
}

fn is_leftover(path: &str) -> bool {
    !path.ends_with("/config")
        && !layout::is_quarantined(path.as_ref())
        && path.rsplit('/').next().is_none_or(|name| name.len() != 64)
}

/// Whether a file is what its name says; of `config` whether some request wanted to store this.
fn is_right(path: &str, content: &[u8], record: Option<&Record>) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    match BlobId::parse(name.as_bytes()) {
        Some(id) => Sha256::of(content) == *id.digest(),
        None => record.is_some_and(|record| record.puts.iter().any(|(_, wanted)| wanted == content)),
    }
}

/// Bytes of objects that count towards a quota, in a repository: of locks, or of all others.
pub fn counted_bytes(disk: &ModelDisk, repo: &str, of_locks: bool) -> u64 {
    let files = disk.contents();
    let counted = files.iter().filter(|(path, _)| {
        path.starts_with(&repo[1..])
            && !is_leftover(path)
            && !layout::is_quarantined(path.as_ref())
            && path.contains("/locks/") == of_locks
    });
    counted.map(|(_, content)| on_disk(content.len() as u64)).sum()
}

/// An object of a repository.
pub fn handle(repo: &str, object: Object) -> Handle {
    Handle { repo: repo.parse().expect("a valid path"), object }
}
