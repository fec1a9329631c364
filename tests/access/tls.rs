//! Case 70, certificates by name, reloads, client certificates, revocation.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};

use crate::common::{Conn, NO_SCRUB, Server, id_of, login, noise, on_both, skip, wait_for};
use crate::pki::{Pki, connect, connect_shared, der, handshake, shown};

/// A server with TLS and one certificate, for localhost.
fn serve(driver: &str, flags: &[&str]) -> (Pki, Server) {
    let pki = Pki::new();
    let (cert, key) = pki.server("server", &["localhost"]);
    let server = Server::start(driver, &[&["--tls", "--tls-cert", &cert, "--tls-key", &key], flags].concat());
    (pki, server)
}

fn with_versions(pki: &Pki, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    use rustls_pki_types::pem::PemObject as _;
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(pki.path("ca.pem")).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// What the server says to a ClientHello of an old version: the first byte of its answer is an alert's.
fn old_hello(address: &str, version: [u8; 2]) -> Vec<u8> {
    use std::io::Read as _;
    let body =
        [&[version[0], version[1]][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x13], &[1, 0], &[0, 0]].concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    let record = [&[22, 3, 1, 0, message.len() as u8][..], &message].concat();
    let mut tcp = crate::common::patient(TcpStream::connect(address).unwrap());
    tcp.write_all(&record).unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).ok();
    answer
}

#[test]
fn an_encrypted_connection_moves_to_another_worker() {
    on_both(|driver| {
        let (pki, server) = serve(driver, &["--workers", "2"]);
        let open = || connect(&server.addresses[0], pki.client(None), "localhost");
        let mut conns: Vec<_> = (0..6).map(|_| open()).collect();
        wait_for("three with each worker", || server.workers_of(&mut conns) == [3, 3]);
        // Whoever is left moves until it is even again.
        conns.truncate(2);
        for n in 0..20 {
            server.workers_of(&mut conns);
            let body = noise(300_000, n);
            let path = format!("/r1/data/{}", id_of(&body));
            for conn in &mut conns {
                assert_eq!(conn.request("POST", &path, "", &body).status, 200);
                assert!(conn.request("GET", &path, "", b"").body == body);
            }
        }
        wait_for("one with each worker", || server.workers_of(&mut conns) == [1, 1]);
    });
}

#[test]
fn case_70_versions_alpn_and_large_bodies() {
    on_both(|driver| {
        let (pki, server) = serve(driver, &["--hsts", "1h"]);
        let address = &server.addresses[0];
        let body = noise(30 << 20, 3);
        let path = format!("/r1/data/{}", id_of(&body));
        for (version, wanted) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
            let mut conn = connect(address, with_versions(&pki, &[version]), "localhost");
            let stored = conn.request("POST", &path, "", &body);
            assert_eq!((stored.status, stored.header("strict-transport-security")), (200, "max-age=3600"));
            assert_eq!(conn.stream.conn.protocol_version(), Some(wanted));
            assert!(conn.request("GET", &path, "", b"").body == body);
            for (first, last) in [(1_000_000, 2_999_999), (1_000_000, 1_000_005), (7, 16_390), (7, 16_391)] {
                let part = conn.request("GET", &path, &format!("Range: bytes={first}-{last}\r\n"), b"");
                assert!(part.status == 206 && part.body == body[first..=last], "{first}-{last}");
            }
        }
        for old in [[3, 1], [3, 2]] {
            let answer = old_hello(address, old);
            // A fatal alert: handshake_failure or protocol_version.
            assert!(
                answer[0] == 21 && answer[5] == 2 && [40, 70].contains(&answer[6]),
                "{old:?}: {answer:?}"
            );
        }
        for (offered, works) in [
            (&[&b"http/1.1"[..]][..], true),
            (&[b"h2", b"http/1.1"], true),
            (&[b"http/1.0"], true),
            (&[b"h2"], false),
        ] {
            let mut config = pki.client(None);
            config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
            let mut conn = connect(address, config, "localhost");
            let shaken = handshake(&mut conn);
            assert_eq!(shaken.is_ok(), works, "{offered:?}");
            match shaken {
                Ok(()) => assert_eq!(conn.stream.conn.alpn_protocol(), Some(*offered.last().unwrap())),
                Err(e) => assert!(e.to_string().contains("NoApplicationProtocol"), "{e}"),
            }
        }
        // Plain HTTP on this port is no way in.
        let mut plain = server.connect();
        plain.send("GET /r1/config HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(
            !String::from_utf8_lossy(&{
                use std::io::Read as _;
                let mut all = Vec::new();
                plain.stream.read_to_end(&mut all).ok();
                all
            })
            .contains("200")
        );
    });
}

#[test]
fn only_1_3_if_it_is_wanted_and_sessions_are_resumed() {
    on_both(|driver| {
        let (pki, server) = serve(driver, &["--tls-min-ver", "1.3"]);
        let mut old = connect(&server.addresses[0], with_versions(&pki, &[&TLS12]), "localhost");
        assert!(handshake(&mut old).is_err());
        let config = Arc::new(pki.client(None));
        let kinds: Vec<_> = (0..3)
            .map(|_| {
                let mut conn = connect_shared(&server.addresses[0], Arc::clone(&config), "localhost");
                assert_eq!(conn.request("GET", "/r1/config", "", b"").status, 404);
                conn.stream.conn.handshake_kind().unwrap()
            })
            .collect();
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed]);
    });
}

#[test]
fn a_certificate_by_name_and_a_reload_under_running_uploads() {
    on_both(|driver| {
        let pki = Pki::new();
        let (one, one_key) = pki.server("one", &["one.example.org", "127.0.0.1"]);
        let (two, two_key) = pki.server("two", &["two.example.org"]);
        let flags =
            ["--tls", "--tls-cert", &one, "--tls-key", &one_key, "--tls-cert", &two, "--tls-key", &two_key];
        let server = Server::start(driver, &flags);
        let address = server.addresses[0].clone();
        let shows = |host: &str| {
            let mut conn = connect(&address, pki.client(None), host);
            handshake(&mut conn).unwrap();
            shown(&conn)
        };
        assert_eq!(shows("one.example.org"), der(&one));
        assert_eq!(shows("two.example.org"), der(&two));
        assert_eq!(shows("127.0.0.1"), der(&one), "without a name the first");
        // Eight uploads are in the middle of their bodies while the certificate changes.
        let body = noise(1 << 20, 5);
        let path = format!("/r1/data/{}", id_of(&body));
        let mut uploads: Vec<_> = (0..8)
            .map(|n| {
                let mut conn = connect(&address, pki.client(None), "one.example.org");
                std::fs::create_dir_all(server.data.join(format!("r{n}/keys"))).unwrap();
                let path = path.replace("/r1/", &format!("/r{n}/"));
                conn.send(format!(
                    "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                ));
                conn.send(&body[..body.len() / 2]);
                conn
            })
            .collect();
        let old = der(&one);
        // A key that is another's: the old pair stays.
        std::fs::copy(&two_key, &one_key).unwrap();
        server.signal("-HUP");
        server.wait_for_log("is not the key of the certificate");
        assert_eq!(shows("one.example.org"), old);
        // An expired certificate too.
        pki.issue("one", |params| {
            params.subject_alt_names = vec![rcgen::SanType::DnsName("one.example.org".try_into().unwrap())];
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        });
        server.signal("-HUP");
        server.wait_for_log("the certificate has expired");
        assert_eq!(shows("one.example.org"), old);
        // A new pair is taken without a signal.
        pki.server("one", &["one.example.org"]);
        server.wait_for_log("reloaded the certificates");
        assert_eq!(shows("one.example.org"), der(&one));
        assert_ne!(der(&one), old);
        for conn in &mut uploads {
            conn.send(&body[body.len() / 2..]);
            assert_eq!(conn.response().status, 200);
            assert_eq!(shown(conn), old);
        }
    });
}

#[test]
fn a_client_certificate_is_its_user_until_it_is_revoked() {
    on_both(|driver| {
        let (pki, other) = (Pki::new(), Pki::new());
        let (cert, key) = pki.server("server", &["localhost"]);
        pki.issue("alice", |_| ());
        pki.issue("bob", |_| ());
        other.issue("alice", |_| ());
        let ca = pki.text("ca.pem");
        let mut flags = vec!["--tls", "--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
        flags.push("--private-repos");
        let server = Server::start(driver, &flags);
        let ask = |config: ClientConfig, path: &str, headers: &str| {
            let mut conn = connect(&server.addresses[0], config, "localhost");
            if handshake(&mut conn).is_err()
                || !conn.try_send(format!(
                    "POST {path}?create=true HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: 0\r\n\r\n"
                ))
            {
                return 0;
            }
            // TLS 1.3 refuses a certificate after the client has finished.
            conn.try_response_to("POST").map_or(0, |response| response.status)
        };
        assert_eq!(ask(pki.client(Some("alice")), "/alice/", ""), 200);
        assert_eq!(ask(pki.client(Some("alice")), "/bob/", ""), 403);
        assert_eq!(
            ask(pki.client(Some("alice")), "/bob/", &login("bob", "x")),
            403,
            "a header changes nothing"
        );
        assert_eq!(ask(pki.client(None), "/alice/", ""), 0);
        let mut foreign = other.client(Some("alice"));
        foreign.dangerous().set_certificate_verifier(Arc::new(crate::pki::Anything));
        assert_eq!(ask(foreign, "/alice/", ""), 0);
        server.wait_for_log("user=alice");
        drop(server);
        // Revoked, and certificates beside passwords.
        let crl = pki.revoke("bob");
        let file = pki.text("users");
        std::fs::write(&file, format!("carol:{}\n", bcrypt::hash("pw", 4).unwrap())).unwrap();
        flags.extend(["--tls-client-crl", &crl, "--tls-client-optional", "--htpasswd-file", &file]);
        let server = Server::start(driver, &flags);
        let ask = |config: ClientConfig, path: &str, headers: &str| {
            let mut conn = connect(&server.addresses[0], config, "localhost");
            if handshake(&mut conn).is_err() {
                return 0;
            }
            conn.send(format!(
                "POST {path}?create=true HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: 0\r\n\r\n"
            ));
            conn.try_response_to("POST").map_or(0, |response| response.status)
        };
        assert_eq!(ask(pki.client(Some("alice")), "/alice/", ""), 200);
        assert_eq!(ask(pki.client(None), "/carol/", &login("carol", "pw")), 200);
        assert_eq!(ask(pki.client(None), "/carol/", ""), 401);
        assert_eq!(ask(pki.client(Some("bob")), "/bob/", ""), 0);
        // A connection that is there does not outlive what it was let in by.
        let mut conn = connect(&server.addresses[0], pki.client(Some("alice")), "localhost");
        handshake(&mut conn).unwrap();
        assert_eq!(conn.request("GET", "/alice/keys/", "", b"").status, 200);
        pki.revoke("alice");
        server.signal("-HUP");
        server.wait_for_log("reloaded the settings");
        conn.try_send("GET /alice/keys/ HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(conn.try_response_to("GET").is_none());
        assert_eq!(ask(pki.client(Some("alice")), "/alice/", ""), 0);
    });
}

#[test]
fn records_that_are_cut_and_mixed_harm_nobody() {
    on_both(|driver| {
        let (pki, server) = serve(driver, &[]);
        // The first byte of a handshake message, then an alert in the middle of it; junk; a message without an end.
        let mixed = [22, 3, 1, 0, 1, 1, 21, 3, 3, 0, 2, 1, 0];
        let endless = [&[22, 3, 1, 0, 4, 1, 0, 255, 255][..], &[22, 3, 1, 0, 1, 7].repeat(70_000)].concat();
        for bytes in [&mixed[..], &[22, 3, 1, 0, 0], &[23, 3, 3, 0, 1, 0], &noise(5000, 1), &endless] {
            let mut conn = server.connect();
            conn.try_send(bytes);
            conn.stream.shutdown(std::net::Shutdown::Write).ok();
            let mut answer = Vec::new();
            use std::io::Read as _;
            conn.stream.read_to_end(&mut answer).ok();
            assert!(answer.len() < 100);
        }
        let mut conn = connect(&server.addresses[0], pki.client(None), "localhost");
        assert_eq!(conn.request("GET", "/r1/config", "", b"").status, 404);
        // Half a record behind a request, which is then answered.
        conn.send("GET /r1/config HTTP/1.1\r\nHost: h\r\n\r\n");
        conn.stream.sock.write_all(&[23, 3, 3, 1, 0, 9, 9]).unwrap();
        assert_eq!(conn.response().status, 404);
        assert!(!server.text().contains("panic"), "{}", server.text());
    });
}

#[test]
fn a_slow_handshake_ends() {
    on_both(|driver| {
        let (_pki, server) = serve(driver, &[&["--handshake-timeout", "300ms"][..], NO_SCRUB].concat());
        let round = || {
            let mut silent = server.connect();
            let mut half = server.connect();
            half.send([22, 3, 1, 2, 0, 1, 0]);
            assert!(silent.is_ended());
            assert!(half.is_ended());
        };
        // What a worker opens once is open after the first.
        round();
        std::thread::sleep(std::time::Duration::from_millis(300));
        let before = server.descriptors();
        round();
        wait_for("the descriptors", || server.descriptors() <= before);
    });
}

#[test]
fn bad_certificates_are_named_at_start() {
    let pki = Pki::new();
    let (cert, key) = pki.server("server", &["localhost"]);
    let (_, other_key) = pki.server("other", &["localhost"]);
    let dir = tempfile::tempdir().unwrap();
    for (cert, key, wanted) in [
        (cert.as_str(), other_key.as_str(), "is not the key of the certificate"),
        (cert.as_str(), cert.as_str(), "there is no private key in it"),
        (key.as_str(), key.as_str(), "there is no certificate in it"),
        ("/no/such.pem", key.as_str(), "/no/such.pem: No such file"),
    ] {
        let flags = ["--tls", "--tls-cert", cert, "--tls-key", key];
        let output = Server::command(dir.path(), "epoll", &flags).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(3) && said.contains(wanted), "{said}");
    }
}

/// Two scanners that look for weaknesses of TLS.
#[test]
fn scanners_find_nothing() {
    let pki = Pki::new();
    let (cert, key) = pki.issue("server", |params| {
        params.subject_alt_names = vec![
            rcgen::SanType::DnsName("localhost".try_into().unwrap()),
            rcgen::SanType::IpAddress("127.0.0.1".parse().unwrap()),
        ];
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&noise(16, 9)));
        (params.not_before, params.not_after) = (now_and(0), now_and(90));
        params.crl_distribution_points =
            vec![rcgen::CrlDistributionPoint { uris: vec!["http://127.0.0.1/crl".into()] }];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let server =
        Server::start("epoll", &["--tls", "--tls-cert", &cert, "--tls-key", &key, "--hsts", "1year"]);
    let address = &server.addresses[0];
    match std::process::Command::new("sslscan").args(["--no-colour", address]).output() {
        Err(_) => skip("sslscan is not installed"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            for line in
                ["SSLv2     disabled", "SSLv3     disabled", "TLSv1.0   disabled", "TLSv1.1   disabled"]
            {
                assert!(said.contains(line), "{said}");
            }
            let accepted =
                said.lines().filter(|line| line.starts_with("Accepted") || line.starts_with("Preferred"));
            assert!(accepted.clone().count() >= 4, "{said}");
            for line in accepted {
                assert!(line.contains("GCM") || line.contains("POLY1305"), "{line}");
            }
            assert!(!said.contains("vulnerable to heartbleed") || said.contains("not vulnerable"), "{said}");
        }
    }
    let report = pki.path("testssl.json");
    let scan = std::process::Command::new("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "off", "--add-ca", &pki.text("ca.pem"), "--jsonfile"])
        .arg(&report)
        .arg(format!("https://{address}"))
        .output();
    if scan.is_err() {
        return skip("testssl.sh is not installed");
    }
    let findings: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let findings = findings.as_array().unwrap();
    assert!(findings.len() > 80, "{findings:?}");
    let mut undone = 0;
    for finding in findings {
        let severity = finding["severity"].as_str().unwrap();
        // What is a matter of DNS.
        let ours = finding["id"] != "DNS_CAArecord";
        if severity == "WARN" {
            // A check that the scanner could not do.
            eprintln!("testssl: {finding}");
            undone += 1;
            continue;
        }
        assert!(!ours || ["OK", "INFO", "DEBUG"].contains(&severity), "{finding}");
    }
    assert!(undone <= 3, "{undone} checks were not done");
}

fn now_and(days: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::now_utc() + time::Duration::days(days)
}

/// A list of revoked certificates that has expired holds on, and is told: in the log, in metrics, and to who asks for readiness.
#[test]
fn an_expired_list_of_revocations_is_told() {
    on_both(|driver| {
        let pki = Pki::new();
        let (cert, key) = pki.server("server", &["localhost"]);
        pki.issue("bob", |_| ());
        let ca = pki.text("ca.pem");
        let crl = pki.revoke_until("bob", 2025);
        let plain = ["--admin-listen", "127.0.0.1:0", "--tls", "--tls-cert", &cert, "--tls-key", &key];
        let flags = [&plain[..], &["--tls-client-ca", &ca, "--tls-client-crl", &crl]].concat();
        for (fresh, status) in [(&[][..], 200), (&["--tls-client-crl-fresh"], 503)] {
            let server = Server::start(driver, &[&flags[..], fresh].concat());
            server.wait_for_log("crl.pem: the list of revoked client certificates has expired");
            wait_for("the admin listener", || server.text().contains("start admin server on"));
            let text = server.text();
            let admin = text.lines().find_map(|line| line.strip_prefix("start admin server on ")).unwrap();
            let ask = |path: &str| {
                let mut conn = Conn::new(TcpStream::connect(admin).unwrap());
                conn.request("GET", path, "", b"")
            };
            let ready = ask("/readyz");
            assert_eq!(ready.status, status);
            assert!(ready.text().contains("the list of revoked client certificates has expired"));
            let line = format!("packhouse_crl_end_seconds{{file=\"{crl}\"}} 1735689600");
            assert!(ask("/metrics").text().contains(&line), "{line}");
            let mut conn = connect(&server.addresses[0], pki.client(Some("bob")), "localhost");
            assert!(handshake(&mut conn).is_err() || conn.try_response_to("GET").is_none(), "bob stays out");
            // The next issue is read without a restart.
            pki.revoke("bob");
            wait_for("the new list", || !ask("/readyz").text().contains("revoked"));
            pki.revoke_until("bob", 2025);
        }
    });
}
