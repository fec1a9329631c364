//! The data folder and the state folder: one server each, none that was made by mistake, and none that belongs to a disk
//! that is not mounted.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::mount::{self, Mount};
use crate::common::{Server, id_of, noise, on_both, wait_for};

fn refused(data: &Path, driver: &str, flags: &[&str]) -> String {
    let Output { status, stderr, .. } =
        Server::command(data, driver, flags).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(3), "{said}");
    said
}

#[test]
fn a_second_server_on_the_folder_is_refused_at_once() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let (data, state) = (dir.path().join("data"), dir.path().join("state"));
        let mut first = Server::on(&data, driver, &[]);
        let start = Instant::now();
        let said = refused(&data, driver, &[]);
        assert!(said.contains("another packhouse serves") && said.contains("--shared-folder"), "{said}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        // With another state folder it can't ask, and waits for as long as requests in flight may take.
        let state = state.to_str().unwrap();
        let said = refused(&data, driver, &["--state-dir", state, "--drain-timeout", "300ms"]);
        assert!(said.contains("waiting up to") && said.contains("another packhouse serves"), "{said}");
        // One that shares it does not share it with one that does not.
        let said = refused(&data, driver, &["--shared-folder", "--drain-timeout", "0s"]);
        assert!(said.contains("another packhouse serves"), "{said}");
        first.stop();
        Server::on(&data, driver, &[]);
    });
}

#[test]
fn servers_that_mean_to_share_a_folder_do() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let flags = ["--shared-folder", "--max-size", "1MiB"];
        let first = Server::on(&data, driver, &flags);
        let second = Server::on(&data, driver, &flags);
        let text = second.text();
        assert!(text.contains("no state folder") && text.contains("another packhouse holds it"), "{text}");
        let path = first.store("/r1/", "keys", b"key");
        assert_eq!(second.request("GET", &path, "", b"").body, b"key");
        for server in [&first, &second] {
            server.wait_for_log("what other servers store from now on is not known");
            assert!(!server.text().contains("the quotas are exact"));
        }
        drop((first, second));
        let said = {
            let _shared = Server::on(&data, driver, &["--shared-folder"]);
            refused(&data, driver, &["--drain-timeout", "0s"])
        };
        assert!(said.contains("another packhouse serves"), "{said}");
    });
}

/// An upgrade under a running backup: the new server waits for the old one to answer what is in flight.
#[test]
fn a_server_that_is_stopping_is_waited_for() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut old = Server::on(&data, driver, &[]);
        old.create("/r1/");
        let body = noise(1 << 20, 1);
        let mut conn = old.connect();
        conn.begin_upload(&format!("/r1/data/{}", id_of(&body)), "", &body, 500_000);
        std::thread::sleep(Duration::from_millis(100));
        old.signal("-TERM");
        wait_for("the stop", || old.text().contains("stopping: requests in flight"));
        std::thread::scope(|scope| {
            let new = scope.spawn(|| Server::on(&data, driver, &[]));
            std::thread::sleep(Duration::from_millis(700));
            assert!(!new.is_finished(), "it waits");
            conn.send(&body[500_000..]);
            assert_eq!(conn.response().status, 200);
            assert_eq!(old.wait().code(), Some(0));
            let new = new.join().unwrap();
            assert!(new.text().contains("waiting up to 30 s for its end"), "{}", new.text());
            assert!(new.request("GET", &format!("/r1/data/{}", id_of(&body)), "", b"").body == body);
        });
        // A stop that comes while it waits ends it.
        let first = Server::on(&data, driver, &[]);
        let state = dir.path().join("state");
        let mut waiting = Server::command(&data, driver, &["--state-dir", state.to_str().unwrap()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(500));
        Command::new("kill").arg(waiting.id().to_string()).status().unwrap();
        assert_eq!(waiting.wait().unwrap().code(), Some(0));
        drop(first);
    });
}

#[test]
fn no_parent_of_a_folder_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("disk/backups");
    let said = refused(&deep, "epoll", &[]);
    assert!(said.contains("there is no folder") && said.contains("is its disk mounted?"), "{said}");
    let data = dir.path().join("data");
    let said = refused(&data, "epoll", &["--state-dir", dir.path().join("var/state").to_str().unwrap()]);
    assert!(said.contains("var: is its disk mounted?"), "{said}");
    assert!(!dir.path().join("disk").exists() && !dir.path().join("var").exists());
    // A link to nothing.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("disk"), &link).unwrap();
    let said = refused(&link, "epoll", &[]);
    assert!(said.contains("it is a symbolic link to") && said.contains("is its disk mounted?"), "{said}");
    // One level is made, as before.
    Server::on(&dir.path().join("new"), "epoll", &[]);
}

#[test]
fn a_disk_that_is_not_mounted_is_noticed() {
    on_both(|driver| {
        let Some(disk) = Mount::image("mkfs.ext4", 32) else { return };
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let flags = ["--state-dir", state.to_str().unwrap()];
        let data = disk.point.clone();
        let server = Server::on(&data, driver, &flags);
        server.store("/r1/", "keys", b"key");
        drop(server);
        Server::on(&data, driver, &flags);
        // A folder is moved on its disk, or mounted elsewhere: that is the same.
        std::fs::create_dir(data.join("below")).unwrap();
        Server::on(&data.join("below"), driver, &flags);
        Server::on(&data, driver, &flags);
        mount::Point::of(&data);
        assert!(data.is_dir() && std::fs::read_dir(&data).unwrap().count() == 0, "unmounted");
        let said = refused(&data, driver, &flags);
        assert!(
            said.contains("is not the one of the last start") && said.contains("data-folder.json"),
            "{said}"
        );
        // Nor is one made in its place.
        std::fs::remove_dir(&data).unwrap();
        let said = refused(&data, driver, &flags);
        assert!(said.contains("is not the one of the last start") && !data.exists(), "{said}");
        // What the message says helps.
        std::fs::create_dir(&data).unwrap();
        std::fs::remove_file(state.join("data-folder.json")).unwrap();
        Server::on(&data, driver, &flags);
    });
}

#[test]
fn a_data_folder_inside_another_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let outer = dir.path().join("data");
    let first = Server::on(&outer, "epoll", &[]);
    assert!(!first.text().contains("lies inside"));
    let inner = Server::on(&outer.join("inner"), "epoll", &[]);
    assert!(inner.text().contains("lies inside"), "{}", inner.text());
}

#[test]
fn a_path_on_the_file_system_of_the_root_is_refused_where_a_mount_is_required() {
    let dir = tempfile::tempdir_in("/").unwrap();
    let said = refused(&dir.path().join("data"), "epoll", &["--require-mount"]);
    assert!(said.contains("lies on the file system of /") && !dir.path().join("data").exists(), "{said}");
    let Some(disk) = Mount::tmpfs("size=16m") else { return };
    Server::on(&disk.point.join("data"), "epoll", &["--require-mount"]);
    // What is in memory is durable for nobody.
    let said = refused(&disk.point.join("data"), "epoll", &["--require-durable"]);
    assert!(said.contains("is in memory"), "{said}");
}
