//! Cases 60, 61 and 67: append-only, modes of files, and what an ordinary user can't read.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::{Server, id_of, is_root, on_both, program, skip};

#[test]
fn case_60_and_61_append_only() {
    on_both(|driver| {
        let server = Server::start(driver, &["--append-only"]);
        server.create("/r1/");
        assert_eq!(server.status("POST", "/r1/config", b"config"), 200);
        for kind in ["data", "index", "keys", "snapshots"] {
            let path = server.store("/r1/", kind, b"body");
            for path in [&path, &format!("/r1/{kind}/{}", id_of(b"absent"))] {
                assert_eq!(server.status("DELETE", path, b""), 403, "{path}");
            }
            assert_eq!(server.status("POST", &path, b"ydob"), 403);
            // The answer was lost: restic deletes in vain and stores again.
            assert_eq!(server.status("POST", &path, b"body"), 200);
            assert_eq!(server.request("GET", &path, "", b"").body, b"body");
        }
        let lock = server.store("/r1/", "locks", b"lock");
        assert_eq!(server.status("DELETE", &lock, b""), 200);
        assert_eq!(server.status("DELETE", &lock, b""), 200);
        assert_eq!(server.status("DELETE", "/r1/", b""), 405);
        server.create("/r1/");
        assert_eq!(server.files().len(), 5);
    });
}

#[test]
fn group_accessible_repos() {
    on_both(|driver| {
        let server = Server::start(driver, &["--group-accessible-repos"]);
        server.create("/r1/");
        let path = server.store("/r1/", "keys", b"key");
        for folder in ["r1", "r1/data", "r1/data/7f"] {
            assert_eq!(server.mode(folder), 0o770, "{folder}");
        }
        assert_eq!(server.mode(&path[1..]), 0o660);
        assert_eq!(server.mode(".packhouse"), 0o700);
    });
}

#[test]
fn case_67_what_the_server_may_not_read() {
    if !is_root() {
        return skip("an ordinary user is needed beside root");
    }
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let copy = dir.path().join("packhouse");
        std::fs::copy(program(), &copy).unwrap();
        for path in [dir.path(), &copy] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        assert!(Command::new("chown").arg("65534:65534").arg(&data).status().unwrap().success());
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
        command.args(Server::command(&data, driver, &[]).get_args());
        let server = Server::launch(command, &data);
        server.create("/r1/");
        let path = server.store("/r1/", "keys", b"key");
        std::fs::set_permissions(data.join(&path[1..]), PermissionsExt::from_mode(0o000)).unwrap();
        let get = server.request("GET", &path, "", b"");
        assert_eq!((get.status, get.text().as_str()), (500, "Internal Server Error\n"));
        assert_eq!(server.status("HEAD", &path, b""), 200);
        std::fs::set_permissions(data.join("r1/locks"), PermissionsExt::from_mode(0o000)).unwrap();
        assert_eq!(server.status("GET", "/r1/locks/", b""), 500);
        // The whole store as this user has it.
        assert_eq!(
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(data.join("r1/keys")).unwrap()),
            65534
        );
    });
}
