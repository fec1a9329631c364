//! Case 58 and rights by path: what each user may do, over the wire.

use crate::common::{Server, id_of, login, on_both, users, wait_for};

/// A server with a settings file and users.
pub fn configured(driver: &str, dir: &std::path::Path, names: &[&str], toml: &str, flags: &[&str]) -> Server {
    let file = users(dir, names);
    let config = dir.join("packhouse.toml");
    std::fs::write(&config, toml).unwrap();
    let config = config.to_str().unwrap();
    let mut all = vec!["--htpasswd-file", &file, "--config", config];
    all.extend(flags);
    Server::start(driver, &all)
}

pub fn as_user(server: &Server, user: &str, method: &str, path: &str, body: &[u8]) -> u16 {
    server.request(method, path, &login(user, "pw"), body).status
}

#[test]
fn case_58_private_repositories() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["alice", "bob"]);
        let server = Server::start(driver, &["--htpasswd-file", &file, "--private-repos"]);
        for path in ["/alice/", "/alice/sub/"] {
            assert_eq!(as_user(&server, "alice", "POST", &format!("{path}?create=true"), b""), 200);
            assert_eq!(as_user(&server, "alice", "POST", &format!("{path}config"), b"config"), 200);
            assert_eq!(as_user(&server, "alice", "GET", &format!("{path}keys/"), b""), 200);
            for (method, tail) in
                [("GET", "config"), ("HEAD", "config"), ("DELETE", "config"), ("GET", "keys/")]
            {
                assert_eq!(as_user(&server, "bob", method, &format!("{path}{tail}"), b""), 403);
                assert_eq!(server.status(method, &format!("{path}{tail}"), b""), 401);
            }
        }
        for path in ["/", "/bob/", "/alicex/", "/Alice/", "/bob/alice/"] {
            assert_eq!(as_user(&server, "alice", "POST", &format!("{path}?create=true"), b""), 403, "{path}");
            assert_eq!(as_user(&server, "alice", "POST", &format!("{path}config"), b"x"), 403, "{path}");
        }
        assert!(!server.data.join("bob").exists() && !server.data.join("config").exists());
    });
}

#[test]
fn each_right_may_what_the_table_says() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let toml = r#"
            [users.lister]
            rights = { "/r1" = "list" }
            [users.reader]
            rights = { "/r1" = "read" }
            [users.writer]
            rights = { "/**" = "append" }
            [users.closed]
            rights = { "/r1" = "append" }
            keys = "closed"
            [users.owner]
            rights = { "/**" = "full" }
        "#;
        let names = ["lister", "reader", "writer", "closed", "owner", "nobody"];
        let server = configured(driver, dir.path(), &names, toml, &[]);
        let ask =
            |user: &str, method: &str, path: &str, body: &[u8]| as_user(&server, user, method, path, body);
        assert_eq!(ask("writer", "POST", "/r1/?create=true", b""), 200);
        assert_eq!(ask("writer", "POST", "/r1/config", b"config"), 200);
        let key = format!("/r1/keys/{}", id_of(b"key"));
        let pack = format!("/r1/data/{}", id_of(b"pack"));
        let lock = |body: &str| format!("/r1/locks/{}", id_of(body.as_bytes()));
        assert_eq!(ask("closed", "POST", &key, b"key"), 403);
        assert_eq!(ask("writer", "POST", &key, b"key"), 200);
        assert_eq!(ask("closed", "POST", &pack, b"pack"), 200);
        // By user: HEAD, list, GET, POST a lock, POST a pack, DELETE a pack.
        for (user, wanted) in [
            ("nobody", [403, 403, 403, 403, 403, 403]),
            ("lister", [200, 200, 403, 403, 403, 403]),
            ("reader", [200, 200, 200, 200, 403, 403]),
            ("writer", [200, 200, 200, 200, 200, 403]),
            ("closed", [200, 200, 200, 200, 200, 403]),
        ] {
            let got = [
                ask(user, "HEAD", &pack, b""),
                ask(user, "GET", "/r1/data/", b""),
                ask(user, "GET", &pack, b""),
                ask(user, "POST", &lock(user), user.as_bytes()),
                ask(user, "POST", &pack, b"pack"),
                ask(user, "DELETE", &pack, b""),
            ];
            assert_eq!(got, wanted, "{user}");
        }
        // Locks are removed by who made them, and a second upload of the same bytes changes no owner.
        assert_eq!(ask("writer", "POST", &lock("reader"), b"reader"), 200);
        for (user, name, status) in [
            ("writer", "reader", 403),
            ("closed", "reader", 403),
            ("lister", "reader", 403),
            ("reader", "reader", 200),
            ("reader", "reader", 200),
            ("reader", "writer", 403),
            ("owner", "writer", 200),
            ("closed", "closed", 200),
        ] {
            assert_eq!(ask(user, "DELETE", &lock(name), b""), status, "{user} deletes the lock of {name}");
        }
        // A lock that somebody laid there by other means has no owner.
        let foreign = server.data.join("r1/locks").join(id_of(b"foreign"));
        std::fs::write(foreign, b"foreign").unwrap();
        assert_eq!(ask("writer", "DELETE", &lock("foreign"), b""), 403);
        assert_eq!(ask("owner", "DELETE", &lock("foreign"), b""), 200);
        // To make a lock is not to make a repository.
        let dir_count = std::fs::read_dir(&server.data).unwrap().count();
        let elsewhere = format!("/r2/locks/{}", id_of(b"x"));
        assert_eq!(ask("reader", "POST", &elsewhere, b"x"), 403);
        assert_eq!(std::fs::read_dir(&server.data).unwrap().count(), dir_count);
        assert_eq!(ask("owner", "DELETE", &pack, b""), 200);
    });
}

#[test]
fn an_empty_table_is_no_right_and_what_is_not_said_is_as_for_the_others() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let toml = "[users.mallory]\nrights = {}\n[users.alice]\nkeys = \"closed\"\n[users.\"*\"]\nrights = { \"/**\" = \"append\" }\n";
        let server = configured(driver, dir.path(), &["mallory", "alice", "bob"], toml, &[]);
        let key = |body: &[u8]| format!("/r1/keys/{}", id_of(body));
        assert_eq!(as_user(&server, "bob", "POST", &key(b"bob"), b"bob"), 200);
        assert_eq!(as_user(&server, "alice", "POST", "/r1/config", b"config"), 200);
        assert_eq!(as_user(&server, "alice", "POST", &key(b"alice"), b"alice"), 403);
        assert_eq!(as_user(&server, "mallory", "GET", "/r1/keys/", b""), 403);
        std::fs::write(dir.path().join("packhouse.toml"), "[users.mallory]\nrights = {}\n").unwrap();
        server.signal("-HUP");
        server.wait_for_log("reloaded the settings");
        assert_eq!(as_user(&server, "mallory", "GET", "/r1/keys/", b""), 403);
        assert_eq!(as_user(&server, "bob", "GET", "/r1/keys/", b""), 403);
    });
}

#[test]
fn a_reader_makes_no_repository_by_locking_it() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let server = configured(
            driver,
            dir.path(),
            &["reader"],
            "[users.reader]\nrights = { \"/**\" = \"read\" }\n",
            &[],
        );
        let path = format!("/new/locks/{}", id_of(b"x"));
        assert_eq!(as_user(&server, "reader", "POST", &path, b"x"), 404);
        assert!(!server.data.join("new").exists());
        std::fs::create_dir_all(server.data.join("new/keys")).unwrap();
        assert_eq!(as_user(&server, "reader", "POST", &path, b"x"), 200);
    });
}

#[test]
fn rustic_servers_rules_mean_what_they_say() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["reader", "writer", "owner", "other"]);
        let acl = dir.path().join("acl.toml");
        std::fs::write(&acl, "[r1]\nreader = \"Read\"\nwriter = \"Append\"\nowner = \"Modify\"\n").unwrap();
        let flags = ["--htpasswd-file", &file, "--acl-file", acl.to_str().unwrap()];
        let server = Server::start(driver, &flags);
        let ask =
            |user: &str, method: &str, path: &str, body: &[u8]| as_user(&server, user, method, path, body);
        assert_eq!(ask("owner", "POST", "/r1/?create=true", b""), 200);
        let pack = format!("/r1/data/{}", id_of(b"pack"));
        let lock = format!("/r1/locks/{}", id_of(b"lock"));
        assert_eq!(ask("writer", "POST", &pack, b"pack"), 200);
        assert_eq!(ask("writer", "POST", &lock, b"lock"), 200);
        // In rustic_server 0.4 all of these are 200.
        for (user, path) in [("writer", &pack), ("reader", &pack), ("reader", &lock), ("other", &lock)] {
            assert_eq!(ask(user, "DELETE", path, b""), 403, "{user} {path}");
        }
        assert_eq!(ask("other", "GET", &pack, b""), 403);
        assert_eq!(ask("reader", "GET", &pack, b""), 200);
        assert_eq!(ask("owner", "DELETE", &pack, b""), 200);
        // A repository without rules is everybody's, as the flags say.
        assert_eq!(ask("other", "POST", "/r2/?create=true", b""), 200);
        // A start tells which there are.
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        std::fs::create_dir_all(data.join("r1/data")).unwrap();
        std::fs::create_dir_all(data.join("r2/data")).unwrap();
        let told = "acl-file: every user has the right `full` to repositories without a table: /r2/. ";
        Server::on(&data, driver, &flags).wait_for_log(told);
    });
}

/// In the words of `config check`, at the start and when the settings are read anew.
#[test]
fn rights_that_meet_and_names_that_look_alike_are_told_by_the_server_too() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let rules = |more: &str| {
            format!("[users.alice]\nrights = {{ \"/a/**\" = \"full\", \"/*/secret\" = \"none\"{more} }}\n")
        };
        let server = configured(driver, dir.path(), &["alice", "Alice"], &rules(""), &[]);
        let told =
            "user alice: for /a/secret/ the right `full` on /a/**/ counts, and not `none` on /*/secret/";
        server.wait_for_log(told);
        server.wait_for_log("users Alice, alice: ");
        let create = |repo: &str| as_user(&server, "alice", "POST", &format!("/{repo}/?create=true"), b"");
        assert_eq!((create("a/secret"), create("b/secret"), create("a/b")), (200, 403, 200));
        // What was warned of, decided.
        std::fs::write(dir.path().join("packhouse.toml"), rules(", \"/a/secret\" = \"none\"")).unwrap();
        server.signal("-HUP");
        server.wait_for_log("reloaded the settings");
        assert_eq!(as_user(&server, "alice", "GET", "/a/secret/data/", b""), 403);
        assert_eq!(as_user(&server, "alice", "GET", "/a/b/data/", b""), 200);
        assert_eq!(server.request_count(told), 1, "{}", server.text());
        // And undone.
        std::fs::write(dir.path().join("packhouse.toml"), rules("")).unwrap();
        server.signal("-HUP");
        wait_for("the second warning", || server.request_count(told) == 2);
    });
}
