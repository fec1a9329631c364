//! The same requests to rest-server and to packhouse, one after the other, on equal stores: what differs is declared in the
//! README's table "Coming from rest-server", and nothing else differs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::client::programs;
use crate::common::{Conn, Response, Server, V2, free_port, id_of, login, noise, on_both, skip, wait_for};

/// One request; `head` is all that comes before the empty line but the first line and `Host`.
#[derive(Clone, Debug)]
struct Ask {
    line: String,
    head: String,
    body: Vec<u8>,
}

fn ask(method: &str, path: &str, head: &str, body: &[u8]) -> Ask {
    let line = format!("{method} {path} HTTP/1.1");
    let length =
        if body.is_empty() && method != "POST" || head.contains("ransfer-") || head.contains("ontent-Length")
        {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
    Ask { line, head: format!("Host: h\r\n{length}{head}"), body: body.into() }
}

/// What one server makes of it: the parts of the answer that a client acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    status: u16,
    headers: BTreeMap<&'static str, String>,
    body: Vec<u8>,
}

const HEADERS: [&str; 6] =
    ["content-type", "content-length", "content-range", "accept-ranges", "allow", "www-authenticate"];

fn tell(server: &Server, ask: &Ask) -> Option<Told> {
    let mut conn = Conn::new(std::net::TcpStream::connect(&server.addresses[0]).unwrap());
    conn.try_send(
        [format!("{}\r\n{}Connection: close\r\n\r\n", ask.line, ask.head).as_bytes(), &ask.body].concat(),
    );
    let method = ask.line.split(' ').next().unwrap();
    let Response { status, headers, body } = conn.try_response_to(method)?;
    let is_list = headers.get("content-type").is_some_and(|kind| kind.contains("restic.rest"));
    let headers = HEADERS.into_iter().filter_map(|name| Some((name, headers.get(name)?.clone())));
    // How long a refusal's text is says nothing, and a list may be streamed.
    let headers = headers.filter(|(name, _)| status < 300 && !is_list || *name != "content-length");
    let headers =
        headers.filter(|(name, _)| status < 300 || !matches!(*name, "content-type" | "accept-ranges"));
    let body = match (is_list, status) {
        // The order of a list is no matter.
        (true, _) => {
            let text = String::from_utf8(body).unwrap();
            let mut entries: Vec<_> = text
                .split("},")
                .flat_map(|part| part.split("\",\""))
                .map(|e| e.trim_matches(['[', ']', '{', '}', '"', '\n']))
                .collect();
            entries.sort_unstable();
            entries.join("\n").into_bytes()
        }
        (false, 200..300) => body,
        // What a refusal says is for people.
        _ => Vec::new(),
    };
    Some(Told { status, headers: headers.collect(), body })
}

/// The row of the README's table that declares each difference between two answers, or none for one that is not declared.
fn declared(ask: &Ask, theirs: Option<&Told>, ours: Option<&Told>) -> Vec<Option<&'static str>> {
    let (Some(theirs), Some(ours)) = (theirs, ours) else { return vec![Some("ambiguous requests")] };
    if theirs.status != ours.status {
        return vec![declared_status(ask, theirs.status, ours.status)];
    }
    let names = HEADERS.into_iter().filter(|name| theirs.headers.get(name) != ours.headers.get(name));
    let mut all: Vec<_> = names
        .map(|name| match name {
            "content-type" | "accept-ranges"
                if ours
                    .headers
                    .get("content-type")
                    .is_some_and(|kind| kind == "application/octet-stream") =>
            {
                Some("type of an object")
            }
            "www-authenticate" if ours.status == 401 => Some("`WWW-Authenticate`"),
            "content-range" if ours.status == 416 => Some("several ranges, malformed ranges"),
            _ => None,
        })
        .collect();
    if theirs.body != ours.body {
        all.push(None);
    }
    all
}

fn declared_status(ask: &Ask, theirs: u16, ours: u16) -> Option<&'static str> {
    let mut words = ask.line.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let has = |header: &str| ask.head.contains(header);
    let is_clean =
        !["//", "/./", "/../", "%", "#", ".hidden", ".config"].iter().any(|part| path.contains(part));
    Some(match (theirs, ours) {
        (403, 200) if method == "POST" => "same object stored again, same bytes",
        // The second is what comes after the first.
        (500 | 200, 404) if method == "POST" => "`POST /new/config`",
        (401, 400 | 403 | 405) if has("Authorization: Basic") => "another user's repository",
        (200, 304 | 412) | (206, 304 | 412) if has("If-") => "preconditions",
        (304, 200) if has("If-Modified-Since") => "preconditions",
        (206 | 416, 200 | 206 | 416) if has("Range: ") => "several ranges, malformed ranges",
        (200, 400 | 404) if path.starts_with("/q9/") => "percent-encoded query",
        _ if !is_clean || path == "*" => "unclean paths",
        _ => return None,
    })
}

/// Asks both, and collects what differs and is not declared.
struct Pair<'s> {
    theirs: &'s Server,
    ours: &'s Server,
    asked: usize,
    undeclared: Vec<String>,
    seen: BTreeSet<&'static str>,
}

impl Pair<'_> {
    fn ask(&mut self, request: Ask) {
        self.asked += 1;
        let (theirs, ours) = (tell(self.theirs, &request), tell(self.ours, &request));
        if theirs == ours {
            return;
        }
        let rows = declared(&request, theirs.as_ref(), ours.as_ref());
        self.seen.extend(rows.iter().flatten());
        if rows.contains(&None) {
            {
                let shown = |told: &Option<Told>| {
                    told.as_ref().map_or("no answer".into(), |told| {
                        format!(
                            "{} {:?} {}",
                            told.status,
                            told.headers,
                            String::from_utf8_lossy(&told.body[..told.body.len().min(60)])
                        )
                    })
                };
                let head = request.head.replace("\r\n", "; ");
                self.undeclared.push(format!(
                    "{} [{head}]\n    theirs {}\n    ours   {}",
                    request.line,
                    shown(&theirs),
                    shown(&ours)
                ));
            }
        }
    }

    fn all(&mut self, requests: impl IntoIterator<Item = Ask>) {
        requests.into_iter().for_each(|request| self.ask(request));
    }

    fn end(self) {
        assert!(
            self.undeclared.is_empty(),
            "{} of {} requests differ and are not declared:\n{}",
            self.undeclared.len(),
            self.asked,
            self.undeclared.join("\n")
        );
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
        for row in &self.seen {
            assert!(readme.contains(row), "README.md does not declare: {row}");
        }
        eprintln!("{} requests, differences of {} declared kinds", self.asked, self.seen.len());
    }
}

/// A real rest-server on a folder of its own.
fn rest_server(data: &Path, flags: &[&str]) -> Option<Server> {
    let Some(program) = programs("TEST_REST_SERVER", "rest-server").into_iter().next() else {
        skip("no rest-server was found");
        return None;
    };
    let address = free_port();
    let child = Command::new(program)
        .args(["--listen", &address, "--path"])
        .arg(data)
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("rest-server", || std::net::TcpStream::connect(&address).is_ok());
    Some(Server::of(child, address, data))
}

fn with_pair(driver: &'static str, flags: &[&str], test: impl Fn(&mut Pair<'_>)) {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("theirs"), dir.path().join("ours"));
    std::fs::create_dir(&a).unwrap();
    let theirs_flags: Vec<&str> =
        if flags.contains(&"--htpasswd-file") { flags.to_vec() } else { [&["--no-auth"], flags].concat() };
    let Some(theirs) = rest_server(&a, &theirs_flags) else { return };
    // It would delay what these tests ask for again and again.
    let ours = Server::on(&b, driver, &[flags, &["--login-throttle=false"]].concat());
    let mut pair =
        Pair { theirs: &theirs, ours: &ours, asked: 0, undeclared: Vec::new(), seen: BTreeSet::new() };
    test(&mut pair);
    pair.end();
}

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS", "PATCH"];

/// A repository with some of everything.
fn fill(pair: &mut Pair<'_>) {
    pair.ask(ask("POST", "/r1/?create=true", "", b""));
    pair.ask(ask("POST", "/r1/config", "", b"the config"));
    for (kind, count) in [("data", 5), ("keys", 2), ("index", 3), ("snapshots", 2), ("locks", 1)] {
        for n in 0..count {
            let body = noise(1000 + n as usize, n + kind.len() as u64);
            pair.ask(ask("POST", &format!("/r1/{kind}/{}", id_of(&body)), "", &body));
        }
    }
}

fn stored() -> Vec<u8> {
    noise(1000, 4)
}

fn object() -> String {
    format!("/r1/data/{}", id_of(&stored()))
}

/// A fixed part of what was compared once: over 300 requests.
#[test]
fn what_differs_from_rest_server_is_declared() {
    on_both(|driver| {
        with_pair(driver, &[], |pair| {
            fill(pair);
            let object = object();
            let unknown = format!("/r1/data/{}", "0".repeat(64));
            let upper = format!("/r1/data/{}", id_of(&stored()).to_uppercase());
            for method in METHODS {
                for path in [
                    "/",
                    "/r1/",
                    "/r1",
                    "/r2/",
                    "/r1/config",
                    "/r2/config",
                    "/config",
                    "/r1/data/",
                    "/r1/keys/",
                    "/r1/locks/",
                    "/r1/index/",
                    "/r1/snapshots/",
                    "/r1/data",
                    "/r2/data/",
                    "/data/",
                    "/r1/foo/",
                    "/r1/data/foo",
                    "/a/b/c/d/",
                    "/a/b/data/",
                    "/metrics",
                    "/r1/config/",
                    "/r1/keys/x/y",
                    "/r1/data/00/",
                    &unknown,
                    &upper,
                ] {
                    // Neither of them goes by what is not to be changed here.
                    if method == "DELETE" && (path.ends_with("config"))
                        || method == "POST" && path.ends_with("config")
                    {
                        continue;
                    }
                    pair.ask(ask(method, path, "", b""));
                }
            }
            for spec in [
                "bytes=0-4",
                "bytes=6-",
                "bytes=-4",
                "bytes=0-",
                "bytes=999-999",
                "bytes=1000-",
                "bytes=1000-2000",
                "bytes=5-99999",
                "bytes=-0",
                "bytes=-5000",
                "bytes=5-2",
                "bytes=0-99999999999999999999",
                "bytes=99999999999999999999-",
                "bytes=-99999999999999999999",
                "bytes=18446744073709551615-",
                "bytes=18446744073709551616-",
                "bytes=0-0",
                "bytes= 0-4",
                "bytes=0 - 4",
                "bytes=a-b",
                "bytes=",
                "bytes",
                "items=0-4",
                "bytes=0-1,4-5",
                "bytes=0-1,",
                "bytes=,0-1",
                "bytes=--1",
                "bytes=+0-4",
                "Bytes=0-4",
            ] {
                pair.ask(ask("GET", &object, &format!("Range: {spec}\r\n"), b""));
                pair.ask(ask("HEAD", &object, &format!("Range: {spec}\r\n"), b""));
            }
            for head in [
                "If-None-Match: *\r\n",
                "If-None-Match: \"x\"\r\n",
                "If-Match: *\r\n",
                "If-Match: \"x\"\r\n",
                "If-Range: \"x\"\r\nRange: bytes=0-4\r\n",
                "If-Range: Mon, 02 Jan 2006 15:04:05 GMT\r\nRange: bytes=0-4\r\n",
                "If-Modified-Since: Mon, 02 Jan 2006 15:04:05 GMT\r\n",
                "If-Unmodified-Since: Mon, 02 Jan 2090 15:04:05 GMT\r\n",
                "If-Modified-Since: x\r\n",
            ] {
                for path in [object.as_str(), "/r1/config", &unknown] {
                    pair.ask(ask("GET", path, head, b""));
                    pair.ask(ask("HEAD", path, head, b""));
                }
            }
            for accept in [
                "",
                V2,
                "Accept: application/vnd.x.restic.rest.v1\r\n",
                "Accept: */*\r\n",
                "Accept: application/vnd.x.restic.rest.v2, */*\r\n",
                "accept: APPLICATION/VND.X.RESTIC.REST.V2\r\n",
            ] {
                for kind in ["data", "keys", "index"] {
                    pair.ask(ask("GET", &format!("/r1/{kind}/"), accept, b""));
                }
            }
            for (n, query) in [
                "create=true",
                "create=false",
                "create=True",
                "create=1",
                "create",
                "",
                "x=1&create=true",
                "create=true&create=false",
                "create=false&create=true",
                "cre%61te=true",
                "create=tru%65",
                "create=true#x",
                "Create=true",
            ]
            .iter()
            .enumerate()
            {
                pair.ask(ask("POST", &format!("/q{n}/?{query}"), "", b""));
                pair.ask(ask("GET", &format!("/q{n}/keys/"), "", b""));
            }
            // Uploads.
            let id = |body: &[u8]| format!("/r1/keys/{}", id_of(body));
            pair.all([
                ask("POST", &id(b"new"), "", b"new"),
                ask("POST", &id(b"new"), "", b"new"),
                ask("POST", &id(b"new"), "", b"other"),
                ask("POST", &id(b"right"), "", b"wrong"),
                ask("GET", &id(b"right"), "", b""),
                ask("POST", &id(b""), "", b""),
                ask("GET", &id(b""), "", b""),
                ask("GET", &id(b""), "Range: bytes=0-\r\n", b""),
                ask("POST", &id(b"abc"), "Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
                ask("GET", &id(b"abc"), "", b""),
                ask("POST", &id(b"expect"), "Expect: 100-continue\r\n", b"expect"),
                ask("POST", &id(b"x"), "Expect: something\r\n", b"x"),
                ask("POST", "/r1/config", "", b"the config"),
                ask("POST", "/r1/config", "", b"another"),
                ask("POST", "/new/config", "", b"c"),
                ask("POST", "/made/?create=true", "", b""),
                ask("POST", "/made/?create=true", "", b""),
                ask("POST", "/made/config", "", b"c"),
                ask("GET", "/made/config", "", b""),
                ask("DELETE", "/made/config", "", b""),
                ask("DELETE", "/made/config", "", b""),
                ask("DELETE", &id(b"new"), "", b""),
                ask("DELETE", &id(b"new"), "", b""),
                ask("GET", &id(b"new"), "", b""),
            ]);
            // Codings, versions, hosts.
            for coding in ["gzip", "identity", "gzip, chunked", "chunked, chunked", "", "Chunked"] {
                pair.ask(ask(
                    "POST",
                    &id(b"coded"),
                    &format!("Transfer-Encoding: {coding}\r\n"),
                    b"5\r\ncoded\r\n0\r\n\r\n",
                ));
            }
            for version in [
                "HTTP/1.0",
                "HTTP/1.2",
                "HTTP/1.9",
                "HTTP/2.0",
                "HTTP/0.9",
                "HTTP/1.10",
                "HTTP/x",
                "http/1.1",
                "HTTP/1",
            ] {
                pair.ask(Ask {
                    line: format!("GET {object} {version}"),
                    head: "Host: h\r\n".into(),
                    body: Vec::new(),
                });
            }
            for head in [
                "",
                "Host: a b\r\n",
                "Host: h\r\nHost: h\r\n",
                "Host:\r\n",
                "Host: h\r\nX y: z\r\n",
                "Host: h\r\nContent-Length: x\r\n",
                "Host: h\r\nContent-Length: -1\r\n",
                "Host: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
            ] {
                pair.ask(Ask { line: format!("GET {object} HTTP/1.1"), head: head.into(), body: Vec::new() });
            }
            for path in [
                "//r1/config",
                "/r1//config",
                "/./r1/config",
                "/r1/../r1/config",
                "/r1/%63onfig",
                "/%72%31/config",
                "/r1%2fconfig",
                "/r1/con%zzfig",
                "/r1/config%00",
                "http://h/r1/config",
                "*",
                "r1/config",
                "/.hidden/config",
                "/r1/.config",
                "/R1/config",
                "/r1/config?x=y",
                "/r1/config#x",
            ] {
                for method in ["GET", "HEAD"] {
                    pair.ask(ask(method, path, "", b""));
                }
            }
            assert!(pair.asked >= 300, "{}", pair.asked);
        })
    });
}

#[test]
fn append_only_differs_in_nothing_undeclared() {
    on_both(|driver| {
        with_pair(driver, &["--append-only"], |pair| {
            fill(pair);
            let lock = noise(1000, 5);
            for path in [
                object(),
                "/r1/config".into(),
                format!("/r1/locks/{}", id_of(&lock)),
                format!("/r1/locks/{}", id_of(&lock)),
                "/r1/".into(),
                "/".into(),
            ] {
                pair.ask(ask("DELETE", &path, "", b""));
                pair.ask(ask("POST", &path, "", b"x"));
            }
        })
    });
}

#[test]
fn private_repositories_and_logins_differ_in_nothing_undeclared() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let users = crate::common::users(dir.path(), &["alice", "bob"]);
        with_pair(driver, &["--htpasswd-file", &users, "--private-repos", "--prometheus"], |pair| {
            let (alice, bob) = (login("alice", "pw"), login("bob", "pw"));
            for path in [
                "/alice/?create=true",
                "/alice/config",
                "/alice/sub/?create=true",
                "/",
                "/?create=true",
                "/bob/config",
                "/other/keys/",
                "/alicex/config",
                "/metrics",
                "/config",
            ] {
                for head in [
                    alice.as_str(),
                    &bob,
                    "",
                    "Authorization: Basic x\r\n",
                    "Authorization: Bearer x\r\n",
                    &login("alice", "wrong"),
                    &login("", "pw"),
                    &login("carol", "pw"),
                ] {
                    for method in ["GET", "POST", "HEAD"] {
                        pair.ask(ask(method, path, head, if method == "POST" { b"x" } else { b"" }));
                    }
                }
            }
        });
    });
}
