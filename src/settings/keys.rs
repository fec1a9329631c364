//! The table of settings: one row makes a flag, a variable, a key of the file, and its line in sample and schema.

use std::net::IpAddr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;

use crate::settings::cpus::CpuList;
use crate::settings::resolve::Draft;
use crate::settings::{IoDriver, LogTarget, TlsVersion};
use crate::types::repo::MAX_FOLDERS;
use crate::types::{DirectIo, ListenAddress};

/// Largest `workers`.
const MAX_WORKERS: usize = 1024;
/// Most threads that hash passwords.
const MAX_HASH_THREADS: usize = 64;

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; as a flag it needs no value.
    Switch,
    /// A whole number.
    Number,
    /// Bytes: a number, or text such as `500MiB`.
    Size,
    /// A time such as `10s` or `2min`.
    Time,
    /// Any text.
    Text,
    /// One text or several.
    List,
}

/// One setting.
#[derive(Clone, Copy)]
pub struct Key {
    /// Its name: as a flag, and in the file.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// The value's name in the help.
    pub value: &'static str,
    /// What it is when nobody sets it; empty if there is nothing, in parentheses if it is no plain value.
    pub default: &'static str,
    /// A value for the sample, where the default is no plain value.
    pub example: &'static str,
    /// One line.
    pub help: &'static str,
    /// Whether it can change while the server runs.
    pub live: bool,
    /// Whether `serve -h` names it; `serve --help` names all.
    pub brief: bool,
    /// Takes one value.
    pub set: fn(&mut Draft, &str) -> Result<(), String>,
}

/// A heading of the sample and the help, and its settings.
pub struct Section(pub &'static str, pub &'static [Key]);

const fn key(
    name: &'static str,
    kind: Kind,
    value: &'static str,
    default: &'static str,
    help: &'static str,
    set: fn(&mut Draft, &str) -> Result<(), String>,
) -> Key {
    Key { name, kind, value, default, example: "", help, live: false, brief: false, set }
}

const fn live(key: Key) -> Key {
    Key { live: true, ..key }
}

const fn brief(key: Key) -> Key {
    Key { brief: true, ..key }
}

impl Key {
    const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }
}

use Kind::{List, Number, Size, Switch, Text, Time};

/// All settings. `config`, the file's own name, is none of them.
#[rustfmt::skip]
pub const KEYS: &[Section] = &[
    Section("Storage", &[
        brief(key("path", Text, "DIR", "", "Data folder: one folder a repository, as restic's local backend and rest-server have it; made if missing, but no parents of it", |d, v| { d.path = Some(v.into()); Ok(()) })).example("/srv/backups"),
        key("state-dir", Text, "DIR", "(.packhouse in the data folder)", "Folder for the server's own files", |d, v| { d.state_dir = Some(v.into()); Ok(()) }).example("/var/lib/packhouse"),
        key("shared-folder", Switch, "BOOL", "false", "Other servers use the data folder too, each started with this; quotas are not exact then", |d, v| put(&mut d.settings.shared_folder, switch(v))),
        key("require-mount", Switch, "BOOL", "false", "Do not start while the data folder lies on the file system of /: its disk is not mounted", |d, v| put(&mut d.settings.require_mount, switch(v))),
        key("require-durable", Switch, "BOOL", "false", "Do not start on a disk that can't flush, where acknowledged objects may not survive a power cut", |d, v| put(&mut d.settings.require_durable, switch(v))),
        key("group-accessible-repos", Switch, "BOOL", "false", "Give the file system's group permission to read and write repositories: modes 0770 and 0660", |d, v| put(&mut d.settings.group_accessible, switch(v))),
        key("no-verify-upload", Switch, "BOOL", "false", "Store uploads without checking that their SHA-256 is their name. Damage on the way will not be noticed", |d, v| put(&mut d.settings.verify, switch(v).map(|off| !off))),
        key("max-folder-depth", Number, "N", "2", "Folders that a repository's path may have", |d, v| put(&mut d.settings.max_folder_depth, number(v, 0, MAX_FOLDERS))),
        live(key("min-free", Size, "SIZE", "(the smaller of 64MiB and 1% of the file system)", "Reserve of free space, kept for locks and deletes", |d, v| put(&mut d.settings.min_free, size(v).map(Some)))).example("64MiB"),
        key("scrub-period", Time, "TIME", "30days", "Scrub: read everything that is stored back once in this time, when the disk is idle, and compare it with its name; 0s never", |d, v| put(&mut d.settings.scrub_period, time(v))),
        key("scrub-quarantine", Switch, "BOOL", "false", "Quarantine what the scrub finds damaged, but for keys and config: it is renamed, so that clients can store it again", |d, v| put(&mut d.settings.scrub_quarantine, switch(v))),
    ]),
    Section("Confinement", &[
        brief(key("user", Text, "USER", "", "Started as root: run as this user, a name or a number, once the sockets are bound", |d, v| { d.settings.user = Some(v.into()); Ok(()) })).example("nobody"),
        key("sandbox", Switch, "BOOL", "true", "Keep only the folders that the settings name within reach (Landlock), make no connections and run nothing (seccomp), and give up capabilities", |d, v| put(&mut d.settings.sandbox, switch(v))),
    ]),
    Section("Network", &[
        brief(key("listen", List, "ADDRESS", ":8000", "Where to listen: :PORT, HOST:PORT, unix:PATH, or systemd and systemd:NAME for sockets that systemd passes; may be given several times", |d, v| push(&mut d.listen, listen(v)))),
        key("admin-listen", List, "ADDRESS", "", "Where to listen for /healthz, /readyz and /metrics alone, without logins; may be given several times", |d, v| push(&mut d.settings.admin_listen, listen(v))).example("127.0.0.1:9000"),
        key("socket-mode", Text, "MODE", "(0700, for the group with --group-accessible-repos 0770)", "Permissions of unix sockets, in octal", |d, v| put(&mut d.socket_mode, mode(v).map(Some))).example("0660"),
        live(key("trusted-proxy", List, "CIDR", "", "Networks or addresses of proxies that are believed about their clients, 127.0.0.1 for one on this machine; may be given several times", |d, v| push(&mut d.settings.trusted_proxies, network(v)))).example("10.0.0.0/8"),
        live(key("proxy-header", Text, "HEADER", "", "Header in which every --trusted-proxy tells the address of its client: X-Forwarded-For, X-Real-IP or Forwarded. A proxy must set it, or clients could", |d, v| put(&mut d.settings.client_header, header(v).map(Some)))).example("X-Forwarded-For"),
        live(key("proxy-protocol", Switch, "BOOL", "false", "Connections from --trusted-proxy and from unix sockets begin with a PROXY protocol header, version 1 or 2", |d, v| put(&mut d.settings.proxy_protocol, switch(v)))),
        live(key("max-connections-per-address", Number, "N", "", "Connections that one address may have on which nobody has logged in yet; this machine and --trusted-proxy may have more", |d, v| put(&mut d.settings.limits.connections, number(v, 1, usize::MAX).map(Some)))).example("100"),
    ]),
    Section("TLS", &[
        brief(key("tls", Switch, "BOOL", "false", "Serve HTTPS; unix sockets and --admin-listen stay plain", |d, v| put(&mut d.tls, switch(v)))),
        brief(live(key("tls-cert", List, "FILE", "(public_key in the data folder)", "Certificate chain, PEM; several times for several host names, each with its --tls-key", |d, v| { d.certs.push(v.into()); Ok(()) }))).example("/etc/packhouse/cert.pem"),
        brief(live(key("tls-key", List, "FILE", "(private_key in the data folder)", "Private key of the certificate, PEM: RSA of 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519", |d, v| { d.keys.push(v.into()); Ok(()) }))).example("/etc/packhouse/key.pem"),
        live(key("tls-min-ver", Text, "VERSION", "1.2", "Oldest TLS version: 1.2 or 1.3", |d, v| put(&mut d.tls_min, tls_version(v)))),
        live(key("tls-client-ca", Text, "FILE", "", "Authority of client certificates, PEM: a client shows one and is the user that it names", |d, v| { d.client_ca = Some(v.into()); Ok(()) })).example("/etc/packhouse/client-ca.pem"),
        live(key("tls-client-crl", Text, "FILE", "", "Revoked client certificates, PEM", |d, v| { d.client_crl = Some(v.into()); Ok(()) })).example("/etc/packhouse/client-crl.pem"),
        live(key("tls-client-crl-fresh", Switch, "BOOL", "false", "Not ready (/readyz) while the list of revoked client certificates has expired", |d, v| put(&mut d.fresh_crl, switch(v)))),
        live(key("tls-client-optional", Switch, "BOOL", "false", "A client without a certificate may log in by password", |d, v| put(&mut d.client_optional, switch(v)))),
        live(key("hsts", Time, "TIME", "", "Tell clients to use HTTPS only for so long (Strict-Transport-Security)", |d, v| put(&mut d.hsts, time(v).map(Some)))).example("1year"),
    ]),
    Section("Logins", &[
        brief(live(key("no-auth", Switch, "BOOL", "false", "Let everybody in, without logins", |d, v| put(&mut d.no_auth, switch(v))))),
        brief(live(key("htpasswd-file", Text, "FILE", "(.htpasswd in the data folder)", "Password file with bcrypt or {SHA} hashes", |d, v| { d.htpasswd = Some(v.into()); Ok(()) }))).example("/etc/packhouse/htpasswd"),
        live(key("proxy-auth-username", Text, "HEADER", "", "Header in which a proxy names the user, in place of passwords: one of --trusted-proxy, of this machine where that names none", |d, v| put(&mut d.settings.logins.user_header, header(v).map(Some)))).example("X-Forwarded-User"),
        live(key("login-throttle", Switch, "BOOL", "true", "Throttle: delay clients that send wrong passwords", |d, v| put(&mut d.settings.logins.throttle, switch(v)))),
        live(key("login-remember", Time, "TIME", "15m", "How long a verified login is remembered after its last use", |d, v| put(&mut d.settings.logins.remember, time(v)))),
        live(key("login-remember-max", Time, "TIME", "24h", "How long a verified login is remembered at most", |d, v| put(&mut d.settings.logins.remember_max, time(v)))),
    ]),
    Section("Permissions, quotas and limits", &[
        brief(live(key("append-only", Switch, "BOOL", "false", "Let nobody delete or replace anything but locks", |d, v| put(&mut d.settings.access.append_only, switch(v))))),
        brief(live(key("private-repos", Switch, "BOOL", "false", "Let users reach only repositories below the folder of their name", |d, v| put(&mut d.settings.access.private_repos, switch(v))))),
        live(key("acl-file", Text, "FILE", "", "Permissions in the form of rustic_server's acl.toml", |d, v| { d.settings.access.acl_file = Some(v.into()); Ok(()) })).example("/etc/packhouse/acl.toml"),
        brief(live(key("max-size", Size, "SIZE", "", "Quota: most bytes stored in all repositories together; 0 is no limit", |d, v| put(&mut d.settings.quotas.total, max_size(v))))).example("1TiB"),
        live(key("max-repos-per-user", Number, "N", "100000", "Repositories that may lie below a user's folder, and that a user may make while the server runs", |d, v| put(&mut d.settings.limits.repos, count(v)))),
        live(key("max-config-size", Size, "SIZE", "64KiB", "Largest config", |d, v| put(&mut d.settings.limits.config, size(v)))),
        live(key("max-key-size", Size, "SIZE", "1MiB", "Largest key", |d, v| put(&mut d.settings.limits.key, size(v)))),
        live(key("max-lock-size", Size, "SIZE", "64KiB", "Largest lock, of which a repository has at most 10000; who may only read makes locks, too", |d, v| put(&mut d.settings.limits.lock, size(v)))),
        live(key("max-index-size", Size, "SIZE", "256MiB", "Largest index or snapshot", |d, v| put(&mut d.settings.limits.index, size(v)))),
        live(key("max-data-size", Size, "SIZE", "4294967295", "Largest pack", |d, v| put(&mut d.settings.limits.data, size(v)))),
        live(key("max-uploads-per-user", Number, "N", "", "Uploads that one user may have at once", |d, v| put(&mut d.settings.limits.per_user, number(v, 1, usize::MAX).map(Some)))).example("8"),
        live(key("upload-rate-per-user", Size, "SIZE", "", "Throttle: bytes a second that one user may upload", |d, v| put(&mut d.settings.limits.rate, rate(v).map(Some)))).example("20MiB"),
    ]),
    Section("Logs and metrics", &[
        brief(key("debug", Switch, "BOOL", "false", "Log every request, not refusals alone", |d, v| put(&mut d.settings.debug, switch(v)))),
        brief(key("log", Text, "FILE", "", "Log requests in Apache's combined format to a file, or to standard output with -; empty for no such log", |d, v| put(&mut d.settings.access_log, Ok(log_target(v))))).example("/var/log/packhouse/access.log"),
        brief(live(key("prometheus", Switch, "BOOL", "false", "Serve metrics at /metrics, to users who log in (with --private-repos: to the user metrics)", |d, v| put(&mut d.prometheus, switch(v))))),
        live(key("prometheus-no-auth", Switch, "BOOL", "false", "Serve metrics to everybody", |d, v| put(&mut d.prometheus_no_auth, switch(v)))),
        key("cpu-profile", Text, "FILE", "", "Not in packhouse: `perf record -g -p PID` profiles a running server", |d, v| { d.cpu_profile = Some(v.into()); Ok(()) }),
    ]),
    Section("Time limits", &[
        key("drain-timeout", Time, "TIME", "30s", "Time for requests in flight after SIGTERM, and for an old server to end when a new one is started", |d, v| put(&mut d.settings.drain, time(v))),
        live(key("handshake-timeout", Time, "TIME", "10s", "Time for a TLS handshake", |d, v| put(&mut d.settings.timeouts.handshake, time(v)))),
        live(key("head-timeout", Time, "TIME", "10s", "Time for a request head", |d, v| put(&mut d.settings.timeouts.head, time(v)))),
        live(key("idle-timeout", Time, "TIME", "2m", "Time until an idle connection is closed", |d, v| put(&mut d.settings.timeouts.idle, time(v)))),
        live(key("body-timeout", Time, "TIME", "6m", "Time without a byte of a body, in either direction, until the connection is given up; restic waits 5m", |d, v| put(&mut d.settings.timeouts.stall, time(v)))),
        live(key("body-min-rate", Size, "SIZE", "64", "Slowest body in bytes per second, averaged over --body-grace and once that has passed", |d, v| put(&mut d.settings.timeouts.min_rate, size(v)))),
        live(key("body-grace", Time, "TIME", "2m", "See --body-min-rate", |d, v| put(&mut d.settings.timeouts.grace, time(v)))),
    ]),
    Section("Tuning: the defaults are the fastest that were measured", &[
        key("workers", Number, "N", "(one a core that the process may use)", "Worker threads", |d, v| put(&mut d.workers, number(v, 1, MAX_WORKERS).map(Some))).example("4"),
        key("cpus", Text, "LIST", "", "Run one worker pinned to each of these processors, such as 0-3,8", |d, v| put(&mut d.cpus, v.parse::<CpuList>().map(Some))).example("0-3"),
        key("hash-threads", Number, "N", "1", "Threads that check passwords", |d, v| put(&mut d.settings.logins.hash_threads, number(v, 1, MAX_HASH_THREADS))),
        key("io-driver", Text, "DRIVER", "auto", "How workers wait for the kernel: auto, uring or epoll", |d, v| put(&mut d.settings.io_driver, driver(v))),
        key("sendfile", Switch, "BOOL", "true", "Send what is cached and not encrypted straight from the file", |d, v| put(&mut d.settings.sendfile, switch(v))),
        key("direct-io", Text, "WHEN", "auto", "Write large objects past the page cache: auto (where the kernel or a probe at the start says that it can be done), on (also where neither says so) or off", |d, v| put(&mut d.settings.direct_io, direct_io(v))),
        key("hash-lanes", Switch, "BOOL", "true", "Hash uploads side by side where that is faster", |d, v| put(&mut d.settings.hash_lanes, switch(v))),
        key("group-commit", Switch, "BOOL", "true", "Store a small object in one go, many at once, so that the journal of the file system commits them together", |d, v| put(&mut d.settings.group_commit, switch(v))),
        key("balance", Switch, "BOOL", "true", "Move connections to the worker with the fewest busy ones", |d, v| put(&mut d.settings.balance, switch(v))),
    ]),
];

/// All keys of all sections.
pub fn all() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().flat_map(|Section(_, keys)| keys.iter())
}

/// The key of this name.
pub fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// The known name that is most like `name`, if one is like it at all.
pub fn similar<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let rated = known.map(|known| (strsim::jaro_winkler(name, known), known));
    rated.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

impl Key {
    /// The name of its variable in the environment.
    pub fn variable(&self) -> String {
        format!("PACKHOUSE_{}", self.name.replace('-', "_").to_uppercase())
    }
}

fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn push<T>(place: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    place.push(value?);
    Ok(())
}

/// The words that Go's `strconv.ParseBool` takes.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".into()),
    }
}

pub(super) fn number(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| match most {
        usize::MAX => format!("write a whole number from {least} on"),
        _ => format!("write a whole number from {least} to {most}"),
    })
}

pub(super) fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_not_one| "write a whole number".into())
}

/// Bytes: a number as Go writes one, or a number and a unit. A unit of one letter is a power of 1024, as in restic, nginx
/// and systemd; see [`size_note`].
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wanted = "write a number of bytes, or a size such as 500MiB";
    if text.starts_with('-') {
        return Err(format!("a size can't be negative: {wanted}"));
    }
    if let Some(number) = go_integer(text) {
        return Ok(number);
    }
    let long = one_letter(text).unwrap_or_else(|| text.to_owned());
    let size: Result<ByteSize, _> = long.parse();
    size.map(|size| size.as_u64()).map_err(|_text| wanted.into())
}

/// `100G` as `100GiB`; none of a text that is no number with a unit of one letter.
fn one_letter(text: &str) -> Option<String> {
    let letter = text.chars().next_back()?.to_ascii_uppercase();
    let number = text.get(..text.len() - 1)?;
    let is_one = "KMGTP".contains(letter) && number.trim_end().ends_with(|c: char| c.is_ascii_digit());
    is_one.then(|| format!("{number}{letter}iB"))
}

/// What to tell the operator about how a size was understood.
pub(super) fn size_note(text: &str) -> Option<String> {
    one_letter(text).map(|long| {
        format!("`{}` is read as {long}: write that, or {text}B for powers of 1000", text.escape_debug())
    })
}

/// A whole number as Go's `strconv.ParseInt` reads it with base 0, because rest-server's flags take that.
fn go_integer(text: &str) -> Option<u64> {
    let (radix, digits) = match text.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, text.get(2..)?),
        Some("0o") => (8, text.get(2..)?),
        Some("0b") => (2, text.get(2..)?),
        Some(two) if two.starts_with('0') => (8, text.get(1..)?),
        _ => (10, text),
    };
    let digits = digits.strip_prefix('_').filter(|_| radix != 10).unwrap_or(digits);
    if digits.contains('+') || digits.starts_with('_') || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    u64::from_str_radix(&digits.replace('_', ""), radix).ok()
}

/// The quota of all: rest-server takes any number below 1 for no limit.
fn max_size(text: &str) -> Result<Option<u64>, String> {
    if text.strip_prefix('-').is_some_and(|number| go_integer(number).is_some()) {
        return Ok(None);
    }
    size(text).map(|most| Some(most).filter(|most| *most > 0))
}

pub(super) fn rate(text: &str) -> Result<u64, String> {
    // Slower, and uploads would run into the server's own limit on slow bodies.
    const SLOWEST: u64 = 1024;
    size(text).and_then(|rate| if rate < SLOWEST { Err("write at least 1KiB".into()) } else { Ok(rate) })
}

fn time(text: &str) -> Result<Duration, String> {
    // Beyond it the clock may end.
    const LONGEST: Duration = Duration::from_hours(20 * 366 * 24);
    let time = humantime::parse_duration(text).ok().filter(|time| *time <= LONGEST);
    time.ok_or_else(|| "write a time such as 10s or 2min".into())
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "write permissions in octal, such as 0660".into())
}

fn listen(text: &str) -> Result<ListenAddress, String> {
    text.parse().map_err(ToString::to_string)
}

fn network(text: &str) -> Result<IpNet, String> {
    let single = || text.parse::<IpAddr>().map(IpNet::from).ok();
    let network = text.parse::<IpNet>().ok().or_else(single);
    network.ok_or_else(|| "write a network such as 10.0.0.0/8, or an address".into())
}

fn header(text: &str) -> Result<String, String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(token) {
        Ok(text.to_lowercase())
    } else {
        Err("write the name of a header".into())
    }
}

fn tls_version(text: &str) -> Result<TlsVersion, String> {
    match text {
        "1.2" => Ok(TlsVersion::V12),
        "1.3" => Ok(TlsVersion::V13),
        _ => Err("write 1.2 or 1.3".into()),
    }
}

fn driver(text: &str) -> Result<IoDriver, String> {
    match text {
        "auto" => Ok(IoDriver::Auto),
        "uring" => Ok(IoDriver::Uring),
        "epoll" => Ok(IoDriver::Epoll),
        _ => Err("write auto, uring or epoll".into()),
    }
}

fn direct_io(text: &str) -> Result<DirectIo, String> {
    match text {
        "auto" => Ok(DirectIo::Auto),
        "on" => Ok(DirectIo::On),
        "off" => Ok(DirectIo::Off),
        _ => Err("write auto, on or off".into()),
    }
}

fn log_target(text: &str) -> Option<LogTarget> {
    match text {
        "" => None,
        "-" => Some(LogTarget::Stdout),
        file => Some(LogTarget::File(file.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_that_are_told_are_those_that_hold() {
        let names: std::collections::HashSet<_> = all().map(|key| key.name).collect();
        assert_eq!(names.len(), all().count(), "no name twice");
        for key in all().filter(|key| !key.default.is_empty() && !key.default.starts_with('(')) {
            let mut draft = Draft::default();
            (key.set)(&mut draft, key.default).unwrap_or_else(|e| panic!("{}: {e}", key.name));
            let resolve = |mut draft: Draft| {
                draft.path = Some("/d".into());
                draft.resolve().unwrap_or_else(|e| panic!("{}: {e:?}", key.name))
            };
            assert_eq!(resolve(draft), resolve(Draft::default()), "{}", key.name);
        }
    }

    #[test]
    fn values() {
        for (text, bytes) in [
            ("1KiB", 1024),
            ("1KB", 1000),
            ("100G", 100 << 30),
            ("1.5k", 1536),
            ("2 T", 2 << 40),
            ("7", 7),
            ("0x100000", 1 << 20),
            ("1_000_000", 1_000_000),
            ("0o17", 15),
            ("017", 15),
            ("0b11", 3),
            ("0", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "-1", "1_", "_1", "1__0", "0x", "G", "x", "1X"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert!(size("-5GiB").is_err_and(|why| why.contains("negative")));
        assert_eq!((max_size("-1"), max_size("0"), max_size("5")), (Ok(None), Ok(None), Ok(Some(5))));
        assert!(max_size("-x").is_err());
        assert!(
            size_note("100G").is_some_and(|note| note.contains("100GiB")) && size_note("100GiB").is_none()
        );
        assert!(
            size("x").is_err() && rate("10").is_err() && mode("999").is_err() && mode("0660") == Ok(0o660)
        );
        assert_eq!(network("10.0.0.1").map(|net| net.to_string()), Ok("10.0.0.1/32".into()));
        assert!(
            network("10.0.0.0/33").is_err()
                && header("X-User") == Ok("x-user".into())
                && header("a b").is_err()
        );
        assert_eq!(similar("listn", all().map(|key| key.name)), Some("listen"));
        assert_eq!(similar("zzz", all().map(|key| key.name)), None);
    }
}
