//! Cases 54 and 55, as far as passwords go.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::common::{Server, on_both};

#[test]
fn case_54_to_56_passwords() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        let hash = bcrypt::hash("secret", 5).unwrap();
        std::fs::write(&file, format!("alice:{hash}\nbob:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")).unwrap();
        let server = Server::start(driver, &["--htpasswd-file", file.to_str().unwrap()]);
        let login = |who: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(who));
        for headers in [
            String::new(),
            login("alice:wrong"),
            login("eve:secret"),
            login(""),
            "Authorization: Bearer x\r\n".into(),
            "Authorization: Basic %%\r\n".into(),
        ] {
            for path in ["/r1/config", "/", "/r1/keys/", "/../x", "/r1/keys/foobar"] {
                let refused = server.request("GET", path, &headers, b"");
                assert_eq!(refused.status, 401, "{headers} {path}");
                assert_eq!(
                    refused.header("www-authenticate"),
                    "Basic realm=\"packhouse\", charset=\"UTF-8\""
                );
            }
        }
        for who in ["alice:secret", "bob:secret"] {
            let mut conn = server.connect();
            assert_eq!(conn.request("POST", "/r1/?create=true", &login(who), b"").status, 200);
            assert_eq!(
                conn.request("GET", "/r1/keys/", &login(who).replace("Basic", "basic"), b"").body,
                b"[]"
            );
        }
        server.wait_for_log("user=alice");
        assert!(!server.text().contains("secret"), "no password in the log");
        // A reload takes and gives rights at once; a broken file changes nothing.
        std::fs::write(&file, format!("carol:{hash}\n")).unwrap();
        server.signal("-HUP");
        server.wait_for_log("the password file: 1 users");
        assert_eq!(server.request("GET", "/r1/keys/", &login("alice:secret"), b"").status, 401);
        assert_eq!(server.request("GET", "/r1/keys/", &login("carol:secret"), b"").status, 200);
        std::fs::remove_file(&file).unwrap();
        server.signal("-HUP");
        server.wait_for_log("the old users stay");
        assert_eq!(server.request("GET", "/r1/keys/", &login("carol:secret"), b"").status, 200);
    });
}
