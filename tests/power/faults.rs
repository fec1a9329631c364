//! What else goes wrong under load: the process is killed, memory is short, the device dies.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::mount;
use crate::common::{
    Conn, DRIVERS, NO_SCRUB, Server, id_of, is_root, noise, on_both, place, program, skip, wait_for,
};
use crate::disk::{Cut, Disk};
use crate::{Tally, Told, client, look};

const KILLS: u64 = 20;
const CLIENTS: u64 = 16;
/// Objects that a client may store between two kills.
const STEP: u64 = 10_000;

/// `TEST_KILLS=N` makes N of them.
#[test]
fn what_was_acknowledged_survives_kills_under_load() {
    let kills = std::env::var("TEST_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut told = Told::default();
    for round in 0..kills {
        let mut server = Server::on(&data, DRIVERS[(round % 2) as usize], &[]);
        let (new, over) = (Mutex::new(Told::default()), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for n in 0..CLIENTS {
                let (address, new, over) = (server.addresses[0].clone(), &new, &over);
                scope.spawn(move || client(n, round * STEP, &address, new, over));
            }
            // Time alone would prove nothing on a slow disk: something has to be acknowledged first.
            let some = || !new.lock().unwrap().stored.is_empty();
            for _ in (0..6000).take_while(|_| !some()) {
                std::thread::sleep(Duration::from_millis(10));
            }
            std::thread::sleep(Duration::from_millis(u64::from(noise(1, round + 1)[0])));
            server.child.kill().unwrap();
            server.child.wait().unwrap();
            over.store(true, Ordering::SeqCst);
        });
        let new = new.into_inner().unwrap();
        assert!(!new.stored.is_empty(), "nothing was acknowledged within a minute");
        told += new;
    }
    let server = Server::on(&data, DRIVERS[0], &[]);
    server.wait_for_log("the walk after the start has ended");
    let tally = look(&data, &told);
    println!("*** {kills} kills: {tally:?} ***");
    assert!(tally.acknowledged as u64 > kills, "hardly anything was stored");
    assert_eq!(tally, Tally { acknowledged: tally.acknowledged, ..Tally::default() });
}

/// A connection for a disk that is slow, or has much to do.
fn patient(server: &Server) -> Conn {
    let conn = server.connect();
    conn.stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    conn.stream.set_write_timeout(Some(Duration::from_secs(120))).unwrap();
    conn
}

/// Reads a file again and again until what is returned is dropped: a machine may let go of what nobody reads (DAMON), also where
/// memory is not short.
fn keep_in_memory(file: PathBuf) -> Arc<()> {
    let wanted = Arc::new(());
    let asked = Arc::downgrade(&wanted);
    std::thread::spawn(move || {
        while asked.upgrade().is_some() {
            std::fs::read(&file).ok();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    wanted
}

/// A memory cgroup of 64 MiB, version 1 or 2.
pub fn group() -> Option<PathBuf> {
    let (v1, v2) = (PathBuf::from("/sys/fs/cgroup/memory"), PathBuf::from("/sys/fs/cgroup"));
    let (parent, limit) = if v1.is_dir() { (v1, "memory.limit_in_bytes") } else { (v2, "memory.max") };
    let group = parent.join(format!("packhouse-test-{}", std::process::id()));
    let made = std::fs::create_dir(&group).and_then(|()| std::fs::write(group.join(limit), "67108864"));
    if let Err(e) = made {
        std::fs::remove_dir(&group).ok();
        skip(&format!("a memory cgroup: {e}"));
        return None;
    }
    Some(group)
}

/// A server in that group.
pub fn launch_in(group: &Path, data: &Path, driver: &str, flags: &[&str]) -> Server {
    let mut command = Command::new("sh");
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.display());
    let inner = Server::command(data, driver, flags);
    command.args(["-c", &enter, "sh"]).arg(inner.get_program()).args(inner.get_args());
    Server::launch(command, data)
}

#[test]
fn a_thousand_uploads_fit_into_64_mib() {
    const UPLOADS: usize = 1000;
    if !is_root() {
        return skip("a memory cgroup needs root");
    }
    on_both(|driver| {
        let Some(group) = group() else { return };
        // On a real disk: what lies in tmpfs would count as the server's memory.
        let dir = tempfile::Builder::new().tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let data = dir.path().join("data");
        let mut server = launch_in(&group, &data, driver, &[]);
        let body = noise(4 << 20, 1);
        let id = id_of(&body);
        for n in 0..UPLOADS {
            std::fs::create_dir_all(data.join(format!("r{n}/data/{}", &id[..2]))).unwrap();
        }
        let statuses = std::thread::scope(|scope| {
            let uploads: Vec<_> = (0..UPLOADS)
                .map(|n| {
                    let (server, body, path) = (&server, &body, format!("/r{n}/data/{id}"));
                    let upload = move || {
                        let response = patient(server).request("POST", &path, "", body);
                        assert!(response.status == 200 || !response.header("retry-after").is_empty());
                        response.status
                    };
                    std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, upload).unwrap()
                })
                .collect();
            uploads.into_iter().map(|upload| upload.join().unwrap()).collect::<Vec<_>>()
        });
        let stored = statuses.iter().filter(|status| **status == 200).count();
        assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
        println!("{driver}: {stored} of {UPLOADS} stored, at most {} MiB", server.memory("VmHWM:") >> 20);
        assert!(stored > UPLOADS / 2, "{stored} were stored");
        assert!(server.child.try_wait().unwrap().is_none(), "the server was killed");
        assert!(server.stop().success());
        std::fs::remove_dir(&group).ok();
    });
}

#[test]
fn a_device_that_dies_is_an_error_and_no_hang() {
    on_both(|driver| {
        let Some(mut disk) = Disk::new("ext4", Cut::Block) else { return };
        let state = tempfile::tempdir().unwrap();
        let data = disk.point.join("data");
        let flags = [NO_SCRUB, &["--workers", "1", "--state-dir", state.path().to_str().unwrap()]].concat();
        let mut server = Server::on(&data, driver, &flags);
        let kept = server.store("/r1/", "keys", b"kept");
        assert_eq!(server.request("GET", &kept, "", b"").body, b"kept");
        wait_for("idle", || server.descriptors() < 100);
        let descriptors = server.descriptors();
        let _hot = keep_in_memory(place(&data, &kept));
        disk.cut();
        let body = noise(1 << 20, 1);
        let put = |kind: &str| server.status("POST", &format!("/r1/{kind}/{}", id_of(&body)), &body);
        // 500 at first, 507 once the store or the file system takes no writes; never 200.
        let statuses: Vec<_> = (0..4).map(|_| put("data")).chain([put("index")]).collect();
        assert!(statuses.iter().all(|status| matches!(status, 500 | 507)), "{statuses:?}");
        wait_for("the server to be not ready", || server.status("GET", "/readyz", b"") == 503);
        assert_eq!(server.status("GET", "/healthz", b""), 200);
        assert_eq!(server.request("GET", &kept, "", b"").body, b"kept", "what is in memory can be read");
        wait_for("all descriptors to be given back", || server.descriptors() <= descriptors);
        assert!(server.stop().success());
    });
}

#[test]
fn a_disk_that_answers_with_errors() {
    on_both(|driver| {
        let Some(disk) = Disk::new("ext4", Cut::Faulty) else { return };
        let state = tempfile::tempdir().unwrap();
        let data = disk.point.join("data");
        // One worker, which has synced every folder that it will write to: the next write is an object's.
        let flags = [NO_SCRUB, &["--workers", "1", "--state-dir", state.path().to_str().unwrap()]].concat();
        let mut server = Server::on(&data, driver, &flags);
        let bodies: Vec<_> =
            [2 << 20, 3 << 20, 4 << 20, 1000].iter().zip(1..).map(|(len, n)| noise(*len, n)).collect();
        let put = |body: &[u8]| server.status("POST", &format!("/r1/index/{}", id_of(body)), body);
        let kept = server.store("/r1/", "index", &bodies[0]);
        let small = server.store("/r2/", "keys", b"kept");
        wait_for("idle", || server.descriptors() < 100);
        let (files, descriptors) = (server.files(), server.descriptors());

        // A read: the answer breaks off, what came is right, and the next one is whole.
        disk.forget(&place(&data, &kept));
        disk.fail("read");
        let mut conn = server.connect();
        conn.send(format!("GET {kept} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
        let mut came = Vec::new();
        conn.stream.read_to_end(&mut came).unwrap();
        let head = came.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert!(came.len() - head < bodies[0].len(), "it broke off");
        assert!(came.starts_with(b"HTTP/1.1 500") || bodies[0].starts_with(&came[head..]));
        assert_eq!(server.request("GET", &small, "", b"").body, b"kept");
        disk.heal();
        assert!(server.request("GET", &kept, "", b"").body == bodies[0]);

        // A write: no acknowledgement, nothing left, and the next try is one. No flush has failed, so the store goes on.
        disk.fail("write");
        assert_eq!(put(&bodies[1]), 500);
        assert_eq!(server.files(), files, "nothing is left over");
        assert_eq!(put(&bodies[1]), 200);
        assert_eq!(server.status("GET", "/readyz", b""), 200);

        // A flush: nothing is acknowledged any more, though the next flush would succeed, until the operator says so.
        let files = server.files();
        disk.fail("flush");
        assert_eq!(put(&bodies[2]), 500);
        assert_eq!(server.files(), files, "nothing is left over");
        for body in &bodies[2..] {
            assert_eq!(put(body), 507);
        }
        assert_eq!(server.status("DELETE", &small, b""), 503);
        assert_eq!(server.status("POST", "/r3/?create=true", b""), 507);
        let ready = server.request("GET", "/readyz", "", b"");
        assert!(ready.status == 503 && ready.text().contains("repo resume"), "{}", ready.text());
        assert_eq!(server.status("GET", "/healthz", b""), 200);
        assert!(server.request("GET", &kept, "", b"").body == bodies[0], "reads go on");
        let resumed = Command::new(program())
            .args([
                "repo",
                "resume",
                "--path",
                data.to_str().unwrap(),
                "--state-dir",
                state.path().to_str().unwrap(),
            ])
            .output()
            .unwrap();
        assert!(resumed.status.success(), "{resumed:?}");
        for body in &bodies[2..] {
            assert_eq!(put(body), 200);
        }
        assert_eq!(server.status("GET", "/readyz", b""), 200);
        assert_eq!(server.status("DELETE", &small, b""), 200);
        wait_for("all descriptors to be given back", || server.descriptors() <= descriptors);
        assert!(server.stop().success());
    });
}

#[test]
fn a_disk_that_answers_in_seconds_delays_who_waits_for_it_and_nobody_else() {
    type Path<'a> = Box<dyn Fn(u64) -> String + Sync + 'a>;
    const UPLOADS: u64 = 200;
    // One worker has more buffers for uploads than threads that write.
    let flags = [NO_SCRUB, &["--workers", "1"]].concat();
    on_both(|driver| {
        let Some(disk) = Disk::new("ext4", Cut::Slow) else { return };
        let fast = tempfile::tempdir().unwrap();
        let data = fast.path().join("data");
        std::fs::create_dir_all(data.join("slow")).unwrap();
        let _mounted = mount::bind(&disk.point, &data.join("slow"));
        let server = Server::on(&data, driver, &flags);
        let (kept, there) =
            (server.store("/fast/", "keys", b"kept"), server.store("/slow/", "keys", b"there"));
        let asked: [(_, _, _, Option<&[u8]>, Path<'_>); 4] = [
            ("fast", "GET", 200, Some(b"kept"), Box::new(|_| kept.clone())),
            ("unknown", "HEAD", 404, None, Box::new(|n| format!("/fast/keys/{}", id_of(&n.to_le_bytes())))),
            ("healthz", "GET", 200, None, Box::new(|_| "/healthz".into())),
            ("slow", "GET", 200, Some(b"there"), Box::new(|_| there.clone())),
        ];
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let uploads: Vec<_> = (0..UPLOADS)
                .map(|n| {
                    let server = &server;
                    scope.spawn(move || {
                        let body = noise(1000, n);
                        patient(server)
                            .request("POST", &format!("/slow/index/{}", id_of(&body)), "", &body)
                            .status
                    })
                })
                .collect();
            // What is in memory is served meanwhile, wherever it lies, and what is not is found out elsewhere.
            let readers = asked.each_ref().map(|(of, method, status, body, path)| {
                let (server, over) = (&server, &over);
                let reader = scope.spawn(move || {
                    let (mut served, mut longest) = (0, Duration::ZERO);
                    while !over.load(Ordering::SeqCst) {
                        let start = Instant::now();
                        let response = patient(server).request(method, &path(served), "", b"");
                        assert_eq!(response.status, *status);
                        assert!(body.is_none_or(|body| response.body == body));
                        served += 1;
                        longest = longest.max(start.elapsed());
                    }
                    (served, longest)
                });
                (*of, reader)
            });
            let start = Instant::now();
            let statuses: Vec<_> = uploads.into_iter().map(|upload| upload.join().unwrap()).collect();
            let seconds = start.elapsed().as_secs();
            over.store(true, Ordering::SeqCst);
            assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
            for (of, reader) in readers {
                let (served, longest) = reader.join().unwrap();
                println!("{driver}, {of}: {served} in {seconds} s, {longest:?} at most");
                // A flush takes the disk seconds. So does a read: the machine may let go of what is hot, too (DAMON).
                let waited = of != "slow" && longest > Duration::from_secs(2);
                assert!(served > 100 && !waited, "{of}: {served}, {longest:?} at most");
            }
        });
    });
}
