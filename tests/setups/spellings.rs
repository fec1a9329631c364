//! Disks that take several names for one folder: a repository answers to its stored spelling alone.

use std::path::PathBuf;

use crate::common::mount;
use crate::common::{Server, id_of, noise, on_both, walk};
use crate::disks::Image;
use crate::faulty_mount::{self, Faults, FaultyMount};

/// A folder on a disk that folds names, and the mount of it.
fn folding(at: &str) -> Option<(tempfile::TempDir, FaultyMount, PathBuf)> {
    let (dir, point) = mount::place()?;
    let behind = dir.path().join("behind");
    std::fs::create_dir(&behind).unwrap();
    std::fs::create_dir_all(point.join(at)).unwrap();
    let mounted = faulty_mount::mount(&behind, &point.join(at), Faults::none().folding())?;
    // Dropped from the last to the first: the mount goes before the folder that it is in.
    Some((dir, mounted, point))
}

fn create(server: &Server, repo: &str) -> u16 {
    server.status("POST", &format!("{repo}?create=true"), b"")
}

/// No request reads, lists, stores, removes or makes anything below `other`, which the disk finds for `repo`.
pub fn is_nothing(server: &Server, repo: &str, other: &str) {
    let key = server.store(repo, "keys", b"key");
    server.status("POST", &format!("{repo}config"), b"config");
    let files = server.files();
    let object = format!("{other}keys/{}", id_of(b"key"));
    let new = format!("{other}keys/{}", id_of(b"new"));
    let config = format!("{other}config");
    let list = format!("{other}keys/");
    for _ in 0..2 {
        for (method, path, body) in [
            ("GET", &list, &b""[..]),
            ("GET", &object, b""),
            ("HEAD", &object, b""),
            ("GET", &config, b""),
            ("DELETE", &object, b""),
            ("POST", &object, b"key"),
            ("POST", &new, b"new"),
            ("POST", &config, b"config"),
        ] {
            assert_eq!(server.status(method, path, body), 404, "{method} {path}");
        }
        let made = server.request("POST", &format!("{other}?create=true"), "", b"");
        assert!(made.status == 404 && made.text().contains("another one"), "{}", made.text());
    }
    assert_eq!(server.files(), files);
    assert_eq!(server.request("GET", &key, "", b"").body, b"key");
    assert_eq!(create(server, repo), 200, "it is there");
}

/// On a disk that does not tell upper from lower case.
pub fn only_the_stored_spelling_counts(server: &Server) {
    assert!(server.text().contains("answers to its stored spelling alone"), "{}", server.text());
    for (repo, other) in [
        ("/alice/", "/Alice/"),
        ("/alice/", "/ALICE/"),
        ("/bob/laptop/", "/Bob/laptop/"),
        ("/bob/laptop/", "/bob/LAPTOP/"),
        ("/shared/photos/", "/SHARED/PHOTOS/"),
        ("/shared/photos/", "/shared/PHOTOS/"),
    ] {
        is_nothing(server, repo, other);
    }
    // A word of the protocol, where its folder is there and where it is not.
    for repo in ["/alice/KEYS/", "/alice/Config/", "/fresh/KEYS/", "/fresh/Config/", "/Locks/"] {
        assert_eq!(create(server, repo), 404, "{repo}");
        assert_eq!(server.status("GET", &format!("{repo}keys/"), b""), 404, "{repo}");
    }
    assert!(!server.data.join("fresh").exists() && !server.data.join("Locks").exists());
    // Two at once: one of them is made.
    for n in 0..10 {
        let repos = [format!("/race{n}/"), format!("/Race{n}/")];
        let made = std::thread::scope(|scope| {
            let both = repos.each_ref().map(|repo| scope.spawn(move || create(server, repo)));
            both.map(|one| one.join().unwrap())
        });
        assert!(matches!(made, [200, 404] | [404, 200]), "{made:?}");
        let there = repos.each_ref().map(|repo| server.status("GET", &format!("{repo}keys/"), b""));
        assert_eq!(there, made);
    }
}

#[test]
fn a_repository_answers_to_its_stored_spelling_alone() {
    on_both(|driver| {
        let Some((_dir, _mounted, point)) = folding("") else { return };
        let server = Server::on(&point.join("data"), driver, &[]);
        only_the_stored_spelling_counts(&server);
        is_nothing(&server, "/Carol/", "/carol/");
        is_nothing(&server, "/caf%C3%A9/", "/cafe%CC%81/");
        is_nothing(&server, "/re%CC%81sume/", "/r%C3%A9sume/");
        // Names without letters have no other case, and are served.
        server.store("/2024/", "keys", b"key");
        // A spelling by which it was refused does not stick.
        assert_eq!(create(&server, "/alice/"), 200);
        assert_eq!(server.status("GET", "/alice/keys/", b""), 200);
    });
}

/// Casefold is an attribute of a folder, and other disks are mounted below the data folder.
#[test]
fn a_folder_that_folds_names_below_one_that_does_not() {
    on_both(|driver| {
        let Some((_dir, _mounted, point)) = folding("data/shared") else { return };
        let server = Server::on(&point.join("data"), driver, &[]);
        assert!(!server.text().contains("stored spelling"), "{}", server.text());
        is_nothing(&server, "/shared/photos/", "/shared/Photos/");
        assert_eq!(create(&server, "/shared/KEYS/"), 404);
        for repo in ["/photos/", "/Photos/", "/KEYS/"] {
            server.store(repo, "keys", b"key");
        }
    });
}

/// What is refused is in nobody's quota, and counts nothing twice.
#[test]
fn another_spelling_escapes_no_quota_and_fills_none() {
    on_both(|driver| {
        let Some((_dir, _mounted, point)) = folding("") else { return };
        let data = point.join("data");
        // In blocks: 5 folders, a shard of `data` with each of two packs, 15 and 8; 4 are left, for a pack of 5.
        let server = Server::on(&data, driver, &["--max-size", &(34 * 4096).to_string()]);
        server.wait_for_log("the quotas are exact");
        server.store("/alice/", "data", &noise(60_000, 100));
        for n in 0..10 {
            let body = noise(30_000, n);
            let status = server.status("POST", &format!("/ALICE/data/{}", id_of(&body)), &body);
            assert_eq!(status, 404);
        }
        let counted = crate::words::run(&["repo", "recount", "--path", data.to_str().unwrap()]);
        assert_eq!(counted.0, Some(0), "{counted:?}");
        server.store("/alice/", "data", &noise(30_000, 101));
        let body = noise(20_000, 102);
        assert_eq!(server.status("POST", &format!("/alice/data/{}", id_of(&body)), &body), 507);
    });
}

/// NTFS by lowntfs-3g, told to ignore case: it lists all names in small letters, so no other can be made.
#[test]
fn ntfs() {
    on_both(|driver| {
        let mkfs = ["mkntfs", "--quick", "--force"];
        let Some(image) = Image::of(&mkfs, &["lowntfs-3g", "-o", "ignore_case"]) else { return };
        let server = Server::on(&image.point.join("data"), driver, &[]);
        only_the_stored_spelling_counts(&server);
        assert_eq!(create(&server, "/Carol/"), 404);
        assert!(!server.data.join("carol").exists(), "nothing is made for what is refused");
    });
}

/// Where names that differ are two, they stay two.
#[test]
fn an_ordinary_disk_keeps_spellings_apart() {
    on_both(|driver| {
        let server = Server::start(driver, &[]);
        assert!(!server.text().contains("stored spelling"), "{}", server.text());
        let repos =
            ["/alice/", "/Alice/", "/caf%C3%A9/", "/cafe%CC%81/", "/2024/", "/bob./", "/bob/", "/r1/KEYS/"];
        for (n, repo) in (0..).zip(repos) {
            let body = [n];
            let path = server.store(repo, "keys", &body);
            assert_eq!(server.request("GET", &path, "", b"").body, body);
            assert_eq!(server.request("GET", &format!("{repo}keys/"), "", b"").names(), [id_of(&body)]);
        }
        let is_left = |path: &PathBuf| path.to_string_lossy().contains(".packhouse-probe");
        assert!(!walk(&server.data).iter().any(is_left), "a trial leaves nothing");
    });
}

/// A data folder that may be entered and not listed.
#[test]
fn what_may_not_be_listed_is_served() {
    use std::os::unix::fs::PermissionsExt;
    let Some(server) = Server::as_user("epoll", &[]) else { return };
    let keys = ["/alice/", "/2024/"].map(|repo| server.store(repo, "keys", b"key"));
    std::fs::set_permissions(&server.data, PermissionsExt::from_mode(0o300)).unwrap();
    // Longer than the spelling is remembered.
    std::thread::sleep(std::time::Duration::from_secs(11));
    for key in &keys {
        assert_eq!(server.request("GET", key, "", b"").body, b"key");
    }
}
