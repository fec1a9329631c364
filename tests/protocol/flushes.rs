//! Case 16: what is flushed, and in which order, seen from outside.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use crate::common::{NO_SCRUB, Server, id_of, noise, on_both, program, skip, wait_for};

const CALLS: &str = "trace=mkdir,mkdirat,write,pwrite64,fdatasync,fsync,linkat,unlinkat,rename,renameat2";

/// What was done to files below `root`, in the order of its ends: calls and paths, such as `fsync data/r`. A file that has no
/// name yet is that of its folder.
fn events(trace: &Path, root: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(trace).unwrap_or_default();
    let root = root.to_str().unwrap();
    let mut begun = HashMap::new();
    let mut events = Vec::new();
    for line in text.lines() {
        // It may still be being written.
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let call = if rest.starts_with("<... ") { begun.remove(thread) } else { event(rest, root) };
        match call {
            Some(_) if rest.contains(" = -1 ") => {}
            Some(call) if rest.ends_with("<unfinished ...>") => drop(begun.insert(thread, call)),
            call => events.extend(call),
        }
    }
    events
}

fn event(line: &str, root: &str) -> Option<String> {
    let (call, rest) = line.split_once('(')?;
    let start = rest.find(root)? + root.len();
    let path = rest[start..].split(['>', '"']).next()?.trim_matches('/');
    let path = path.split_once("/#").map_or(path, |(folder, _)| folder);
    Some(format!("{call} {path}"))
}

/// Asserts that all of it happened one after the other, perhaps with others between; returns what came after.
fn in_order<'e>(mut events: &'e [String], wanted: &[&str]) -> &'e [String] {
    let all = events;
    for wanted in wanted {
        let found = events.iter().position(|event| event == wanted);
        events = &events[found.unwrap_or_else(|| panic!("no {wanted} in its turn: {all:#?}")) + 1..];
    }
    events
}

#[test]
fn case_16_the_order_of_flushes() {
    if Command::new("strace").arg("--version").output().is_err() {
        return skip("strace is not installed");
    }
    on_both(flushes_are_in_order);
}

fn flushes_are_in_order(driver: &str) {
    let dir = tempfile::tempdir().unwrap();
    // As the tracer names it.
    let root = &dir.path().canonicalize().unwrap();
    let (data, trace) = (root.join("x/y"), root.join("trace"));
    std::fs::create_dir(root.join("x")).unwrap();
    let flags = [NO_SCRUB, &["--workers", "1", "--max-size", "1000000000"]].concat();
    // The tracer is a grandchild: the server has the number of its own that it always has.
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-y", "-qq", "-s", "0", "-e", CALLS, "-o"]).arg(&trace).arg(program());
    command.args(Server::command(&data, driver, &flags).get_args());
    let mut server = Server::launch(command, &data);
    server.wait_for_log("the quotas are exact");
    server.create("/r/");
    let (small, large) = (b"small".to_vec(), noise(2_100_000, 1));
    let shards = [&small, &large].map(|body| format!("x/y/r/data/{}", &id_of(body)[..2]));
    server.store("/r/", "data", &small);
    server.store("/r/", "data", &large);
    let gone = server.store("/r/", "keys", b"gone");
    assert_eq!(server.status("DELETE", &gone, b""), 200);
    server.stop();
    let last = "fsync x/y/.packhouse";
    wait_for("the tracer", || events(&trace, root).iter().filter(|event| *event == last).count() >= 2);
    let events = events(&trace, root);

    let journal = [
        "write x/y/.packhouse/quota.new",
        "fsync x/y/.packhouse/quota.new",
        "rename x/y/.packhouse/quota.new",
        last,
    ];
    let rest = in_order(&events, &["mkdir x/y", "fsync x"]);
    let rest = in_order(rest, &["mkdir x/y/.packhouse", "fsync x/y"]);
    let rest = in_order(rest, &journal);
    let lease = ["write x/y/.packhouse/quota", "fdatasync x/y/.packhouse/quota"];
    let rest = in_order(rest, &lease);
    let rest = in_order(rest, &["mkdirat x/y", "mkdirat x/y/r", "fsync x/y/r"]);
    let rest = in_order(rest, &lease);
    // The shards are made when the first pack is to lie in one.
    let mut rest = in_order(rest, &["mkdirat x/y/r/data", "fsync x/y/r/data"]);
    for shard in &shards {
        for call in ["pwrite64", "fdatasync", "linkat", "fsync"] {
            rest = in_order(rest, &[&format!("{call} {shard}")]);
        }
    }
    let large = &shards[1];
    let written = events.iter().filter(|event| **event == format!("pwrite64 {large}")).count();
    // A ring's writes are no system calls, but for the last piece, which is no whole block.
    assert!(written >= if driver == "epoll" { 2 } else { 1 }, "in pieces");
    let last = |call: &str| events.iter().rposition(|event| *event == format!("{call} {large}"));
    assert!(last("fdatasync") > last("pwrite64"), "{events:#?}");
    let rest =
        in_order(rest, &["linkat x/y/r/keys", "fsync x/y/r/keys", "unlinkat x/y/r/keys", "fsync x/y/r/keys"]);
    in_order(rest, &journal);
}
