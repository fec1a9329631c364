//! Disks that lack locks, links, renames that never replace, flushes, sockets, attributes: served as well as they can be,
//! and what does not hold there is told.

use std::process::{Command, Stdio};

use crate::common::mount::{self, Point};
use crate::common::{Server, id_of, noise, on_both, place, skip, wait_for};
use crate::faulty_mount::{Faults, FaultyMount, Op, mount};

const PERM: i32 = 1;
const INVAL: i32 = 22;
const NOLCK: i32 = 37;
const NOSYS: i32 = 38;
const OPNOTSUPP: i32 = 95;
const IO: i32 = 5;

/// A folder with faults, and the mount over it.
struct Disk {
    mounted: FaultyMount,
    data: std::path::PathBuf,
    dir: tempfile::TempDir,
}

fn disk(faults: Faults) -> Option<Disk> {
    let (dir, point) = mount::place()?;
    let behind = dir.path().join("behind");
    std::fs::create_dir(&behind).unwrap();
    let mounted = mount(&behind, &point, faults)?;
    Some(Disk { mounted, data: point.join("data"), dir })
}

/// Stores, repeats, reads, lists, deletes; nothing may be left over.
fn works(server: &Server) {
    for body in [noise(3 << 20, 1), noise(100, 2)] {
        let path = server.store("/r1/", "data", &body);
        // A repeat, and another content under the same name.
        server.store("/r1/", "data", &body);
        assert_eq!(server.status("POST", &path, b"other"), 403);
        assert!(server.request("GET", &path, "", b"").body == body);
    }
    assert_eq!(server.status("POST", "/r1/config", b"config"), 200);
    assert_eq!(server.status("POST", "/r1/config", b"another"), 403);
    let lock = server.store("/r1/", "locks", b"lock");
    assert_eq!(server.status("DELETE", &lock, b""), 200);
    assert_eq!(server.request("GET", "/r1/data/", "", b"").names().len(), 2);
    // Uploads of one name at the same time: one wins, and all are told the truth.
    let body = noise(200_000, 3);
    server.create("/r2/");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                assert_eq!(server.status("POST", &format!("/r2/data/{}", id_of(&body)), &body), 200)
            });
        }
    });
    wait_for("nothing to be left over", || server.files().len() == 4);
}

fn all_kinds() -> Vec<(&'static str, Vec<(Op, i32)>)> {
    vec![
        ("no links", vec![(Op::Link, PERM)]),
        ("no renames without replacing", vec![(Op::RenameNoReplace, INVAL)]),
        ("neither", vec![(Op::RenameNoReplace, INVAL), (Op::Link, PERM)]),
        ("neither, by other errors", vec![(Op::RenameNoReplace, OPNOTSUPP), (Op::Link, OPNOTSUPP)]),
        ("neither, nor known", vec![(Op::RenameNoReplace, NOSYS), (Op::Link, NOSYS)]),
        ("no locks", vec![(Op::Flock, NOLCK)]),
        ("locks unknown", vec![(Op::Flock, NOSYS)]),
        ("locks not supported", vec![(Op::Flock, OPNOTSUPP)]),
        ("no sockets", vec![(Op::Mknod, PERM)]),
        ("no free space told", vec![(Op::Statfs, NOSYS)]),
        ("no free space told, by another error", vec![(Op::Statfs, OPNOTSUPP)]),
        (
            "no attributes, no room ahead",
            vec![(Op::SetXattr, OPNOTSUPP), (Op::GetXattr, OPNOTSUPP), (Op::Fallocate, INVAL)],
        ),
        (
            "nothing of all that",
            vec![
                (Op::RenameNoReplace, INVAL),
                (Op::Link, PERM),
                (Op::Flock, NOSYS),
                (Op::Mknod, PERM),
                (Op::SetXattr, PERM),
                (Op::Fallocate, OPNOTSUPP),
                (Op::FsyncDir, INVAL),
                (Op::Fsync, OPNOTSUPP),
            ],
        ),
    ]
}

#[test]
fn what_a_disk_lacks_is_done_without() {
    on_both(|driver| {
        for (kind, faults) in all_kinds() {
            eprintln!("{kind}");
            let faults = faults.into_iter().fold(Faults::none(), |all, (op, errno)| all.with(op, errno));
            let Some(disk) = disk(faults) else { return };
            works(&Server::on(&disk.data, driver, &[]));
            // The same with the server's own folder on a better disk.
            let state = disk.dir.path().join("state");
            let server = Server::on(&disk.data, driver, &["--state-dir", state.to_str().unwrap()]);
            server.store("/r3/", "data", b"again");
            assert_eq!(server.request("GET", "/readyz", "", b"").status, 200);
        }
    });
}

#[test]
fn without_locks_it_is_told_that_a_second_server_would_not_be_noticed() {
    let Some(disk) = disk(Faults::none().with(Op::Flock, NOLCK)) else { return };
    let server = Server::on(&disk.data, "epoll", &[]);
    assert!(server.text().contains("this disk has no locks (flock)"), "{}", server.text());
}

#[test]
fn a_disk_on_which_nothing_can_get_a_name_is_not_ready() {
    let faults = Faults::none().with(Op::RenameNoReplace, INVAL).with(Op::Link, PERM).with(Op::Rename, PERM);
    let Some(disk) = disk(faults) else { return };
    let server = Server::on(&disk.data, "epoll", &[]);
    let ready = server.request("GET", "/readyz", "", b"");
    assert!(ready.status == 503 && ready.text().contains("stores nothing"), "{}", ready.text());
    assert!(server.text().contains("every upload will fail"), "{}", server.text());
}

/// A folder that several servers share can't be renamed in by looking first.
#[test]
fn a_disk_without_atomic_names_is_not_shared() {
    let Some(disk) = disk(Faults::none().with(Op::RenameNoReplace, INVAL).with(Op::Link, PERM)) else {
        return;
    };
    let output =
        Server::command(&disk.data, "epoll", &["--shared-folder"]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && said.contains("can't be shared"), "{said}");
}

/// A flush that the disk does not have has lost nothing; one that fails has.
#[test]
fn a_missing_flush_is_told_and_a_failed_one_stops_writes() {
    on_both(|driver| {
        for (op, errno) in
            [(Op::FsyncDir, INVAL), (Op::FsyncDir, OPNOTSUPP), (Op::Fsync, OPNOTSUPP), (Op::Fsync, INVAL)]
        {
            let Some(disk) = disk(Faults::none().with(op, errno)) else { return };
            let server = Server::on(&disk.data, driver, &[]);
            works(&server);
            let warning = "may not survive a power cut here";
            assert_eq!(server.text().matches(warning).count(), 1, "{}", server.text());
            let ready = server.request("GET", "/readyz", "", b"");
            assert!(ready.status == 200 && ready.text().contains(warning), "{}", ready.text());
            drop(server);
            let refused = Server::command(&disk.data, driver, &["--require-durable"])
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&refused.stderr);
            assert!(refused.status.code() == Some(3) && said.contains("--require-durable"), "{said}");
            // The disk is replaced by one that has flushes, and these fail.
            disk.mounted.set(op, None);
            let server = Server::on(&disk.data, driver, &["--require-durable"]);
            server.store("/r4/", "data", b"durable");
            assert_eq!(server.request("GET", "/readyz", "", b"").text(), "ok\n");
            disk.mounted.set(op, Some(IO));
            let path = format!("/r4/data/{}", id_of(b"lost"));
            assert!(server.status("POST", &path, b"lost") >= 500);
            assert_eq!(server.status("POST", &path, b"lost"), 507, "suspended");
            assert_eq!(server.request("GET", "/readyz", "", b"").status, 503);
            disk.mounted.set(op, None);
            assert!(
                crate::words::run(&["repo", "resume", "--path", disk.data.to_str().unwrap()]).0 == Some(0)
            );
            assert_eq!(server.status("POST", &path, b"lost"), 200);
        }
    });
}

/// A disk below the data folder may be another one than that which was looked at.
#[test]
fn another_disk_below_the_data_folder_is_asked_for_itself() {
    on_both(|driver| {
        let (dir, point) = match mount::place() {
            Some(place) => place,
            None => return,
        };
        let (data, behind) = (point.join("data"), dir.path().join("behind"));
        std::fs::create_dir_all(data.join("poor")).unwrap();
        std::fs::create_dir(&behind).unwrap();
        let faults =
            Faults::none().with(Op::FsyncDir, INVAL).with(Op::Link, PERM).with(Op::RenameNoReplace, INVAL);
        let Some(_mounted) = mount(&behind, &data.join("poor"), faults) else { return };
        let server = Server::on(&data, driver, &[]);
        let store = |repo: &str| {
            server.create(repo);
            (0..3).any(|_| server.status("POST", &format!("{repo}keys/{}", id_of(b"x")), b"x") == 200)
        };
        assert!(store("/rich/") && store("/poor/a/"), "{}", server.text());
        assert!(server.request("GET", "/readyz", "", b"").text().contains("power cut"));
    });
}

/// An image as a block device.
struct LoopDevice(String);

impl LoopDevice {
    fn of(image: &std::path::Path) -> Option<Self> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(image).output().unwrap();
        if !output.status.success() {
            skip(&format!("losetup: {output:?}"));
            return None;
        }
        Some(Self(String::from_utf8(output.stdout).unwrap().trim().to_owned()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        Command::new("losetup").args(["--detach", &self.0]).output().ok();
    }
}

/// A file system in a file of 64 MiB, mounted.
pub struct Image {
    pub point: std::path::PathBuf,
    // Dropped from the first to the last: the mount goes before the device, and that before the file.
    _mounted: Point,
    _device: LoopDevice,
    _dir: tempfile::TempDir,
}

impl Image {
    /// Made by a command that is told the file, and mounted by one that is told the device and where to.
    pub fn of(mkfs: &[&str], mounting: &[&str]) -> Option<Self> {
        let (dir, point) = mount::place()?;
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let command = |words: &[&str]| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            command
        };
        let mut mkfs = command(mkfs);
        mkfs.arg(&image);
        mount::run(mkfs).then_some(())?;
        let device = LoopDevice::of(&image)?;
        let mut mounting = command(mounting);
        mounting.arg(&device.0).arg(&point);
        mount::run(mounting).then_some(())?;
        Some(Self { _mounted: Point::of(&point), point, _device: device, _dir: dir })
    }
}

/// A process that is ended with the test.
struct Helper(std::process::Child);

impl Drop for Helper {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A real file system without links, modes, sockets and attributes.
#[test]
fn exfat() {
    on_both(|driver| {
        let Some(image) = Image::of(&["mkfs.exfat"], &["mount.exfat-fuse"]) else { return };
        let server = Server::on(&image.point.join("data"), driver, &[]);
        works(&server);
        crate::spellings::only_the_stored_spelling_counts(&server);
        crate::spellings::is_nothing(&server, "/Carol/", "/carol/");
        assert!(server.text().contains("no control socket"), "{}", server.text());
    });
}

/// A mount of rclone's: FUSE without links, locks kept by the kernel, files written when they are closed.
#[test]
fn rclone() {
    let Some((dir, point)) = mount::place() else { return };
    let remote = dir.path().join("remote");
    std::fs::create_dir(&remote).unwrap();
    let mut command = Command::new("rclone");
    command.args(["mount", "--vfs-cache-mode", "writes", "--config", "/dev/null", "--dir-cache-time", "0s"]);
    command.arg("--cache-dir").arg(dir.path().join("cache"));
    command.arg(format!(":local:{}", remote.display())).arg(&point);
    let Ok(child) = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn() else {
        return skip("rclone is not installed");
    };
    let helper = Helper(child);
    // This thread has mounts of its own.
    let is_mounted =
        || std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap().contains(point.to_str().unwrap());
    wait_for("the mount", is_mounted);
    let mounted = Point::of(&point);
    let server = Server::on(&point.join("data"), "epoll", &[]);
    let path = server.store("/r1/", "data", &noise(100_000, 1));
    assert_eq!(server.request("GET", &path, "", b"").body.len(), 100_000);
    assert_eq!(server.status("POST", &path, b"other"), 403);
    drop(server);
    drop(mounted);
    drop(helper);
}

/// A data folder that may only be read, or with a state folder of somebody else's, is served.
#[test]
fn what_may_only_be_read_is_served() {
    use std::os::unix::fs::PermissionsExt;
    let Some(mut server) = Server::as_user("epoll", &[]) else { return };
    let key = server.store("/r1/", "keys", b"key");
    server.stop();
    // One start as root has left its folder.
    let data = server.data.clone();
    let state = data.join(".packhouse");
    assert!(Command::new("chown").args(["-R", "0:0"]).arg(&state).status().unwrap().success());
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
    let again = server.again("epoll", &[]);
    assert!(
        again.text().contains("no state folder") && again.text().contains("Permission denied"),
        "{}",
        again.text()
    );
    assert_eq!(again.request("GET", &key, "", b"").body, b"key");
    again.store("/r1/", "keys", b"another");
    assert_eq!(again.request("GET", "/readyz", "", b"").status, 200);
    drop(again);
    // Readable, and not to be written to.
    std::fs::remove_dir_all(&state).unwrap();
    assert!(Command::new("chown").arg("0:0").arg(&data).status().unwrap().success());
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o755)).unwrap();
    let again = server.again("epoll", &[]);
    assert_eq!(again.request("GET", &key, "", b"").body, b"key");
    let ready = again.request("GET", "/readyz", "", b"");
    assert!(ready.status == 503 && ready.text().contains("Permission denied"), "{}", ready.text());
    assert_eq!(again.status("POST", "/new/?create=true", b""), 500);
    // What lies in it may still be written to.
    again.store("/r1/", "keys", b"a third");
}

/// A file where a folder of a repository must be is damage, and not the absence of what was in it.
#[test]
fn a_file_in_the_place_of_a_folder_is_damage() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut server = Server::on(&data, driver, &[]);
        server.create("/r1/");
        let body = (0..).map(|n| noise(100, n)).find(|body| id_of(body).starts_with("00")).unwrap();
        let path = server.store("/r1/", "data", &body);
        let in_the_way = |folder: &str, name: &str| {
            std::fs::remove_dir_all(data.join(folder)).unwrap();
            std::fs::write(data.join(folder), "").unwrap();
            for method in ["GET", "HEAD", "POST", "DELETE"] {
                let status = server.request(method, &path, "", &body).status;
                let wanted = if folder.contains("data") { 500 } else { 200 };
                assert!(status == wanted || method == "DELETE", "{folder}: {method} {status}");
            }
            server.wait_for_log("ERROR");
            server.wait_for_log(&format!("{name}: a file stands where a folder must be"));
            assert!(!server.text().contains("INFO  127.0.0.1 user=- \"GET /r1/data/00"));
        };
        in_the_way("r1/data/00", "r1/data/00");
        // A list that leaves it out would tell a prune that those packs are gone.
        let mut conn = server.connect();
        conn.send("GET /r1/data/ HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(conn.try_response_to("GET").is_none_or(|list| list.status == 500));
        let (code, said) = crate::words::run(&["repo", "verify", "--path", data.to_str().unwrap()]);
        assert!(code == Some(1) && said.contains("r1/data/00"), "{code:?} {said}");
        let (code, said) = crate::words::run(&["repo", "sweep", "--path", data.to_str().unwrap()]);
        assert!(code == Some(1), "{code:?} {said}");
        // Mended, it is as before.
        std::fs::remove_file(data.join("r1/data/00")).unwrap();
        server.store("/r1/", "data", &body);
        for folder in ["r1/snapshots", "r1/data"] {
            std::fs::remove_dir_all(data.join(folder)).unwrap();
            std::fs::write(data.join(folder), "").unwrap();
            let list = server.request("GET", &format!("/{folder}/"), "", b"");
            assert_eq!(list.status, 500, "{folder}: {}", list.text());
            server.wait_for_log(&format!("{folder}: a file stands where a folder must be"));
            assert_eq!(server.status("POST", "/r1/?create=true", b""), 500, "{folder}");
            std::fs::remove_file(data.join(folder)).unwrap();
            std::fs::create_dir(data.join(folder)).unwrap();
        }
        // A file that is no repository's is none: certificates and the like lie there.
        std::fs::write(data.join("public_key"), "").unwrap();
        for path in ["/public_key/config", "/public_key/keys/"] {
            assert_eq!(server.status("GET", path, b""), 404, "{path}");
        }
        assert_eq!(server.status("POST", &format!("/public_key/keys/{}", id_of(b"x")), b"x"), 404);
        server.stop();
        // The walk after the start tells it, too.
        std::fs::remove_dir_all(data.join("r1/keys")).unwrap();
        std::fs::write(data.join("r1/keys"), "").unwrap();
        let server = Server::on(&data, driver, &[]);
        server.wait_for_log("r1/keys: a file stands where a folder must be");
    });
}

#[test]
fn what_is_no_file_in_the_place_of_an_object_is_damage() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut server = Server::on(&data, driver, &[]);
        server.create("/r1/");
        assert_eq!(server.status("POST", "/r1/config", b"config"), 200);
        let object = server.store("/r1/", "data", b"object");
        let key = server.store("/r1/", "keys", b"key");
        for (path, body) in [("/r1/config", &b"config"[..]), (&object, b"object"), (&key, b"key")] {
            let file = place(&data, path);
            for fifo in [false, true] {
                std::fs::remove_file(&file).or_else(|_| std::fs::remove_dir(&file)).unwrap();
                if fifo {
                    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
                } else {
                    std::fs::create_dir(&file).unwrap();
                }
                for method in ["GET", "HEAD", "POST", "DELETE"] {
                    assert_eq!(server.status(method, path, body), 500, "{method} {path} {fifo}");
                }
                server.wait_for_log("what stands there is no file");
            }
            let (code, said) = crate::words::run(&["repo", "verify", "--path", data.to_str().unwrap()]);
            assert!(code == Some(1) && said.contains("what stands there is no file"), "{code:?} {said}");
            std::fs::remove_file(&file).unwrap();
            assert_eq!(server.status("POST", path, body), 200, "mended");
        }
        assert!(server.stop().success());
    });
}
