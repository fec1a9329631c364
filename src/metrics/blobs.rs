//! rest-server's six counters, by user, repository and type.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Counter;
use crate::types::{BlobType, Principal, RepoPath};

/// What is counted of the objects of one type of one repository, for one user.
#[derive(Debug, Default)]
pub struct Row {
    /// Objects stored.
    pub write: Counter,
    /// Their bytes.
    pub write_bytes: Counter,
    /// Objects read.
    pub read: Counter,
    /// Bytes sent.
    pub read_bytes: Counter,
    /// Objects removed.
    pub delete: Counter,
    /// Their bytes.
    pub delete_bytes: Counter,
}

/// User, repository and type.
type Labels = (Principal, RepoPath, BlobType);
/// None is for all that have no row of their own.
type Key = Option<Labels>;

/// Rows of all workers together. Six series each, which Prometheus reads and keeps: clients choose the names of repositories.
const MAX_ROWS: usize = 5000;
/// The labels of the row for all others.
const OTHERS: &str = "(others)";

/// The rows of one worker, as others see them.
pub type SharedRows = Arc<Mutex<Vec<(Key, Arc<Row>)>>>;

/// Those that have rows of their own, on all workers.
pub type Known = Arc<Mutex<HashSet<Labels>>>;

/// The rows of one worker. A lock is taken when a row is new, and for those that have none of their own.
#[derive(Default)]
pub struct BlobCounters {
    rows: RefCell<HashMap<Key, Arc<Row>>>,
    shared: SharedRows,
    known: Known,
}

impl BlobCounters {
    /// Counts into rows that others can see.
    pub fn new(shared: SharedRows, known: Known) -> Self {
        Self { rows: RefCell::default(), shared, known }
    }

    /// The row of these labels.
    pub fn row(&self, who: &Principal, repo: &RepoPath, kind: BlobType) -> Arc<Row> {
        let own = Some((who.clone(), repo.clone(), kind));
        let mut rows = self.rows.borrow_mut();
        if let Some(row) = rows.get(&own) {
            return Arc::clone(row);
        }
        let key = own.filter(|own| self.has_own_row(own));
        if let Some(row) = rows.get(&key) {
            return Arc::clone(row);
        }
        let row = Arc::new(Row::default());
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).push((key.clone(), Arc::clone(&row)));
        rows.insert(key, Arc::clone(&row));
        row
    }

    /// Whether there is room for a row of these labels, or one already.
    fn has_own_row(&self, labels: &Labels) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(labels) || known.len() < MAX_ROWS && known.insert(labels.clone())
    }
}

/// The labels of a row as rest-server writes them.
pub fn labels(key: &Key) -> [(&'static str, String); 3] {
    let Some((who, repo, kind)) = key else {
        return [("repo", OTHERS.into()), ("type", OTHERS.into()), ("user", OTHERS.into())];
    };
    let folders = repo.folders().iter().map(|folder| label(folder.as_bytes()));
    [
        ("repo", folders.collect::<Vec<_>>().join("/")),
        ("type", kind.as_str().to_owned()),
        ("user", who.user().map(|user| user.as_str().to_owned()).unwrap_or_default()),
    ]
}

/// A folder's name as text: bytes that are no UTF-8 are escaped, and the backslash with which they are, so that no two names
/// have one label.
fn label(folder: &[u8]) -> String {
    let mut text = String::new();
    for chunk in folder.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', r"\\"));
        text.extend(chunk.invalid().iter().map(|byte| format!(r"\x{byte:02x}")));
    }
    text
}

/// Every worker's rows, added up: labels and the six numbers in the order of [`NAMES`].
pub fn sum(workers: &[SharedRows]) -> Vec<(Key, [u64; 6])> {
    let mut sums: HashMap<Key, [u64; 6]> = HashMap::new();
    for worker in workers {
        for (key, row) in worker.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let sum = sums.entry(key.clone()).or_default();
            let Row { write, write_bytes, read, read_bytes, delete, delete_bytes } = &**row;
            let counters = [write, write_bytes, read, read_bytes, delete, delete_bytes];
            sum.iter_mut().zip(counters).for_each(|(sum, counter)| *sum += counter.get());
        }
    }
    sums.into_iter().collect()
}

/// rest-server's names, without the `_total` that every counter has, and their help.
pub const NAMES: [(&str, &str); 6] = [
    ("rest_server_blob_write", "Total number of blobs written"),
    ("rest_server_blob_write_bytes", "Total number of bytes written to blobs"),
    ("rest_server_blob_read", "Total number of blobs read"),
    ("rest_server_blob_read_bytes", "Total number of bytes read from blobs"),
    ("rest_server_blob_delete", "Total number of blobs deleted"),
    ("rest_server_blob_delete_bytes", "Total number of bytes of blobs deleted"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::FolderName;

    #[test]
    fn there_are_only_so_many_rows_and_no_two_with_one_label() {
        let (rows, kind) = (BlobCounters::default(), BlobType::Data);
        for n in 0..MAX_ROWS + 100 {
            let repo = format!("/r{n}/").parse().expect("a path");
            rows.row(&Principal::Anonymous, &repo, kind).write.increment();
        }
        let sums = sum(&[Arc::clone(&rows.shared)]);
        assert_eq!(sums.len(), MAX_ROWS + 1);
        let others = sums.iter().find(|(key, _)| key.is_none()).expect("a row");
        assert_eq!((others.1[0], labels(&others.0)[0].1.as_str()), (100, "(others)"));
        let of = |name: &[u8]| {
            let repo = RepoPath::new(vec![FolderName::parse(name).expect("a name")]);
            let [(_, label), ..] = labels(&Some((Principal::Anonymous, repo, kind)));
            label
        };
        assert_eq!(of("caf\u{e9}".as_bytes()), "caf\u{e9}");
        let all = [of(b"\xff"), of(b"\xfe"), of(b"\\xff"), of(b"\\\\xff")];
        let mut different = all.to_vec();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 4, "{all:?}");
    }
}
