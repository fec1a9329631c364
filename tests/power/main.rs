//! Real power cuts: whatever was acknowledged is there afterwards, whole; what was deleted is not; nothing is left over.
//!
//! `TEST_CUTS=N` makes N cuts of each kind. `TEST_CUT_SERVER=PROGRAM` cuts rest-server or rclone instead, and only
//! tells what they lost. Needs root, loop devices, xfs_io(8), and for btrfs qemu-storage-daemon(1).
#![allow(clippy::pedantic, clippy::restriction, unreachable_pub, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::ops::AddAssign;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod faults;
mod memory;
#[path = "../common/pki.rs"]
mod pki;

use common::{Conn, DRIVERS, Server, files, free_port, id_of, noise, place, wait_for, walk};
use disk::{Cut, Disk};

const CUTS: u64 = 2;
const CLIENTS: u64 = 64;
/// Objects of a client in one repository, before it makes the next.
const IN_REPO: u64 = 40;
const SIZES: [usize; 7] = [10, 1000, 1000, 5000, 200_000, 1_500_001, 2 << 20];
const KINDS: [&str; 6] = ["data", "data", "keys", "locks", "snapshots", "index"];

/// What clients were told.
#[derive(Default)]
struct Told {
    /// Paths with what was stored there: how many bytes of which seed.
    stored: BTreeMap<String, (usize, u64)>,
    deleted: BTreeSet<String>,
    /// Repositories that were made.
    made: BTreeSet<String>,
}

impl AddAssign for Told {
    fn add_assign(&mut self, other: Self) {
        self.stored.extend(other.stored);
        self.deleted.extend(other.deleted);
        self.made.extend(other.made);
    }
}

/// What became of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    acknowledged: usize,
    lost: usize,
    wrong: usize,
    undeleted: usize,
    left_over: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.undeleted += other.undeleted;
        self.left_over += other.left_over;
    }
}

/// Stores, repeats and deletes until the server is gone.
fn client(n: u64, first: u64, address: &str, told: &Mutex<Told>, over: &AtomicBool) -> Option<()> {
    let mut conn = Conn::new(TcpStream::connect(address).ok()?);
    for k in first.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let seed = n * 1_000_000 + k;
        let repo = format!("/r{n}_{}", k / IN_REPO);
        let mut ask = |method: &str, path: &str, body: &[u8]| {
            let head =
                format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
            (conn.try_send(head) && conn.try_send(body)).then_some(())?;
            conn.try_response_to(method).map(|response| response.status)
        };
        if k % IN_REPO == 0 {
            if ask("POST", &format!("{repo}/?create=true"), b"")? == 200 {
                told.lock().unwrap().made.insert(repo.clone());
            }
            let path = format!("{repo}/config");
            if ask("POST", &path, &noise(150, seed))? == 200 {
                told.lock().unwrap().stored.insert(path, (150, seed));
            }
            continue;
        }
        let pick = noise(2, seed);
        let (size, kind) =
            (SIZES[usize::from(pick[0]) % SIZES.len()], KINDS[usize::from(pick[1]) % KINDS.len()]);
        let body = noise(size, seed);
        let path = format!("{repo}/{kind}/{}", id_of(&body));
        if ask("POST", &path, &body)? != 200 {
            continue;
        }
        told.lock().unwrap().stored.insert(path.clone(), (size, seed));
        if k % 7 == 0 {
            // A repeat is acknowledged too.
            ask("POST", &path, &body)?;
        }
        if k % 11 == 0 {
            told.lock().unwrap().stored.remove(&path);
            if ask("DELETE", &path, b"")? == 200 {
                told.lock().unwrap().deleted.insert(path);
            }
        }
    }
    Some(())
}

/// A server of somebody else's.
fn rival(program: &str, data: &Path) -> Server {
    let address = free_port();
    let mut command = Command::new(program);
    if program.ends_with("rclone") {
        command.args(["serve", "restic", "--addr", &address]).arg(data);
    } else {
        command.args(["--no-auth", "--listen", &address, "--path"]).arg(data);
    }
    std::fs::create_dir_all(data).unwrap();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the rival", || TcpStream::connect(&address).is_ok());
    Server::of(child, address, data)
}

/// One cut; none, and loudly so, where it can't be made.
fn cut(file_system: &str, how: Cut, round: u64) -> Option<Tally> {
    let mut disk = Disk::new(file_system, how)?;
    let data = disk.point.join("data");
    let state = tempfile::tempdir().unwrap();
    let program = std::env::var("TEST_CUT_SERVER").ok();
    // Every other time there is a quota, whose journal goes through the cut as well.
    let (counts, kept) = ((round ^ (round / 2)) % 2 == 1, disk.point.join("state"));
    let state_dir = if counts { kept.to_str().unwrap() } else { state.path().to_str().unwrap() };
    let quota: &[&str] =
        if counts { &["--max-size", "100GiB", "--prometheus", "--prometheus-no-auth"] } else { &[] };
    let flags = [quota, &["--state-dir", state_dir]].concat();
    let start = || match &program {
        Some(program) => rival(program, &data),
        None => Server::on(&data, DRIVERS[(round % 2) as usize], &flags),
    };
    let mut server = start();
    if program.is_none() && counts {
        // Until then nothing is let in, and the clients do not try again.
        server.wait_for_log("the quotas are exact");
    }
    let (told, over) = (Mutex::new(Told::default()), AtomicBool::new(false));
    let told = std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (address, told, over) = (server.addresses[0].clone(), &told, &over);
            scope.spawn(move || client(n, 0, &address, told, over));
        }
        let some = || told.lock().unwrap().stored.len() as u64 >= CLIENTS;
        wait_for("some objects to be stored", some);
        // Inside ext4's interval of five seconds between two commits.
        std::thread::sleep(Duration::from_millis(u64::from(noise(1, round + 1)[0]) * 6));
        // What clients are told from now on is not written down, and they begin no delete.
        let mut told = told.lock().unwrap();
        disk.cut();
        let told = std::mem::take(&mut *told);
        over.store(true, Ordering::SeqCst);
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        told
    });
    drop(server);
    disk.restore(round);
    let server = start();
    if program.is_none() {
        server.wait_for_log("the walk after the start has ended");
    }
    if program.is_none() && counts {
        let used = || -> Option<f64> {
            let text = server.request("GET", "/metrics", "", b"").text();
            let line = text.lines().find(|line| line.starts_with("packhouse_quota_used_bytes{"))?;
            line.rsplit(' ').next()?.parse().ok()
        };
        let there = counted_bytes(&data) as f64;
        wait_for(&format!("the quota to be {there}, what is there, and not {:?}", used()), || {
            used() == Some(there)
        });
    }
    let tally = look(&data, &told);
    println!("{file_system}, {how:?}, round {round}: {tally:?}");
    Some(tally)
}

fn look(data: &Path, told: &Told) -> Tally {
    let acknowledged = told.stored.len() + told.deleted.len() + told.made.len();
    let mut tally = Tally { acknowledged, ..Tally::default() };
    for repo in &told.made {
        let there = |kind: &&str| data.join(&repo[1..]).join(kind).is_dir();
        tally.lost += usize::from(!KINDS.iter().all(there));
    }
    for (path, (size, seed)) in &told.stored {
        match std::fs::read(place(data, path)) {
            Ok(content) if content == noise(*size, *seed) => {}
            Ok(_) => tally.wrong += 1,
            Err(_) => tally.lost += 1,
        }
    }
    tally.undeleted = told.deleted.iter().filter(|path| place(data, path).exists()).count();
    for file in files(data) {
        let (content, name) = (std::fs::read(&file).unwrap_or_default(), file.file_name().unwrap());
        match name.to_str().unwrap() {
            // Also one that was not acknowledged is whole, or not there.
            "config" => tally.wrong += usize::from(content != noise(150, seed_of(&file))),
            name if name.len() == 64 => tally.wrong += usize::from(id_of(&content) != name),
            _ => tally.left_over += 1,
        }
    }
    tally
}

/// What files and folders take, in blocks.
fn counted_bytes(data: &Path) -> u64 {
    let is_shard = |name: &str| name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let counts = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        path.is_dir() && (KINDS.contains(&name) || is_shard(name))
    };
    let folders = walk(data).iter().filter(|path| counts(path)).count() as u64;
    let blocks =
        files(data).iter().map(|path| path.metadata().unwrap().len().div_ceil(4096).max(1)).sum::<u64>();
    (blocks + folders) * 4096
}

/// What the config of a repository was made from: it is in the repository's name.
fn seed_of(config: &Path) -> u64 {
    let repo = config.parent().unwrap().file_name().unwrap().to_str().unwrap();
    let (n, part) = repo[1..].split_once('_').unwrap();
    n.parse::<u64>().unwrap() * 1_000_000 + part.parse::<u64>().unwrap() * IN_REPO
}

fn cuts(file_system: &str, how: Cut) {
    let rounds = std::env::var("TEST_CUTS").map_or(CUTS, |rounds| rounds.parse().expect("a number"));
    let mut sum = Tally::default();
    for round in 0..rounds {
        let Some(tally) = cut(file_system, how, round) else { return };
        sum += tally;
    }
    println!("*** {file_system}, {how:?}, {rounds} cuts: {sum:?} ***");
    if std::env::var_os("TEST_CUT_SERVER").is_some() {
        return;
    }
    assert_eq!((sum.lost, sum.wrong, sum.undeleted, sum.left_over), (0, 0, 0, 0));
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_on_ext4() {
    cuts("ext4", Cut::Shutdown);
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_on_xfs() {
    cuts("xfs", Cut::Shutdown);
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_on_btrfs() {
    cuts("btrfs", Cut::Block);
}

/// Of what was written after the last flush any part survives.
#[test]
#[ignore = "takes a while: on demand"]
fn what_was_acknowledged_survives_a_cut_of_any_writes_on_ext4_and_xfs() {
    cuts("ext4", Cut::Block);
    cuts("xfs", Cut::Block);
}
