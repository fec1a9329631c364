//! Damage on the disk is found, told, and with quarantine repaired by the client: by hand and in the background.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use packhouse::store::layout;
use serde_json::Value;

use crate::common::mount::Mount;
use crate::common::{DRIVERS, NO_SCRUB, Server, id_of, noise, on_both, place, program, wait_for};

fn verify(data: &Path, more: &[&str]) -> (i32, Value) {
    let (code, output) = repo(data, &[&["verify", "--json"], more].concat());
    (code, serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}")))
}

fn repo(data: &Path, args: &[&str]) -> (i32, Output) {
    let output = Command::new(program()).arg("repo").args(args).arg("--path").arg(data).output().unwrap();
    (output.status.code().unwrap(), output)
}

fn file_of(server: &Server, path: &str) -> PathBuf {
    place(&server.data, path)
}

/// Somebody has written to it so many hours ago.
fn written(file: &Path, hours: u64) {
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_hours(hours)).unwrap();
}

fn flip(file: &Path, bit: u64) {
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], bit / 8).unwrap();
}

/// Paths of what was found, by what it is.
fn found<'v>(report: &'v Value, verdict: &str) -> Vec<&'v str> {
    let all = report["found"].as_array().unwrap().iter().filter(|one| one["verdict"] == verdict);
    let mut paths: Vec<_> = all.map(|one| one["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    paths
}

fn names(paths: &[String]) -> Vec<String> {
    let mut names: Vec<_> =
        paths.iter().map(|path| place(Path::new(""), path).to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

#[test]
fn every_flipped_bit_truncation_and_misplaced_file_is_found() {
    on_both(|driver| {
        let server = Server::start(driver, &["--scrub-period", "0s", "--max-lock-size", "1GiB"]);
        server.create("/r1/");
        assert_eq!(server.status("POST", "/r1/config", b"config"), 200);
        let kinds = ["data", "keys", "locks", "index", "snapshots"];
        let stored: Vec<_> =
            (0..60).map(|n| server.store("/r1/", kinds[n % 5], &noise(1000 + n * 5000, n as u64))).collect();
        let (code, report) = verify(&server.data, &[]);
        assert_eq!((code, &report["damaged"], &report["objects"]), (0, &0.into(), &61.into()));

        let mut damaged = Vec::new();
        for (n, path) in stored.iter().enumerate().take(40) {
            let file = file_of(&server, path);
            let len = file.metadata().unwrap().len();
            match n % 4 {
                // Anywhere: the first bit, the last, and those between.
                0 => flip(&file, 0),
                1 => flip(&file, len * 8 - 1),
                2 => flip(&file, (n as u64 * 7919) % (len * 8)),
                _ => std::fs::File::options().write(true).open(&file).unwrap().set_len(len / 2).unwrap(),
            }
            damaged.push(path.clone());
            written(&file, 48);
        }
        // One in a wrong shard, one beside the shards, one in the repository's own folder.
        let id = id_of(b"misplaced");
        let wrong = if id.starts_with("00") { "01" } else { "00" };
        let misplaced = [format!("r1/data/{wrong}/{id}"), format!("r1/data/{id}"), format!("r1/{id}")];
        for path in &misplaced {
            std::fs::write(server.data.join(path), b"misplaced").unwrap();
        }
        let (code, report) = verify(&server.data, &["/r1/"]);
        assert_eq!(code, 4);
        assert_eq!(found(&report, "damaged"), names(&damaged));
        let mut expected: Vec<_> = misplaced.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(found(&report, "misplaced"), expected);
        for path in &misplaced {
            std::fs::remove_file(server.data.join(path)).unwrap();
        }

        // In quarantine nobody sees them, and the client stores them again; keys stay, and so does what is being copied in.
        let fresh = &damaged[0];
        written(&file_of(&server, fresh), 0);
        let (code, report) = verify(&server.data, &["--quarantine"]);
        assert_eq!((code, found(&report, "damaged").len()), (4, 40));
        for (n, path) in stored.iter().enumerate().take(40) {
            let stays = path == fresh || path.contains("/keys/");
            assert_eq!(server.status("HEAD", path, b""), if stays { 200 } else { 404 });
            if !stays {
                assert_eq!(server.status("POST", path, &noise(1000 + n * 5000, n as u64)), 200);
            }
        }
        assert_eq!(verify(&server.data, &[]).1["damaged"], 9);
        let kept = server.files().iter().filter(|path| layout::is_quarantined(path.as_ref())).count();
        assert_eq!(kept, 31, "what is left of them can be looked at");
        let (code, output) = repo(&server.data, &["verify", "/nothing/"]);
        assert_eq!(code, 1, "{output:?}");
    });
}

#[test]
fn memory_does_not_hide_what_is_on_the_disk() {
    let Some(mount) = Mount::image("mkfs.ext4", 64) else { return };
    let server = Server::on(&mount.point.join("data"), DRIVERS[0], &["--scrub-period", "0s"]);
    let body = noise(1 << 20, 1);
    let path = server.store("/r1/", "data", &body);
    written(&file_of(&server, &path), 48);
    assert_eq!(server.request("GET", &path, "", b"").body, body);
    // A bit below the file system, of a page that is in memory.
    let image = mount.point.with_file_name("image");
    let bytes = std::fs::read(&image).unwrap();
    let at = bytes.chunks(1024).position(|block| block == &body[40_960..41_984]).unwrap() as u64 * 1024;
    flip(&image, (at + 7) * 8);
    assert_eq!(server.request("GET", &path, "", b"").body, body, "memory is right");
    let (code, report) = verify(&server.data, &[]);
    assert_eq!((code, found(&report, "damaged")), (4, vec![names(std::slice::from_ref(&path))[0].as_str()]));
    assert_eq!(server.request("GET", &path, "", b"").body, body, "and nobody else pays for the look");
}

/// sched(7).
const SCHED_IDLE: &str = "5";

/// How threads of this name are scheduled.
fn policies(server: &Server, thread: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let stat = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        let (name, rest) = text.rsplit_once(") ")?;
        // Field 41 of proc(5); the third is the first here.
        name.ends_with(&format!("({thread}")).then(|| rest.split(' ').nth(38).unwrap().to_owned())
    };
    tasks.filter_map(stat).collect()
}

#[test]
fn the_background_finds_damage_and_goes_on_after_a_restart() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let flags = ["--scrub-period", "1s", "--scrub-quarantine", "--prometheus", "--prometheus-no-auth"];
        let server = Server::on(&data, driver, &flags);
        wait_for("the verification to have only what nobody else wants", || {
            policies(&server, "scrub") == [SCHED_IDLE]
        });
        let path = server.store("/r1/", "data", &noise(100_000, 1));
        let file = file_of(&server, &path);
        flip(&file, 4711);
        server.wait_for_log("may still be copied in");
        written(&file, 48);
        server.wait_for_log("in quarantine as r1/data/");
        assert_eq!(server.status("HEAD", &path, b""), 404);
        assert_eq!(server.status("POST", &path, &noise(100_000, 1)), 200);
        let metrics = server.request("GET", "/metrics", "", b"").text();
        assert!(metrics.contains("packhouse_scrub_quarantined_total 1"), "{metrics}");
        // Once a pass: how often depends on how many there were before it was old enough.
        let damaged = metrics.lines().find_map(|line| line.strip_prefix("packhouse_damaged_objects_total "));
        assert!(damaged.is_some_and(|count| count != "0"), "{metrics}");
        // Now and then a pass ends without a find.
        wait_for("a pass that finds nothing", || {
            server
                .text()
                .lines()
                .any(|line| line.contains("verified what is stored") && line.contains(" 0 damaged"))
        });
        drop(server);

        // A pass that was broken off goes on: what comes before is not looked at.
        let first = std::fs::read_dir(data.join("r1/data")).unwrap().count();
        assert!(first > 0);
        let text = format!(
            r#"{{"began":{},"after":"r1%2Fdata%2Fff%2F{}","objects":7}}"#,
            SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs(),
            "f".repeat(64)
        );
        std::fs::write(data.join(".packhouse/scrub.json"), text).unwrap();
        let server = Server::on(&data, driver, &["--scrub-period", "30days"]);
        server.wait_for_log("verified what is stored: 7 objects");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(server.request_count("verified what is stored"), 1, "the next pass waits for its time");
    });
}

#[test]
fn a_pass_that_a_kill_broke_off_goes_on_where_it_was() {
    const OBJECTS: u64 = 15;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // One MiB a second, which is the least that it reads: a second an object, and every ten seconds it is written down where it is.
    let flags = ["--scrub-period", "365days", "--prometheus", "--prometheus-no-auth"];
    let server = Server::on(&data, DRIVERS[0], NO_SCRUB);
    let mut stored: Vec<_> =
        (0..OBJECTS).map(|n| server.store("/r1/", "index", &noise(1 << 20, n))).collect();
    stored.sort();
    flip(&file_of(&server, &stored[0]), 4711);
    drop(server);
    let mut killed = Server::on(&data, DRIVERS[0], &flags);
    let progress = || -> Value {
        let text = std::fs::read(data.join(".packhouse/scrub.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    };
    wait_for("a pass that is under way", || progress()["objects"].as_u64().is_some_and(|count| count > 0));
    killed.child.kill().unwrap();
    killed.wait();
    let before = progress();
    let before = before["objects"].as_u64().unwrap();
    assert!(before < OBJECTS, "there is something left to read");

    let server = Server::on(&data, DRIVERS[0], &flags);
    server.wait_for_log(&format!(
        "verified what is stored: {OBJECTS} objects, {} bytes, 1 damaged",
        OBJECTS << 20
    ));
    let metrics = server.request("GET", "/metrics", "", b"").text();
    let read = metrics.lines().find_map(|line| line.strip_prefix("packhouse_scrub_objects_total "));
    assert_eq!(read, Some((OBJECTS - before).to_string().as_str()), "{metrics}");
}

#[test]
fn a_terminal_sees_how_far_the_verification_is() {
    let server = Server::start(DRIVERS[0], NO_SCRUB);
    server.store("/r1/", "data", &noise(1 << 20, 1));
    // script(1) has a terminal.
    let command = format!("{} repo verify --rate 2MiB --path {}", program().display(), server.data.display());
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(" of 1.00 MiB, "), "{text}");
    assert!(
        text.trim_end().ends_with(
            "1 objects, 1048576 bytes: 0 damaged, 0 misplaced, 0 folders or objects could not be looked at"
        ),
        "{text}"
    );
}

#[test]
fn leftovers_are_swept_and_those_of_a_running_rest_server_stay() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let folder = data.join("r1/keys");
    std::fs::create_dir_all(&folder).unwrap();
    let id = id_of(b"x");
    for (name, hours) in [
        (format!("{id}.packhouse-tmp-0123456789abcdef"), 0),
        (format!("{id}.rest-server-temp123"), 48),
        (format!("{id}.rest-server-temp456"), 0),
        (format!("{id}.packhouse-damaged-0123456789abcdef"), 48),
        (id.clone(), 48),
    ] {
        std::fs::write(folder.join(&name), b"").unwrap();
        written(&folder.join(name), hours);
    }
    let (code, output) = repo(&data, &["sweep", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(code, 0);
    assert_eq!(
        (&report["removed"], &report["left_of_rest_server"], &report["quarantined"]),
        (&2.into(), &1.into(), &1.into())
    );
    let mut left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left.len(), 3);
    let (_, output) = repo(&data, &["sweep", "--json", "--older-than", "0s"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["removed"], 1);
    assert!(folder.join(id).exists());
}
