//! Trust that ends while it is used: logins and rights taken away in mid-upload, certificates that end on a kept connection.

use std::time::Duration;

use crate::common::{Conn, Server, id_of, login, noise, on_both, users, wait_for};
use crate::pki::{Pki, connect_shared, handshake};
use crate::rights::{as_user, configured};

const BYTES: usize = 300_000;

/// An upload of which all but the last bytes have come.
fn begin(server: &Server, kind: &str, body: &[u8]) -> Conn {
    let mut conn = server.connect();
    let path = format!("/r1/{kind}/{}", id_of(body));
    conn.begin_upload(&path, &login("alice", "pw"), body, body.len() - 10);
    std::thread::sleep(Duration::from_millis(200));
    conn
}

#[test]
fn an_upload_ends_with_the_login_and_the_right_that_it_began_with() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let rights = |right: &str| format!("[users.alice]\nrights = {{ \"/**\" = \"{right}\" }}\n");
        let config = dir.path().join("packhouse.toml");
        let server = configured(driver, dir.path(), &["alice", "bob"], &rights("append"), &[]);
        assert_eq!(as_user(&server, "alice", "POST", "/r1/?create=true", b""), 200);
        let reload = || {
            let before = server.text().matches("reloaded the settings and").count();
            server.signal("-HUP");
            wait_for("the reload", || server.text().matches("reloaded the settings and").count() > before);
        };
        let end = |conn: &mut Conn, body: &[u8]| {
            conn.send(&body[body.len() - 10..]);
            conn.response().status
        };
        let files = || crate::common::files(&server.data).len();
        for (n, (kind, length)) in
            [("data", BYTES), ("keys", 100), ("snapshots", 100)].into_iter().enumerate()
        {
            let body = |m| noise(length, 10 * n as u64 + m);
            // A reload that changes nothing for alice.
            let (first, second, third) = (body(1), body(2), body(3));
            let mut conn = begin(&server, kind, &first);
            reload();
            assert_eq!(end(&mut conn, &first), 200, "{kind}");
            let before = files();
            // The right is gone.
            let mut conn = begin(&server, kind, &second);
            std::fs::write(&config, rights("read")).unwrap();
            reload();
            assert_eq!(end(&mut conn, &second), 403, "{kind}");
            std::fs::write(&config, rights("append")).unwrap();
            reload();
            // The user is gone; then the password is another.
            for names in [&["bob"][..], &["alice", "bob"]] {
                let mut conn = begin(&server, kind, &third);
                users(dir.path(), names);
                reload();
                assert_eq!(end(&mut conn, &third), 401, "{kind} {names:?}");
                users(dir.path(), &["alice", "bob"]);
                reload();
            }
            assert_eq!(files(), before, "nothing of it is visible: {kind}");
        }
    });
}

#[test]
fn a_client_certificate_ends_on_a_kept_connection_and_in_a_resumed_session() {
    on_both(|driver| {
        let pki = Pki::new();
        let (cert, key) = pki.server("server", &["localhost"]);
        let end = time::OffsetDateTime::now_utc() + time::Duration::seconds(4);
        pki.issue("alice", |params| params.not_after = end);
        let ca = pki.text("ca.pem");
        let flags = ["--tls", "--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
        let server = Server::start(driver, &flags);
        let config = std::sync::Arc::new(pki.client(Some("alice")));
        let new = || {
            let mut conn = connect_shared(&server.addresses[0], std::sync::Arc::clone(&config), "localhost");
            handshake(&mut conn).unwrap();
            conn
        };
        let mut kept = new();
        assert_eq!(kept.request("POST", "/r1/?create=true", "", b"").status, 200);
        // An upload that began in time.
        let mut slow = new();
        let body = noise(1000, 1);
        slow.begin_upload(&format!("/r1/data/{}", id_of(&body)), "", &body, 900);
        let rest = end - time::OffsetDateTime::now_utc() + time::Duration::seconds(2);
        std::thread::sleep(rest.unsigned_abs());
        assert_eq!(kept.request("GET", "/r1/keys/", "", b"").status, 401);
        slow.send(&body[900..]);
        assert_eq!(slow.response().status, 401);
        assert!(crate::common::files(&server.data).is_empty());
        let mut resumed = connect_shared(&server.addresses[0], config.clone(), "localhost");
        let status = match handshake(&mut resumed) {
            Ok(()) => resumed.request("GET", "/r1/keys/", "", b"").status,
            Err(_) => 401,
        };
        assert_eq!(status, 401);
    });
}

/// Two headers are two logins, of which others could take the other one.
#[test]
fn two_authorization_headers_are_refused() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(driver, &["--htpasswd-file", &users(dir.path(), &["alice", "bob"])]);
        for second in [login("bob", "pw"), login("alice", "pw"), "Authorization: Bearer x\r\n".into()] {
            let both = format!("{}{second}", login("alice", "pw"));
            assert_eq!(server.request("GET", "/r1/keys/", &both, b"").status, 400);
        }
        // bcrypt would take it: it ends with NUL and begins again.
        for password in ["pw\0pw", "pw\0", "\0"] {
            assert_eq!(server.request("GET", "/r1/keys/", &login("alice", password), b"").status, 401);
        }
    });
}
