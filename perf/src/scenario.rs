//! What is measured: a scenario a file, `scenarios/*.toml`.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What clients do.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// POST of data, every object new.
    Put,
    /// GET of whole objects that were read before.
    Get,
    /// GET of random ranges of 16 MiB objects; `size` is the length of a range.
    Range,
    /// HEAD of objects.
    Head,
    /// GET of the list of `objects` objects.
    List,
    /// What a fleet does: every request is a whole backup session over five connections.
    Fleet,
    /// Connections that have asked once and are silent: their memory.
    Idle,
    /// restic itself: every connection is a client that backs up `objects` files of `size` bytes.
    Restic,
}

/// Where the data lies.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Disk {
    /// The folder that `--disk` names.
    Disk,
    /// /dev/shm
    Tmpfs,
}

/// How the server is reached.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Plain TCP.
    #[default]
    Tcp,
    /// TLS 1.3.
    Tls,
    /// A unix socket.
    Unix,
}

/// packhouse with other settings, as one more server beside it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    pub name: String,
    pub args: Vec<String>,
    /// Clients log in.
    #[serde(default)]
    pub login: bool,
    /// What its processor time is to be at the most, as a ratio to packhouse's without it.
    #[serde(default)]
    pub goal_cpu: Option<f64>,
}

/// One scenario.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The name of its file.
    #[serde(default)]
    pub name: String,
    /// One line for the table.
    pub title: String,
    pub work: Work,
    /// Bytes of an object, or of a range.
    pub size: usize,
    pub connections: usize,
    /// Requests in one round.
    pub requests: usize,
    /// The same in quick mode.
    pub quick_requests: usize,
    pub disk: Disk,
    #[serde(default)]
    pub transport: Transport,
    /// Objects that are there before, where the work reads.
    #[serde(default)]
    pub objects: usize,
    /// Nothing of them is in memory. Needs root.
    #[serde(default)]
    pub cold: bool,
    /// Further connections, each of which stops in the middle of an upload and stays.
    #[serde(default)]
    pub stalled: usize,
    /// The same in quick mode, if it differs.
    #[serde(default)]
    pub quick_objects: Option<usize>,
    /// Requests a second, whether or not the server keeps up (an open loop): latencies count from when a request should
    /// have begun. Without it every connection sends its next request when the last one was answered.
    #[serde(default)]
    pub rate: Option<f64>,
    /// What packhouse is like without what makes it fast.
    #[serde(default)]
    pub variants: Vec<Variant>,
    /// What the ratio of throughputs is to be at the least.
    #[serde(default)]
    pub goal_throughput: Option<f64>,
    /// What the ratio of processor time is to be at the most.
    #[serde(default)]
    pub goal_cpu: Option<f64>,
    /// What the ratio of the 99th percentiles of latency is to be at the most.
    #[serde(default)]
    pub goal_p99: Option<f64>,
    /// Milliseconds to the first byte at the most.
    #[serde(default)]
    pub goal_first_ms: Option<f64>,
    /// MiB of the server at the most.
    #[serde(default)]
    pub goal_peak_mib: Option<f64>,
}

impl Scenario {
    /// The part of an object's size that a request moves, for figures per GiB; none counts requests.
    pub fn moves_bytes(&self) -> bool {
        self.size >= 256 * 1024 && !matches!(self.work, Work::List | Work::Idle)
    }
}

/// All scenarios of a folder whose name contains `only`, by name.
pub fn load(folder: &Path, only: &str) -> io::Result<Vec<Scenario>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|ext| ext == "toml") && name.contains(only) {
            let text = std::fs::read_to_string(&path)?;
            let parsed: Scenario =
                toml::from_str(&text).map_err(|e| io::Error::other(format!("{}: {e}", path.display())))?;
            all.push(Scenario { name, ..parsed });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}
