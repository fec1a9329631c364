//! What the operator wants: defaults < file < environment < flags → [`Settings`]. Knows nothing of the parts that are
//! built from them.
//!
//! [`keys::KEYS`] is the one table of settings: flags, variables, the file's keys, the sample, the schema and their checks
//! all come from it. What only the file can say (users, repositories) is in [`tables`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::types::{DirectIo, ListenAddress, PathPattern, RepoPath, Right, Timeouts};

pub mod args;
pub mod cpus;
pub mod file;
pub mod given;
pub mod keys;
pub mod merge;
pub mod resolve;
pub mod sample;
pub mod tables;

pub use merge::{Loaded, load};

/// The name of the rules for everybody who has none.
pub const OTHERS: &str = "*";

/// The settings of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one a switch of the command line")]
pub struct Settings {
    /// The data folder.
    pub path: PathBuf,
    /// The server's own folder.
    pub state_dir: PathBuf,
    /// Other servers use the data folder too.
    pub shared_folder: bool,
    /// The data folder must not lie on the root's file system.
    pub require_mount: bool,
    /// A disk that can't make anything durable is refused.
    pub require_durable: bool,
    /// Where to listen.
    pub listen: Vec<ListenAddress>,
    /// Where to listen for health checks and metrics alone.
    pub admin_listen: Vec<ListenAddress>,
    /// Permissions of unix sockets.
    pub socket_mode: u32,
    /// Connections from trusted proxies and unix sockets begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Networks whose word about the client counts.
    pub trusted_proxies: Vec<IpNet>,
    /// The header in which they tell the address of their client.
    pub client_header: Option<String>,
    /// Who may log in, and how.
    pub logins: Logins,
    /// Encryption; none serves plain HTTP.
    pub tls: Option<Tls>,
    /// Who may do what.
    pub access: Access,
    /// How much may be stored.
    pub quotas: Quotas,
    /// What one request and one user may take.
    pub limits: UploadLimits,
    /// Files and folders are for the group too.
    pub group_accessible: bool,
    /// Whether an upload's bytes must hash to its name.
    pub verify: bool,
    /// Whether every request is logged, not refusals alone.
    pub debug: bool,
    /// Where requests are logged in Apache's combined format.
    pub access_log: Option<LogTarget>,
    /// Whether there are metrics, and for whom.
    pub metrics: Option<Metrics>,
    /// Folders that a repository's path may have.
    pub max_folder_depth: usize,
    /// Bytes kept free for locks; none is the default.
    pub min_free: Option<u64>,
    /// In which everything that is stored is read back; zero is never.
    pub scrub_period: Duration,
    /// Whether what is found damaged is renamed.
    pub scrub_quarantine: bool,
    /// Who to run as when started as root.
    pub user: Option<String>,
    /// Whether the process gives up what it does not need.
    pub sandbox: bool,
    /// How many workers, and where.
    pub workers: Workers,
    /// How they wait for the kernel.
    pub io_driver: IoDriver,
    /// Whether cached objects are sent straight from their files.
    pub sendfile: bool,
    /// When large objects are written past the page cache.
    pub direct_io: DirectIo,
    /// Whether uploads are hashed side by side, where that is faster.
    pub hash_lanes: bool,
    /// Whether small objects are stored in one go each.
    pub group_commit: bool,
    /// Whether connections move between workers.
    pub balance: bool,
    /// How long in-flight requests may take after the signal to stop.
    pub drain: Duration,
    /// The time limits of connections.
    pub timeouts: Timeouts,
}

/// Who may log in, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logins {
    /// The password file; none asks for no password.
    pub htpasswd: Option<PathBuf>,
    /// The header in which a trusted proxy names the user, in place of a password.
    pub user_header: Option<String>,
    /// Whether wrong logins are slowed down.
    pub throttle: bool,
    /// How long a verified login is remembered after its last use.
    pub remember: Duration,
    /// How long at most.
    pub remember_max: Duration,
    /// Threads that hash passwords.
    pub hash_threads: usize,
}

/// Encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate and key files; the first pair serves clients that ask for no known name.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// Oldest version.
    pub min_version: TlsVersion,
    /// Authority of client certificates.
    pub client_ca: Option<PathBuf>,
    /// Client certificates that are revoked.
    pub client_crl: Option<PathBuf>,
    /// The server is not ready while the list of those has expired.
    pub fresh_crl: bool,
    /// Whether a client may come without a certificate and log in by password.
    pub client_optional: bool,
    /// How long browsers and clients are to remember that this host speaks TLS only.
    pub hsts: Option<Duration>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    V12,
    /// 1.3.
    V13,
}

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Nothing but locks can be removed.
    pub append_only: bool,
    /// Users see the repositories below the folder of their name only.
    pub private_repos: bool,
    /// `rustic_server`'s rules.
    pub acl_file: Option<PathBuf>,
    /// Rules of users; `*` is everybody who has none.
    pub users: BTreeMap<String, UserRules>,
}

/// What a user may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRules {
    /// Rights by path, if they are said; an empty list is no right at all.
    pub rights: Option<Vec<(PathPattern, Right)>>,
    /// Whether new keys can't be added with the right to append, if that is said.
    pub keys_closed: Option<bool>,
    /// Most bytes below the user's folder.
    pub max_size: Option<u64>,
    /// Most objects there.
    pub max_objects: Option<u64>,
    /// Most repositories there, and most that the user makes anywhere, in place of the general limit.
    pub max_repos: Option<u64>,
    /// Uploads at once, in place of the general limit.
    pub max_uploads: Option<usize>,
    /// Bytes a second uploaded, in place of the general limit.
    pub upload_rate: Option<u64>,
}

/// How much may be stored, in bytes on disk. Quotas of users are in [`UserRules`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// In all.
    pub total: Option<u64>,
    /// In single repositories.
    pub repos: Vec<(RepoPath, u64)>,
}

/// What one request and one user may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// Largest `config`, in bytes.
    pub config: u64,
    /// Largest key.
    pub key: u64,
    /// Largest lock.
    pub lock: u64,
    /// Largest index or snapshot.
    pub index: u64,
    /// Largest pack.
    pub data: u64,
    /// Uploads of one user at once.
    pub per_user: Option<usize>,
    /// Repositories below a user's folder, and those that a user makes anywhere.
    pub repos: u64,
    /// Bytes a second that one user may upload.
    pub rate: Option<u64>,
    /// Connections of one address.
    pub connections: Option<usize>,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file, opened anew on SIGHUP and SIGUSR1.
    File(PathBuf),
}

/// For whom metrics are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// For who logs in; with private repositories for the user `metrics` alone.
    Users,
    /// For everybody.
    Everybody,
}

/// The threads that serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One a core that the process may use.
    Auto,
    /// So many.
    Count(usize),
    /// One pinned to each of these processors.
    Pinned(Vec<usize>),
}

/// How workers wait for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoDriver {
    /// io_uring if it can be had, else epoll.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}
