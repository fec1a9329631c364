//! Cases 2, 16, 60, 61 and 67: append-only, modes of files, and what an ordinary user can't read.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::common::{Server, USER, id_of, on_both};

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
fn case_02_and_16_modes_of_an_ordinary_user() {
    on_both(|driver| {
        for (flags, folder, file) in [(&[][..], 0o700, 0o600), (&["--group-accessible-repos"], 0o770, 0o660)]
        {
            let Some(server) = Server::as_user(driver, flags) else { return };
            server.create("/own/");
            for kind in ["data", "keys"] {
                server.store("/own/", kind, b"body");
            }
            assert_eq!(server.status("POST", "/own/config", b"config"), 200);
            let id = id_of(b"body");
            for path in ["own", "own/data", "own/keys", "own/data/00"] {
                assert_eq!(server.mode(path), folder, "{path}");
            }
            for path in ["own/config", &format!("own/keys/{id}"), &format!("own/data/{}/{id}", &id[..2])] {
                assert_eq!(server.mode(path), file, "{path}");
                assert_eq!(std::fs::metadata(server.data.join(path)).unwrap().uid(), USER);
            }
            assert_eq!(server.mode(".packhouse"), 0o700);
        }
    });
}

#[test]
fn case_67_what_the_server_may_not_read() {
    on_both(|driver| {
        let Some(server) = Server::as_user(driver, &[]) else { return };
        server.create("/r1/");
        let path = server.store("/r1/", "keys", b"key");
        std::fs::set_permissions(server.data.join(&path[1..]), PermissionsExt::from_mode(0o000)).unwrap();
        let get = server.request("GET", &path, "", b"");
        assert_eq!((get.status, get.text().as_str()), (500, "Internal Server Error\n"));
        assert_eq!(server.status("HEAD", &path, b""), 200);
        std::fs::set_permissions(server.data.join("r1/locks"), PermissionsExt::from_mode(0o000)).unwrap();
        assert_eq!(server.status("GET", "/r1/locks/", b""), 500);
    });
}
