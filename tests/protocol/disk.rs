//! Cases 13 and 66 on real file systems: full, out of inodes, read-only, and one without unnamed files. They need root,
//! mount(8) and bindfs(1).

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::mount::{Mount, command};
use crate::common::{NO_SCRUB, Server, id_of, noise, on_both, skip, wait_for};

fn put(server: &Server, kind: &str, body: &[u8]) -> u16 {
    server.status("POST", &format!("/r1/{kind}/{}", id_of(body)), body)
}

/// Descriptors of a server that has answered on every worker.
fn settled(server: &Server) -> usize {
    (0..32).for_each(|_| assert_eq!(server.status("GET", "/r1/keys/", b""), 200));
    server.descriptors()
}

/// Every request that failed may have opened something; nothing of that is open any more.
fn nothing_stays_open(server: &Server, before: usize) {
    wait_for("all descriptors to be given back", || server.descriptors() <= before + 2);
}

/// Takes all free bytes.
fn fill(folder: &Path) -> PathBuf {
    let filler = folder.join("filler");
    let block = vec![1; 4096];
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    file.sync_all().ok();
    filler
}

#[test]
fn case_13_and_66_a_full_disk() {
    on_both(|driver| {
        for mount in [Mount::tmpfs("size=24m"), Mount::image("mkfs.ext4", 64)].into_iter().flatten() {
            // Without a reserve, so that the disk itself says no.
            let server = Server::on(&mount.point, driver, &[NO_SCRUB, &["--min-free", "0B"]].concat());
            server.create("/r1/");
            let kept = server.store("/r1/", "keys", b"kept");
            let descriptors = settled(&server);
            let filler = fill(&mount.point);
            let before = server.files();
            // The length is known, or it is not: 507 from the head, or in the middle.
            let body = noise(2 << 20, 1);
            for kind in ["data", "index"] {
                assert_eq!(put(&server, kind, &body), 507);
                let path = format!("/r1/{kind}/{}", id_of(&body));
                let coded = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
                assert_eq!(
                    server.request("POST", &path, "Transfer-Encoding: chunked\r\n", &coded).status,
                    507
                );
                assert_eq!(server.status("HEAD", &path, b""), 404);
            }
            assert_eq!(server.status("POST", "/r1/config", &noise(8192, 2)), 507);
            assert_eq!(server.status("HEAD", "/r1/config", b""), 404);
            assert_eq!(server.request("GET", &kept, "", b"").body, b"kept");
            assert_eq!(server.files(), before, "nothing is left over");
            nothing_stays_open(&server, descriptors);
            std::fs::remove_file(filler).unwrap();
            assert_eq!(server.status("POST", "/r1/config", &noise(8192, 2)), 200);
            assert_eq!(put(&server, "data", &body), 200);
        }
    });
}

#[test]
fn case_66_a_quota_of_the_file_system() {
    on_both(|driver| {
        let Some(mount) = Mount::image("mkfs.btrfs", 300) else { return };
        let btrfs = |args: &[&str]| command("btrfs", args, &mount.point).output().unwrap();
        let limited = [btrfs(&["quota", "enable"]), btrfs(&["qgroup", "limit", "24M"])];
        if limited.iter().any(|done| !done.status.success()) {
            return skip(&format!("a quota of btrfs: {limited:?}"));
        }
        let server = Server::on(&mount.point, driver, &[NO_SCRUB, &["--min-free", "0B"]].concat());
        let kept = server.store("/r1/", "keys", b"kept");
        let descriptors = settled(&server);
        let bodies: Vec<_> = (0..16).map(|n| noise(4 << 20, n)).collect();
        let statuses: Vec<_> = bodies.iter().map(|body| put(&server, "data", body)).collect();
        assert!(statuses.contains(&200) && statuses.contains(&507), "{statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 200 | 507)), "{statuses:?}");
        assert_eq!(server.request("GET", &kept, "", b"").body, b"kept");
        wait_for("nothing to be left over", || server.files().iter().all(|path| !path.contains("tmp")));
        nothing_stays_open(&server, descriptors);
        // Room comes back, and with it the uploads.
        for body in &bodies {
            assert_eq!(server.status("DELETE", &format!("/r1/data/{}", id_of(body)), b""), 200);
        }
        wait_for("an upload to fit again", || put(&server, "data", &bodies[0]) == 200);
    });
}

#[test]
fn case_66_the_reserve_keeps_room_for_locks() {
    on_both(|driver| {
        let Some(mount) = Mount::tmpfs("size=32m") else { return };
        let server = Server::on(&mount.point, driver, &["--min-free", "8MiB"]);
        server.create("/r1/");
        let stored = (0..40).take_while(|n| put(&server, "data", &noise(1 << 20, *n)) == 200).count();
        assert!((20..=24).contains(&stored), "{stored} MiB of 24 were stored");
        let body = noise(4 << 20, 98);
        let coded = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        let path = format!("/r1/data/{}", id_of(&body));
        assert_eq!(server.request("POST", &path, "Transfer-Encoding: chunked\r\n", &coded).status, 507);
        for kind in ["index", "snapshots", "keys"] {
            assert_eq!(put(&server, kind, &noise(1 << 20, 99)), 507, "{kind}");
        }
        let mut filled = 1000;
        while put(&server, "index", &noise(4096, filled)) == 200 {
            filled += 1;
        }
        assert_eq!(server.status("POST", "/u/r2/?create=true", b""), 507);
        assert!(!mount.point.join("u").exists(), "nothing of it is there");
        assert_eq!(server.status("POST", "/r1/?create=true", b""), 200, "it is there");
        assert_eq!(put(&server, "locks", b"lock"), 200);
        assert_eq!(server.status("DELETE", &format!("/r1/data/{}", id_of(&noise(1 << 20, 0))), b""), 200);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(put(&server, "data", &noise(1 << 19, 100)), 200);
    });
}

#[test]
fn case_66_no_inodes() {
    on_both(|driver| {
        let Some(mount) = Mount::tmpfs("size=64m,nr_inodes=2000") else { return };
        let server = Server::on(&mount.point, driver, NO_SCRUB);
        server.create("/r1/");
        assert_eq!(put(&server, "data", b"fits"), 200);
        let descriptors = settled(&server);
        let fillers: Vec<_> = (0..2000)
            .map(|n| mount.point.join(format!("f{n}")))
            .take_while(|path| std::fs::File::create(path).is_ok())
            .collect();
        let before = server.files();
        for kind in ["data", "locks", "keys", "index", "snapshots"] {
            assert_eq!(put(&server, kind, b"does not"), 507, "{kind}");
        }
        assert_eq!(server.status("POST", "/r2/?create=true", b""), 507);
        assert_eq!(server.files(), before, "nothing is left over");
        assert_eq!(server.request("GET", &format!("/r1/data/{}", id_of(b"fits")), "", b"").body, b"fits");
        nothing_stays_open(&server, descriptors);
        assert_eq!(server.status("DELETE", &format!("/r1/data/{}", id_of(b"fits")), b""), 200);
        fillers.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(put(&server, "data", b"fits again"), 200);
        server.create("/r2/");
    });
}

#[test]
fn case_66_a_read_only_file_system() {
    on_both(|driver| {
        let Some(mount) = Mount::image("mkfs.ext4", 32) else { return };
        let server = Server::on(
            &mount.point,
            driver,
            &[
                "--scrub-period",
                "0s",
                "--min-free",
                "1MiB",
                "--state-dir",
                mount.point.parent().unwrap().join("state").to_str().unwrap(),
            ],
        );
        let path = server.store("/r1/", "keys", b"key");
        let (descriptors, files) = (settled(&server), server.files());
        mount.remount("remount,ro");
        assert_eq!(put(&server, "data", b"x"), 507);
        assert_eq!(put(&server, "data", &noise(2 << 20, 1)), 507);
        assert_eq!(server.status("DELETE", &path, b""), 507);
        assert_eq!(server.status("POST", "/r2/?create=true", b""), 507);
        assert_eq!(server.request("GET", &path, "", b"").body, b"key");
        let ready = server.request("GET", "/readyz", "", b"");
        assert!(ready.status == 503 && ready.body.starts_with(b"the file system is read-only"), "{ready:?}");
        assert_eq!(server.files(), files, "nothing is left over");
        nothing_stays_open(&server, descriptors);
        mount.remount("remount,rw");
        assert_eq!(put(&server, "data", b"x"), 200);
        wait_for("the server to be ready", || server.status("GET", "/readyz", b"") == 200);
    });
}

#[test]
fn case_66_one_of_two_file_systems_is_read_only() {
    on_both(|driver| {
        let Some(mount) = Mount::tmpfs("size=64m") else { return };
        let server = Server::on(&mount.point, driver, &[]);
        let inner = mount.point.join("r2");
        std::fs::create_dir(&inner).unwrap();
        let remount =
            |options: &str| command("mount", &["-t", "tmpfs", "-o", options, "tmpfs"], &inner).status();
        assert!(remount("size=64m").unwrap().success());
        let path = server.store("/r2/", "keys", b"key");
        assert!(remount("remount,ro").unwrap().success());
        for body in [&b"small"[..], &noise(2 << 20, 1)] {
            let blob = format!("data/{}", id_of(body));
            assert_eq!(server.status("POST", &format!("/r2/{blob}"), body), 507);
            assert_eq!(server.status("POST", &format!("/r1/{blob}"), body), 200, "the other one takes it");
        }
        assert_eq!(server.status("DELETE", &path, b""), 507);
        assert_eq!(server.request("GET", &path, "", b"").body, b"key");
        assert!(remount("remount,rw").unwrap().success());
        assert_eq!(server.status("DELETE", &path, b""), 200);
    });
}

#[test]
fn every_file_system_stores_and_gives_back() {
    on_both(|driver| {
        // (how it is made, its smallest size, whether a file without a name is safe on it)
        for (mkfs, megabytes, unnamed) in
            [("mkfs.ext4", 64, true), ("mkfs.xfs", 320, true), ("mkfs.btrfs", 160, false)]
        {
            let Some(mount) = Mount::image(mkfs, megabytes) else { continue };
            let server = Server::on(&mount.point, driver, &[]);
            assert_eq!(!server.text().contains("Uploads have temporary names"), unnamed, "{mkfs}");
            assert!(!server.text().contains("no direct I/O"), "{mkfs}");
            let body = noise(2 << 20, 1);
            let path = server.store("/r1/", "data", &body);
            assert_eq!(server.status("POST", &path, &body), 200);
            assert_eq!(server.request("GET", &path, "", b"").body, body);
            assert_eq!(server.request("GET", "/r1/data/", "", b"").names(), [id_of(&body)]);
            assert_eq!(put(&server, "data", b"not its name but"), 200);
            assert_eq!(server.status("POST", &format!("/r1/keys/{}", id_of(b"x")), b"y"), 400);
            assert_eq!(server.status("DELETE", &path, b""), 200);
            wait_for("all temporary names to go", || server.files().len() == 1);
        }
    });
}

#[test]
fn a_file_system_without_unnamed_files() {
    on_both(|driver| {
        // FUSE, as an example of those.
        let fuse = Mount::new(|dir, point| {
            let behind = dir.join("behind");
            std::fs::create_dir(&behind).unwrap();
            vec![command("bindfs", &[behind.to_str().unwrap()], point)]
        });
        let Some(mount) = fuse else { return };
        let shared = ["--shared-folder"];
        let mut server = Server::on(&mount.point, driver, &shared);
        for told in ["Uploads have temporary names", "this file system takes no direct I/O"] {
            assert!(server.text().contains(told), "{}", server.text());
        }
        let body = noise(1 << 20, 1);
        let path = server.store("/r1/", "data", &body);
        assert_eq!(server.request("GET", &path, "", b"").body, body);
        assert_eq!(server.status("POST", &path, &body), 200);
        // An upload in progress has a name that no list shows, and none when it is cut off.
        let cut = |server: &Server| {
            let mut conn = server.connect();
            conn.send(format!(
                "POST /r1/data/{} HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nsome",
                id_of(b"x")
            ));
            wait_for("the temporary file", || server.files().len() == 2);
            assert_eq!(server.request("GET", "/r1/data/", "", b"").names().len(), 1);
            conn
        };
        cut(&server).reset();
        wait_for("its removal", || server.files().len() == 1);
        let conn = cut(&server);
        // A second server must not take it away while the first one writes it.
        let second = Server::on(&mount.point, driver, &shared);
        second.wait_for_log("the walk after the start has ended");
        assert_eq!(server.files().len(), 2);
        server.child.kill().unwrap();
        server.wait();
        drop(conn);
        let third = Server::on(&mount.point, driver, &shared);
        third.wait_for_log("removed 1 leftovers");
        assert_eq!(third.files().len(), 1);
    });
}
