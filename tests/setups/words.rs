//! What operators read: errors that say what is wrong and what to do, by cause, and the names that they come with.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::common::{Server, is_root, on_both, program, skip};
use crate::pki::Pki;

/// Exit code and output of the program.
pub fn run(args: &[&str]) -> (Option<i32>, String) {
    run_with(args, &[], "")
}

/// The same with variables and standard input.
pub fn run_with(args: &[&str], env: &[(&str, &str)], input: &str) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    command.args(args).envs(env.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn serve(args: &[&str]) -> (Option<i32>, String) {
    run(&[&["serve", "--no-auth"], args].concat())
}

#[test]
fn each_reason_not_to_listen_has_its_own_advice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let long = format!("unix:/tmp/{}", "x".repeat(120));
    for (listen, wanted) in [
        (taken.as_str(), "ss -ltnp"),
        ("192.0.2.1:8000", "It is no address of this machine"),
        ("no-such-host.invalid:8000", "Is the name of the host right"),
        ("unix:/no/such/folder/s", "RuntimeDirectory="),
        (long.as_str(), "at most 107 bytes"),
        ("systemd", ".socket unit"),
    ] {
        let (code, said) = serve(&["--path", path, "--listen", listen]);
        assert!(code == Some(3) && said.contains(wanted), "{listen}: {code:?} {said}");
    }
    for (listen, wanted) in [
        ("127.0.0.1:70000", "the port must be a number from 0 to 65535"),
        ("127.0.0.1:http", "the port must be a number from 0 to 65535"),
        ("http://127.0.0.1:8000", "without http://"),
        ("https://127.0.0.1:8000", "--tls"),
        ("8000", "HOST:PORT"),
        ("::1:8000", "brackets"),
    ] {
        let (code, said) = serve(&["--path", path, "--listen", listen]);
        assert!(code == Some(2) && said.contains(wanted), "{listen}: {code:?} {said}");
    }
    // Below 1024 as an ordinary user.
    if !is_root() {
        return skip("to be another user needs root");
    }
    let copy = dir.path().join("packhouse");
    std::fs::copy(program(), &copy).unwrap();
    for path in [dir.path(), &copy] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    }
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--bounding-set",
            "-all",
            "--inh-caps",
            "-all",
        ])
        .arg(&copy)
        .args(["serve", "--no-auth", "--listen", "127.0.0.1:443", "--path"])
        .arg(dir.path().join("data"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let allowed = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if allowed.trim() != "1024" {
        return skip("this machine lets everybody use low ports");
    }
    assert!(
        output.status.code() == Some(3)
            && said.contains("Ports below 1024")
            && said.contains("CAP_NET_BIND_SERVICE"),
        "{said}"
    );
}

#[test]
fn mistakes_in_the_settings_file_name_what_is_wrong_and_what_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.toml");
    let said = |text: &str| {
        std::fs::write(&file, format!("path = \"/tmp\"\n{text}\n")).unwrap();
        let (code, said) = run(&["config", "check", "--config", file.to_str().unwrap()]);
        assert_eq!(code, Some(78), "{text}: {said}");
        said
    };
    for (text, wanted) in [
        (
            "[users.a]\nrights = { \"/**\" = \"apend\" }",
            "`apend`: write none, list, read, append or full: did you mean `append`?",
        ),
        ("[users.a]\nrights = { \"/**\" = 7 }", "write text in quotes"),
        ("[users.a]\nkeys = \"shut\"", "`shut`: write \"open\" or \"closed\""),
        ("[users.a]\nmax-size = \"-5\"", "`-5`: a size can't be negative"),
        ("[users.a]\nmax-size = -5", "`-5`: a size can't be negative"),
        ("[user.bob]\nkeys = \"open\"", "there is no table `user`: did you mean [users.bob]?"),
        ("[repo.\"/a/\"]\nmax-size = 5", "did you mean [repos."),
        ("[sandbox]\nx = 1", "there is no table `sandbox`"),
        ("min-free = \"-1GiB\"", "a size can't be negative"),
        ("workers = \"many\"", "`many`: write a whole number"),
        ("io-driver = \"magic\"", "`magic`: write auto, uring or epoll"),
    ] {
        let said = said(text);
        assert!(said.contains(wanted), "{text}: {said}");
        assert_eq!(said.matches("error: ").count(), 1, "{text}: {said}");
    }
    // A file that is not there is the one mistake.
    let (code, said) = run(&["serve", "--config", "/no/such/file.toml"]);
    assert!(
        code == Some(78) && said.contains("/no/such/file.toml: the settings file can't be read"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn keys_and_certificates_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let (cert, key) = pki.server("server", &["localhost"]);
    let start = |cert: &str, key: &str| {
        serve(&[
            "--path",
            dir.path().to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--tls",
            "--tls-cert",
            cert,
            "--tls-key",
            key,
        ])
    };
    let (code, said) = start("/no/such/cert", &key);
    assert!(code == Some(3) && said.contains("/no/such/cert") && said.contains("Give --tls-cert"), "{said}");
    for (name, kind) in [
        ("rsa", &["-newkey", "rsa:8192"][..]),
        ("p521", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"]),
    ] {
        let (cert, key) = (dir.path().join(format!("{name}.cert")), dir.path().join(format!("{name}.key")));
        let done = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "10", "-subj", "/CN=x", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .args(kind)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        let (code, said) = start(cert.to_str().unwrap(), key.to_str().unwrap());
        assert!(
            code == Some(3) && said.contains("RSA of 2048 to 4096 bits, ECDSA P-256 and P-384, and Ed25519"),
            "{name}: {said}"
        );
    }
    // A chain of which the second part is no certificate.
    let text = std::fs::read_to_string(&cert).unwrap();
    let glued = dir.path().join("glued.pem");
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&glued, format!("{text}{junk}")).unwrap();
    let (code, said) = start(glued.to_str().unwrap(), &key);
    assert!(code == Some(3) && said.contains("certificate 2 in it is malformed"), "{said}");
    // What other tools write.
    let der = dir.path().join("cert.der");
    std::fs::write(&der, [&[0x30, 0x82, 1, 0][..], &[0; 256]].concat()).unwrap();
    for (cert, key) in [(der.to_str().unwrap(), key.as_str()), (&cert, der.to_str().unwrap())] {
        let (code, said) = start(cert, key);
        assert!(code == Some(3) && said.contains("not PEM, but DER"), "{said}");
    }
    for (content, wanted) in [
        (text.replace("-----END CERTIFICATE-----", ""), "the end of a section is missing"),
        (text.replace("\nMI", "\n!!"), "is not base64"),
    ] {
        std::fs::write(&glued, content).unwrap();
        let (code, said) = start(glued.to_str().unwrap(), &key);
        assert!(code == Some(3) && said.contains(wanted) && !said.contains("[45, "), "{said}");
    }
    let (code, said) = start(&cert, &cert);
    assert!(code == Some(3) && said.contains("there is no private key in it: it must be PEM"), "{said}");
    // A byte order mark is no part of a certificate.
    std::fs::write(&glued, format!("\u{feff}{text}")).unwrap();
    let site = dir.path().to_str().unwrap();
    let glued_text = glued.to_str().unwrap();
    let args = [
        "config",
        "check",
        "--no-auth",
        "--path",
        site,
        "--tls",
        "--tls-cert",
        glued_text,
        "--tls-key",
        &key,
    ];
    assert_eq!(run(&args).0, Some(0));
    // Two certificates glued together: a reader finds one.
    for (content, begun) in [
        (format!("{}{text}", text.trim_end()), 2),
        (format!("{text}{}", text.replace("-----END CERTIFICATE-----", "")), 2),
        (format!("{text}# {text}"), 2),
    ] {
        std::fs::write(&glued, content).unwrap();
        let (code, said) = start(glued.to_str().unwrap(), &key);
        assert!(
            code == Some(3)
                && (said.contains(&format!("{begun} sections begin")) || said.contains("PEM is malformed")),
            "{said}"
        );
    }
}

#[test]
fn called_by_rest_servers_names_it_answers_as_rest_server() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["rest-server", "restic-rest-server"] {
        let link = dir.path().join(name);
        std::os::unix::fs::symlink(program(), &link).unwrap();
        for flag in ["--version", "-v"] {
            let output = Command::new(&link).arg(flag).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.starts_with(&format!("{name} version ")), "{said}");
        }
        let data = dir.path().join(format!("{name}-data"));
        let flags = [
            "--no-auth",
            "--log=",
            "--private-repos",
            "--prometheus-no-auth",
            "--max-size",
            "-1",
            "--listen",
            "127.0.0.1:0",
            "--path",
        ];
        let mut command = Command::new(&link);
        command.args(flags).arg(&data);
        let server = Server::launch(command, &data);
        server.create("/r1/");
        let text = server.text();
        assert!(text.contains("private-repos has no effect") && text.contains("is no limit"), "{text}");
        drop(server);
        for size in ["0x100000", "1_000_000"] {
            let mut command = Command::new(&link);
            command.args(["--no-auth", "--max-size", size, "--listen", "127.0.0.1:0", "--path"]).arg(&data);
            Server::launch(command, &data);
        }
        let output = Command::new(&link)
            .args(["--listen", "http://127.0.0.1:1", "--path"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(!output.status.success());
    }
}

/// What a client and a log are told when the two ends do not speak the same.
#[test]
fn http_to_a_tls_port_and_tls_to_a_plain_one_are_told() {
    on_both(|driver| {
        let pki = Pki::new();
        let (cert, key) = pki.server("server", &["localhost"]);
        let flags = [
            "--tls",
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--prometheus",
            "--prometheus-no-auth",
            "--admin-listen",
            "127.0.0.1:0",
        ];
        let server = Server::start(driver, &flags);
        for request in [
            "GET /r1/config HTTP/1.1\r\nHost: h\r\n\r\n",
            "POST /r1/?create=true HTTP/1.1\r\n\r\n",
            "DELETE /x HTTP/1.1\r\n\r\n",
        ] {
            let mut conn = server.connect();
            conn.send(request);
            let answer = conn.response();
            assert_eq!(answer.status, 400);
            assert_eq!(answer.text(), "Client sent an HTTP request to an HTTPS server.\n");
        }
        server.wait_for_log("no TLS: reason=plain_http");
        // A probe of the port is nothing to speak of.
        drop(server.connect());
        let openssl = |args: &[&str]| {
            let output = Command::new("openssl")
                .args(["s_client", "-connect", &server.addresses[0]])
                .args(args)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        };
        openssl(&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
        server.wait_for_log("no TLS: reason=version");
        openssl(&["-verify_return_error", "-CAfile", "/etc/ssl/certs/ca-certificates.crt"]);
        server.wait_for_log("no TLS: reason=distrusted_by_client");
        // A client of HTTP/1.0 alone is served.
        assert!(openssl(&["-alpn", "http/1.0"]).contains("ALPN protocol: http/1.0"));
        let admin = server
            .text()
            .lines()
            .find_map(|line| line.strip_prefix("start admin server on ").map(ToOwned::to_owned))
            .unwrap();
        let mut conn = crate::common::Conn::new(std::net::TcpStream::connect(admin).unwrap());
        let metrics = conn.request("GET", "/metrics", "", b"").text();
        for line in [
            "packhouse_handshake_failures_total{reason=\"plain_http\"} 3",
            "packhouse_handshake_failures_total{reason=\"version\"} 1",
            "packhouse_handshake_failures_total{reason=\"distrusted_by_client\"} 1",
            "packhouse_handshake_failures_total{reason=\"connection\"} 0",
        ] {
            assert!(metrics.lines().any(|other| other == line), "{line} is not in\n{metrics}");
        }
        // The other way round, and HTTP/2 without a word before: the client's mistakes, and no ERROR of ours.
        let plain = Server::start(driver, &[]);
        let mut conn = plain.connect();
        conn.send([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
        let answer = conn.response();
        assert!(answer.status == 400 && answer.text().contains("the client speaks TLS"), "{}", answer.text());
        let mut conn = plain.connect();
        conn.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert_eq!(conn.response().status, 505);
        plain.wait_for_log("status=505");
        assert!(!plain.text().contains("ERROR"), "{}", plain.text());
    });
}

/// A client certificate that is missing, or of an authority that nobody knows.
#[test]
fn a_client_without_a_certificate_is_counted() {
    let pki = Pki::new();
    let (cert, key) = pki.server("server", &["localhost"]);
    let ca = pki.text("ca.pem");
    let server =
        Server::start("epoll", &["--tls", "--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca]);
    let connect = |args: &[&str]| {
        Command::new("openssl")
            .args(["s_client", "-connect", &server.addresses[0]])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
    };
    connect(&[]);
    server.wait_for_log("no TLS: reason=no_certificate");
    let stranger = Pki::new();
    let (cert, key) = stranger.server("stranger", &["stranger"]);
    connect(&["-cert", &cert, "-key", &key]);
    server.wait_for_log("no TLS: reason=unknown_authority");
}

#[test]
fn damage_that_is_not_renamed_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let folder = data.join("r1/data/00");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("0".repeat(64)), "not what its name says").unwrap();
    std::fs::create_dir(data.join("r1/keys")).unwrap();
    std::fs::write(data.join("r1/keys").join("1".repeat(64)), "nor this").unwrap();
    let path = data.to_str().unwrap();
    let (code, said) = run(&["repo", "verify", "--path", path, "--quarantine"]);
    assert!(
        code == Some(4)
            && said.contains("not renamed: it was written less than 1h ago")
            && said.contains("--older-than"),
        "{said}"
    );
    assert!(said.contains("keys and config stay where they are"), "{said}");
    let (code, said) =
        run(&["repo", "check", "--path", path, "--quarantine", "--older-than", "0s", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, Some(4));
    let found = said["found"].as_array().unwrap();
    assert!(
        found.iter().any(|one| one["quarantined"].is_string())
            && found.iter().any(|one| one["not_renamed"].is_string()),
        "{said}"
    );
}

#[test]
fn help_is_short_where_it_is_asked_for_shortly() {
    let (_, short) = run(&["serve", "-h"]);
    let (_, long) = run(&["serve", "--help"]);
    assert!(
        short.lines().count() < 70 && long.lines().count() > 150,
        "{} {}",
        short.lines().count(),
        long.lines().count()
    );
    for word in ["quota", "throttle", "quarantine", "reload", "scrub", "permission"] {
        assert!(long.to_lowercase().contains(word), "{word}");
    }
    // It fits a terminal of 80 columns.
    let output = Command::new(program()).args(["serve", "-h"]).env("COLUMNS", "80").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.lines()
            .filter(|line| line.trim_start().starts_with("--"))
            .all(|line| line.chars().count() <= 100),
        "{text}"
    );
}
