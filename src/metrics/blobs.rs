//! rest-server's six counters, by user, repository and type.

use std::cell::RefCell;
use std::collections::HashMap;
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

type Key = (Principal, RepoPath, BlobType);

/// The rows of one worker, as others see them.
pub type SharedRows = Arc<Mutex<Vec<(Key, Arc<Row>)>>>;

/// The rows of one worker. A lock is taken only when a row is new.
#[derive(Default)]
pub struct BlobCounters {
    rows: RefCell<HashMap<Key, Arc<Row>>>,
    shared: SharedRows,
}

impl BlobCounters {
    /// Counts into rows that others can see.
    pub fn new(shared: SharedRows) -> Self {
        Self { rows: RefCell::default(), shared }
    }

    /// The row of these labels.
    pub fn row(&self, who: &Principal, repo: &RepoPath, kind: BlobType) -> Arc<Row> {
        let key = (who.clone(), repo.clone(), kind);
        let mut rows = self.rows.borrow_mut();
        if let Some(row) = rows.get(&key) {
            return Arc::clone(row);
        }
        let row = Arc::new(Row::default());
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).push((key.clone(), Arc::clone(&row)));
        rows.insert(key, Arc::clone(&row));
        row
    }
}

/// The labels of a row as rest-server writes them.
pub fn labels((who, repo, kind): &Key) -> [(&'static str, String); 3] {
    let folders = repo.folders().iter().map(|folder| String::from_utf8_lossy(folder.as_bytes()));
    [
        ("repo", folders.collect::<Vec<_>>().join("/")),
        ("type", kind.as_str().to_owned()),
        ("user", who.user().map(|user| user.as_str().to_owned()).unwrap_or_default()),
    ]
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
