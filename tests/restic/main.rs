//! Real clients: every restic that `tests/run` could find makes, fills, checks, prunes and restores a repository, and other
//! programs read what it left.
#![allow(clippy::pedantic, clippy::restriction, unreachable_pub, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/pki.rs"]
mod pki;

mod access;
mod client;
mod side_by_side;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use client::{Restic, programs, restics};
use common::{DRIVERS, Server, noise, skip, walk};

/// A tree of small, large, empty and duplicate files.
fn grow_tree(root: &Path, files: u64, large: u64, megabytes: usize) {
    let mut bytes = 0;
    for n in 0..files {
        let folder = root.join(format!("d{}/e{}", n % 40, n % 7));
        std::fs::create_dir_all(&folder).unwrap();
        // Every tenth is a duplicate, every hundredth empty.
        let size = if n % 100 == 0 { 0 } else { (n as usize * 7919) % 24_000 };
        let content = noise(size, if n % 10 == 3 { 3 } else { n });
        bytes += content.len();
        std::fs::write(folder.join(format!("file {n}")), content).unwrap();
    }
    for n in 0..large {
        let content = noise(megabytes << 20, 1_000_000 + n);
        bytes += content.len();
        std::fs::write(root.join(format!("large{n}")), content).unwrap();
    }
    eprintln!("a tree of {} files and {} MiB", files + large, bytes >> 20);
}

/// Path, size and SHA-256 of every file.
fn contents(root: &Path) -> BTreeMap<PathBuf, (u64, String)> {
    let files = walk(root).into_iter().filter(|path| path.is_file());
    let describe = |path: PathBuf| {
        let content = std::fs::read(&path).unwrap();
        (path.strip_prefix(root).unwrap().to_path_buf(), (content.len() as u64, common::id_of(&content)))
    };
    files.map(describe).collect()
}

#[test]
fn every_restic_backs_up_checks_prunes_and_restores() {
    let clients = restics();
    if clients.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    grow_tree(&tree, 10_000, 20, 50);
    for (n, client) in clients.iter().enumerate() {
        let start = Instant::now();
        let data = dir.path().join(format!("data{n}"));
        let server = Server::on(&data, DRIVERS[n % DRIVERS.len()], &[]);
        let restic = Restic::on(client, &server, "host/repo");
        round_trip(&restic, &tree, &dir.path().join("restored"));
        // The same folder as a local repository, and behind rest-server.
        Restic::new(client, data.join("host/repo").display().to_string()).run(&["check"]);
        behind_rest_server(client, &data);
        assert!(!server.text().contains("panic") && !server.text().contains(" ERROR "), "{}", server.text());
        drop(server);
        std::fs::remove_dir_all(&data).unwrap();
        eprintln!("{}: {:.0} s", restic.version(), start.elapsed().as_secs_f64());
    }
}

fn round_trip(restic: &Restic, tree: &Path, restored: &Path) {
    let extra = tree.join("extra");
    restic.run(&["init"]);
    restic.run(&["backup", tree.to_str().unwrap()]);
    grow_tree(&extra, 300, 1, 5);
    restic.run(&["backup", tree.to_str().unwrap()]);
    let told = restic.run(&["check", "--read-data"]);
    assert!(told.contains("no errors were found"), "{told}");
    restic.run(&["forget", "--keep-last", "1", "--prune"]);
    assert!(restic.run(&["check"]).contains("no errors were found"));
    restic.run(&["restore", "latest", "--target", restored.to_str().unwrap()]);
    let back = restored.join(tree.strip_prefix("/").unwrap());
    assert_eq!(contents(tree), contents(&back));
    std::fs::remove_dir_all(restored).unwrap();
    std::fs::remove_dir_all(extra).unwrap();
    assert_eq!(restic.run(&["snapshots", "--json"]).matches("\"short_id\"").count(), 1);
}

fn behind_rest_server(client: &Path, data: &Path) {
    let Some(program) = programs("TEST_REST_SERVER", "rest-server").into_iter().next() else {
        // Only a second reader, from another Debian suite: its absence is no failure.
        return eprintln!("\n*** SKIPPED: rest-server is not there to open the same repository ***\n");
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut child = Command::new(program);
    child.args(["--no-auth", "--listen", &port.to_string(), "--path"]).arg(data);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    common::wait_for("rest-server", || TcpStream::connect(port).is_ok());
    let told = Restic::new(client, format!("rest:http://{port}/host/repo/")).run(&["check"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told.contains("no errors were found"));
}

#[test]
fn a_lost_acknowledgement_does_not_end_an_append_only_backup() {
    for (n, client) in restics().iter().enumerate() {
        let server = Server::start(DRIVERS[n % DRIVERS.len()], &["--append-only"]);
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        grow_tree(&tree, 200, 2, 20);
        Restic::on(client, &server, "r1").run(&["init"]);
        let cuts = Arc::new(AtomicUsize::new(2));
        let proxy = cutting_proxy(&server.addresses[0], Arc::clone(&cuts));
        let restic = Restic::new(client, format!("rest:http://{proxy}/r1/"));
        restic.run(&["backup", tree.to_str().unwrap()]);
        assert_eq!(cuts.load(Ordering::SeqCst), 0, "answers were lost");
        assert!(restic.run(&["check", "--read-data"]).contains("no errors were found"));
        assert!(server.text().contains("status=403"), "restic tried to delete first");
    }
}

/// Forwards connections to `server`, but swallows the answers to the first `cuts` uploads of data and cuts their
/// connections.
fn cutting_proxy(server: &str, cuts: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = server.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&server).unwrap();
            let uploads = Arc::new(AtomicBool::new(false));
            let (from, to, seen) =
                (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&uploads));
            std::thread::spawn(move || {
                pump(from, to, |bytes| {
                    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
                    if head.starts_with("POST ") && head.contains("/data/") {
                        seen.store(true, Ordering::SeqCst);
                    }
                    true
                })
            });
            let cuts = Arc::clone(&cuts);
            std::thread::spawn(move || {
                pump(server, client, |_| {
                    let one_less = |left: usize| left.checked_sub(1);
                    !(uploads.load(Ordering::SeqCst)
                        && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok())
                })
            });
        }
    });
    address
}

/// Copies until either side ends or `passes` says no; then ends both.
fn pump(mut from: TcpStream, mut to: TcpStream, passes: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !passes(&buffer[..count]) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        stream.shutdown(Shutdown::Both).ok();
    }
}

#[test]
fn rustic_backs_up_checks_and_prunes() {
    let Some(program) = programs("TEST_RUSTIC", "rustic-client").into_iter().next() else {
        return skip("rustic's client was not built: tests/run does it");
    };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    grow_tree(&tree, 500, 3, 20);
    for driver in DRIVERS {
        let server = Server::start(driver, &[]);
        let url = format!("rest:http://{}/r1/", server.addresses[0]);
        for command in
            [&["init"][..], &["backup", tree.to_str().unwrap()], &["check"], &["prune"], &["check"]]
        {
            let output = Command::new(&program).args([&url, "test"]).args(command).output().unwrap();
            assert!(output.status.success(), "{command:?}: {output:?}");
        }
        // What one client wrote, the other restores.
        if let Some(client) = restics().last() {
            let restored = dir.path().join(driver);
            Restic::new(client, url).run(&["restore", "latest", "--target", restored.to_str().unwrap()]);
            assert_eq!(contents(&tree), contents(&restored.join(tree.strip_prefix("/").unwrap())));
        }
    }
}

#[test]
fn a_slow_line_is_no_reason_to_give_up() {
    let Some(client) = restics().into_iter().next_back() else { return };
    let server = Server::start("uring", &[]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), noise(120_000, 1)).unwrap();
    let restic = Restic::on(&client, &server, "r1");
    restic.run(&["init"]);
    let start = Instant::now();
    restic.run(&["--limit-upload", "8", "backup", dir.path().to_str().unwrap()]);
    assert!(start.elapsed().as_secs() >= 5, "the limit of 8 KiB/s was kept");
    assert!(!server.text().contains("status=408"));
}

#[test]
fn a_password_file_lets_its_users_in() {
    let clients = restics();
    let server_dir = tempfile::tempdir().unwrap();
    let file = server_dir.path().join("users");
    std::fs::write(&file, format!("alice:{}\n", bcrypt::hash("secret", 10).unwrap())).unwrap();
    let server = Server::start("uring", &["--htpasswd-file", file.to_str().unwrap()]);
    for (n, client) in clients.iter().enumerate() {
        let restic = Restic::new(client, format!("rest:http://alice:secret@{}/r{n}/", server.addresses[0]));
        restic.run(&["init"]);
        restic.run(&["backup", server_dir.path().to_str().unwrap()]);
        restic.run(&["check", "--read-data"]);
    }
}
