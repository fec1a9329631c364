//! Every restic over TLS, with users and private repositories, client certificates, unix sockets and socket activation.

use std::path::Path;

use crate::client::{Restic, restics};
use crate::common::{DRIVERS, Server, free_port};
use crate::pki::Pki;

/// init, backup, check, restore; returns whether the restored file is the same.
fn round(restic: &Restic, dir: &Path) {
    let (tree, restored) = (dir.join("tree"), dir.join("restored"));
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("file"), crate::common::noise(3 << 20, 1)).unwrap();
    restic.run(&["init"]);
    restic.run(&["backup", tree.to_str().unwrap()]);
    assert!(restic.run(&["check", "--read-data"]).contains("no errors were found"));
    restic.run(&["restore", "latest", "--target", restored.to_str().unwrap()]);
    let copy = restored.join(tree.strip_prefix("/").unwrap()).join("file");
    assert!(std::fs::read(copy).unwrap() == std::fs::read(tree.join("file")).unwrap());
    std::fs::remove_dir_all(restored).unwrap();
}

#[test]
fn over_tls_with_users_and_private_repositories() {
    for (n, client) in restics().iter().enumerate() {
        let (dir, pki) = (tempfile::tempdir().unwrap(), Pki::new());
        let (cert, key) = pki.server("server", &["localhost", "127.0.0.1"]);
        let users = pki.text("users");
        let hash = bcrypt::hash("p@ss", 8).unwrap();
        std::fs::write(&users, format!("alice:{hash}\nbob:{hash}\n")).unwrap();
        let flags =
            ["--tls", "--tls-cert", &cert, "--tls-key", &key, "--htpasswd-file", &users, "--private-repos"];
        let server = Server::start(DRIVERS[n % 2], &flags);
        let to = |user: &str, repo: &str| {
            let mut restic =
                Restic::new(client, format!("rest:https://{user}:p%40ss@{}/{repo}/", server.addresses[0]));
            restic.flags = vec!["--cacert".into(), pki.text("ca.pem")];
            restic
        };
        round(&to("alice", "alice/laptop"), dir.path());
        let foreign = to("bob", "alice/laptop");
        assert!(!server.text().contains(" ERROR "), "{}", server.text());
        // restic 0.14 goes on trying for a while: one refusal is enough to see.
        let refused = server.request_count("status=403");
        let child = std::thread::spawn(move || foreign.try_run(&["cat", "config"]).0);
        crate::common::wait_for("the refusal", || {
            server.request_count("status=403") > refused || child.is_finished()
        });
        drop(server);
        assert!(!child.join().unwrap());
    }
}

#[test]
fn with_a_client_certificate() {
    for (n, client) in restics().iter().enumerate() {
        let (dir, pki) = (tempfile::tempdir().unwrap(), Pki::new());
        let (cert, key) = pki.server("server", &["localhost", "127.0.0.1"]);
        let (alice, alice_key) = pki.issue("alice", |_| ());
        let both = [std::fs::read(alice).unwrap(), std::fs::read(alice_key).unwrap()].concat();
        std::fs::write(pki.path("both.pem"), both).unwrap();
        let ca = pki.text("ca.pem");
        let flags =
            ["--tls", "--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca, "--private-repos"];
        let server = Server::start(DRIVERS[n % 2], &flags);
        let mut restic = Restic::new(client, format!("rest:https://{}/alice/", server.addresses[0]));
        restic.flags = vec!["--cacert".into(), ca.clone(), "--tls-client-cert".into(), pki.text("both.pem")];
        round(&restic, dir.path());
        server.wait_for_log("user=alice");
    }
}

#[test]
fn over_a_unix_socket() {
    for (n, client) in restics().iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let server = Server::start(DRIVERS[n % 2], &["--listen", &format!("unix:{}", socket.display())]);
        let restic = Restic::new(client, format!("rest:http+unix://{}:/r1/", socket.display()));
        if restic.version().contains("0.14") {
            continue;
        }
        round(&restic, dir.path());
        assert!(server.text().contains("unix user=-"));
    }
}

#[test]
fn by_socket_activation() {
    let Some(client) = restics().into_iter().next_back() else { return };
    let dir = tempfile::tempdir().unwrap();
    let address = free_port();
    let Some(server) = Server::activated("auto", &[&address], &[], &[], &dir.path().join("data")) else {
        return;
    };
    assert_eq!(server.addresses, [address]);
    round(&Restic::on(&client, &server, "r1"), dir.path());
}
