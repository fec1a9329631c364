//! What a stolen credential with the right to append is tried with, in full: nothing that is stored may change, vanish or
//! be replaced, by any path, method, coding or race. The table of RELIABILITY's "stolen append-only credential".

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Server, id_of, login, noise, on_both, wait_for, walk};
use crate::rights::configured;

const TOML: &str = r#"
    [users.victim]
    rights = { "/**" = "full" }
    [users.thief]
    rights = { "/repo" = "append", "/thief/**" = "append" }
    keys = "closed"
"#;

/// Every file below the data folder with its content, the server's own left out.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walk(root).into_iter().filter(|path| path.is_file());
    let ours = files.filter(|path| !path.to_str().unwrap().contains(".packhouse"));
    ours.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn nothing_that_an_append_credential_tries_changes_what_is_stored() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let server = configured(driver, dir.path(), &["victim", "thief"], TOML, &[]);
        let victim = login("victim", "pw");
        let thief = login("thief", "pw");
        let ask = |method: &str, path: &str, headers: &str, body: &[u8]| {
            let mut conn = server.connect();
            let response = conn.request(method, path, &format!("{headers}{thief}"), body);
            response.status
        };
        assert_eq!(server.request("POST", "/repo/?create=true", &victim, b"").status, 200);
        assert_eq!(server.request("POST", "/repo/config", &victim, b"config").status, 200);
        assert_eq!(server.request("POST", "/other/?create=true", &victim, b"").status, 200);
        assert_eq!(server.request("POST", "/other/config", &victim, b"config").status, 200);
        let mut stored = Vec::new();
        for kind in ["data", "index", "keys", "snapshots", "locks"] {
            let body = format!("the victim's {kind}");
            let path = format!("/repo/{kind}/{}", id_of(body.as_bytes()));
            assert_eq!(server.request("POST", &path, &victim, body.as_bytes()).status, 200);
            stored.push((kind, path, body));
        }
        let before = contents(&server.data);
        let mut tried = 0;
        let mut refused = |status: u16, what: String| {
            tried += 1;
            assert!((400..500).contains(&status), "{status} for {what}");
        };
        let chunked = "Transfer-Encoding: chunked\r\n";
        for (kind, path, body) in &stored {
            let id = path.rsplit('/').next().unwrap();
            // Delete, by every spelling.
            for spelling in [
                path.clone(),
                path.replace("/repo/", "/%72epo/"),
                path.replace(kind, &format!("%{:02x}{}", kind.as_bytes()[0], &kind[1..])),
                path.replace("/repo/", "/repo//"),
                path.replace("/repo/", "/./repo/"),
                path.replace("/repo/", "/thief/../repo/"),
                path.replace("/repo/", "/thief/%2e%2e/repo/"),
                path.replace("/repo/", "/thief/..%2frepo/"),
                format!("/repo/{kind}/{}/{id}", &id[..2]),
                format!("http://h{path}"),
                format!("{path}?create=true"),
                format!("{path}/"),
                path.to_uppercase(),
            ] {
                refused(ask("DELETE", &spelling, "", b""), format!("DELETE {spelling}"));
            }
            // Overwrite, with other bytes of the same and of another length, announced and chunked.
            let same_length = body.to_uppercase();
            for other in [same_length.as_bytes(), b"short", b""] {
                refused(ask("POST", path, "", other), format!("POST {path} with other bytes"));
                let coded = match other.len() {
                    0 => b"0\r\n\r\n".to_vec(),
                    n => [format!("{n:x}\r\n").as_bytes(), other, b"\r\n0\r\n\r\n"].concat(),
                };
                refused(
                    ask("POST", path, chunked, &coded),
                    format!("POST {path} with other bytes in chunks"),
                );
            }
            // Other methods, and headers that some servers take for another method.
            for method in ["PUT", "PATCH", "MOVE", "COPY", "TRACE", "MKCOL", "PROPPATCH", "delete"] {
                refused(ask(method, path, "Destination: /thief/x\r\n", b""), format!("{method} {path}"));
            }
            let override_method = "X-HTTP-Method-Override: DELETE\r\nX-Method-Override: DELETE\r\n";
            refused(ask("POST", path, override_method, b"x"), format!("an override of {path}"));
        }
        for (method, path) in [
            ("DELETE", "/repo/config"),
            ("DELETE", "/repo/%63onfig"),
            ("DELETE", "/repo/"),
            ("DELETE", "/repo"),
            ("DELETE", "/repo/data/"),
            ("DELETE", "/repo/locks/"),
            ("DELETE", "/"),
            ("DELETE", "/other/config"),
            ("POST", "/repo/config"),
            ("PUT", "/repo/config"),
            ("POST", "/other/config"),
            ("POST", "/other/?create=true"),
            ("POST", "/?create=true"),
            ("POST", "/config"),
            ("GET", "/other/config"),
            ("GET", "/other/keys/"),
            ("POST", "/thief/../other/config"),
            ("POST", "/.packhouse/config"),
            ("POST", "/.htpasswd/config"),
            ("GET", "/repo/.packhouse"),
            ("GET", "/.packhouse/lock"),
        ] {
            let body: &[u8] = if method == "POST" && path.ends_with("config") { b"mine" } else { b"" };
            refused(ask(method, path, "", body), format!("{method} {path}"));
        }
        // Whose request it is: two users, another's name in headers that a proxy would set.
        let (_, pack, _) = &stored[0];
        for headers in [
            "X-Forwarded-User: victim\r\n",
            "X-Remote-User: victim\r\nRemote-User: victim\r\n",
            "Proxy-Authorization: Basic dmljdGltOnB3\r\n",
            "X-Original-URL: /thief/config\r\nX-Rewrite-URL: /thief/config\r\n",
            "X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
        ] {
            refused(ask("DELETE", pack, headers, b""), format!("DELETE with {headers:?}"));
        }
        // Keys are closed, whatever the bytes.
        for body in [&b"a key of the thief"[..], &noise(1000, 7)] {
            let path = format!("/repo/keys/{}", id_of(body));
            refused(ask("POST", &path, "", body), "a new key".into());
            refused(ask("POST", &path, chunked, b"0\r\n\r\n"), "a new key in chunks".into());
        }
        // Under a right name wrong bytes.
        for kind in ["data", "index", "snapshots", "locks"] {
            let path = format!("/repo/{kind}/{}", id_of(b"what it should be"));
            refused(ask("POST", &path, "", b"what it is"), format!("wrong bytes for {kind}"));
        }
        assert!(tried >= 60, "{tried} attempts");
        assert_eq!(contents(&server.data), before);
        println!("{tried} attempts, all refused");
    });
}

#[test]
fn races_change_nothing_either() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let server = configured(driver, dir.path(), &["victim", "thief"], TOML, &[]);
        let (victim, thief) = (login("victim", "pw"), login("thief", "pw"));
        assert_eq!(server.request("POST", "/repo/?create=true", &victim, b"").status, 200);
        // The victim stores while the thief deletes, overwrites and re-creates the same names.
        let wrong = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for n in 0..3u64 {
                let (server, thief, wrong) = (&server, &thief, &wrong);
                scope.spawn(move || {
                    let mut conn = server.connect();
                    for round in 0..60 {
                        let body = noise(2000, round);
                        let path = format!("/repo/data/{}", id_of(&body));
                        let status = match n {
                            0 => conn.request("DELETE", &path, thief, b"").status,
                            1 => conn.request("POST", &path, thief, &noise(2000, round + 1000)).status,
                            _ => conn.request("POST", "/repo/config", thief, b"the thief's").status,
                        };
                        if status == 200 && n < 2 {
                            wrong.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let mut conn = server.connect();
            for round in 0..60 {
                let body = noise(2000, round);
                let path = format!("/repo/data/{}", id_of(&body));
                assert_eq!(conn.request("POST", &path, &victim, &body).status, 200);
            }
        });
        assert_eq!(wrong.into_inner(), 0);
        let mut conn = server.connect();
        for round in 0..60 {
            let body = noise(2000, round);
            let path = format!("/repo/data/{}", id_of(&body));
            assert!(conn.request("GET", &path, &victim, b"").body == body);
        }
    });
}

/// Uploads that are refused, into a repository without folders and into none: 400, 404, 413, 507.
#[test]
fn what_is_refused_leaves_no_folder() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("data/r1/keys")).unwrap();
        let server = Server::on(&dir.path().join("data"), driver, &["--max-size", "100KB"]);
        wait_for("the count", || server.text().contains("the quotas are exact"));
        let folders = || {
            let all = walk(&server.data);
            all.into_iter()
                .filter(|path| path.is_dir() && !path.to_string_lossy().contains(".packhouse"))
                .count()
        };
        let before = folders();
        for n in 0..50_u64 {
            let (right, large) = (noise(1000, n), noise(200_000, n));
            for kind in ["data", "keys", "locks", "index", "snapshots"] {
                let path = |repo: &str, body: &[u8]| format!("/{repo}/{kind}/{}", id_of(body));
                assert_eq!(server.status("POST", &path("r1", b"another"), &right), 400, "{kind}");
                let wanted = if kind == "locks" { 413 } else { 507 };
                assert_eq!(server.status("POST", &path("r1", &large), &large), wanted, "{kind}");
                assert_eq!(server.status("POST", &path(&format!("x{n}"), &right), &right), 404, "{kind}");
            }
            assert_eq!(server.status("POST", &format!("/x{n}/config"), b"config"), 404);
            assert_eq!(server.status("GET", &format!("/x{n}/keys/"), b""), 404);
        }
        assert_eq!(folders(), before);
        // In a repository folders come as they are needed, with what is stored.
        let body = noise(1000, 1);
        for kind in ["data", "index", "snapshots", "locks"] {
            assert_eq!(server.status("POST", &format!("/r1/{kind}/{}", id_of(&body)), &body), 200);
        }
        assert_eq!(server.request("GET", "/r1/data/", "", b"").names(), [id_of(&body)]);
    });
}
