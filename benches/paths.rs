//! What a request passes through, without a network: `cargo bench`. The same work, counted in instructions: `perf/instructions`.
#![allow(clippy::pedantic, clippy::restriction, unreachable_pub, reason = "benches")]

use std::hint::black_box;
use std::sync::Arc;

use base64::Engine as _;
use criterion::{Criterion, Throughput};
use http::HeaderMap;
use packhouse::api::list::{Encoder, Form};
use packhouse::api::route::{Route, route};
use packhouse::auth::htpasswd::Htpasswd;
use packhouse::auth::{Options, Passwords};
use packhouse::hash::{Engine, Sha256};
use packhouse::http::head;
use packhouse::io::runtime::{Driver, block_on};
use packhouse::store::{Listed, layout};
use packhouse::types::BlobId;

const HEAD: &[u8] = b"GET /host/data/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 HTTP/1.1\r\nHost: backup.example.org:8000\r\nUser-Agent: restic/0.18.0 (linux/amd64)\r\nAccept: application/vnd.x.restic.rest.v2\r\nAuthorization: Basic cGVyZjpjb3JyZWN0IGhvcnNl\r\nRange: bytes=0-524287\r\nAccept-Encoding: identity\r\n\r\n";

/// A name and the work of one request.
type Path = (&'static str, Box<dyn FnMut()>);

fn paths() -> Vec<Path> {
    let parsed = head::parse(HEAD).unwrap();
    let target = parsed.target.clone();
    let Ok(Route::Object(handle)) = route(&target, 3) else { panic!("no object") };
    let entries: Vec<_> = (0..1000_u64)
        .map(|n| Listed { id: BlobId::from_digest(Sha256::of(&n.to_le_bytes())), size: n << 10 })
        .collect();
    let (passwords, headers) = logged_in();
    vec![
        ("parse a head", Box::new(|| drop(black_box(head::parse(black_box(HEAD)))))),
        ("route", Box::new(move || drop(black_box(route(black_box(&target), 3))))),
        ("path of an object", Box::new(move || drop(black_box(layout::object_path(black_box(&handle)))))),
        (
            "encode 1,000 entries of a list",
            Box::new(move || {
                drop(black_box(Encoder::new(Form::Sizes).page(black_box(&entries))));
            }),
        ),
        ("a login that is remembered", Box::new(move || now(&passwords, &headers))),
    ]
}

fn now(passwords: &Passwords, headers: &HeaderMap) {
    let mut login = std::pin::pin!(passwords.login(headers, None, &std::future::pending::<()>));
    let polled = login.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(matches!(black_box(polled), std::task::Poll::Ready(Ok(_))));
}

fn logged_in() -> (Passwords, HeaderMap) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    let sha = base64::engine::general_purpose::STANDARD
        .encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, b"correct horse"));
    std::fs::write(&file, format!("perf:{{SHA}}{sha}\n")).unwrap();
    let hour = std::time::Duration::from_secs(3600);
    let options = Options { remember: hour, remember_max: hour, throttle: false };
    let passwords = Passwords::new(Htpasswd::load(&file).unwrap(), 1, options, Arc::default()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Basic cGVyZjpjb3JyZWN0IGhvcnNl".parse().unwrap());
    block_on(Driver::Epoll, passwords.login(&headers, None, &std::future::pending::<()>)).unwrap().unwrap();
    (passwords, headers)
}

fn hashing(c: &mut Criterion) {
    const PIECE: usize = 128 * 1024;
    let pieces: Vec<_> = (0..32_u8).map(|n| vec![n; PIECE]).collect();
    let mut group = c.benchmark_group("SHA-256 of 128 KiB each");
    for (name, engine) in [("one by one", Engine::one_by_one()), ("fastest", Engine::fastest())] {
        for messages in [1, 2, 4, 8, 16, 32] {
            group.throughput(Throughput::Bytes((messages * PIECE) as u64));
            group.bench_function(format!("{messages} {name}"), |b| {
                let mut hashes = vec![Sha256::new(); messages];
                b.iter(|| engine.update(hashes.iter_mut().zip(pieces.iter().map(Vec::as_slice))));
            });
        }
    }
    group.finish();
}

fn main() {
    // For callgrind: one kind of work alone, so many times.
    if let Ok(wanted) = std::env::var("PACKHOUSE_COUNT") {
        let (name, times) = wanted.rsplit_once(':').unwrap();
        let mut all = paths();
        let (_, work) = all.iter_mut().find(|(known, _)| *known == name).expect("a name that is there");
        (0..times.parse().unwrap()).for_each(|_: u32| work());
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (name, mut work) in paths() {
        criterion.bench_function(name, |b| b.iter(&mut work));
    }
    hashing(&mut criterion);
    criterion.final_summary();
}
