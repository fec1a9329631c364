//! The settings file: checked as a whole, told with origins, and read anew by a running server.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::{Server, id_of, is_root, on_both, program, users, wait_for};
use crate::quotas::stored;
use crate::rights::{as_user, configured};

fn run(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        Command::new(program()).args(args).envs(env.iter().copied()).output().unwrap();
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[test]
fn five_mistakes_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.toml");
    let mistakes = "path = \"/d\"\nlisten = [\":70000\"]\nappend_only = true\nmax-size = \"lots\"\n[users.alice]\nrights = { \"/alice/**\" = \"everything\" }\nmax-uploads = 0\n";
    std::fs::write(&file, mistakes).unwrap();
    let name = file.to_str().unwrap();
    for command in [&["config", "check", "--config", name][..], &["serve", "--config", name]] {
        let (code, said) = run(command, &[]);
        assert_eq!(code, Some(78), "{said}");
        for wanted in [
            ":2:10: `:70000`: the port must be a number from 0 to 65535",
            ":3:1: there is no setting `append_only`: did you mean `append-only`?",
            ":4:12: `lots`: write a number of bytes",
            ":6:26: `everything`: write none, list, read, append or full",
            ":7:15: `0`: write a whole number from 1 on",
        ] {
            assert!(said.contains(wanted), "{wanted} in\n{said}");
        }
        assert_eq!(said.matches("error: ").count(), 5, "{said}");
    }
    // The files that settings name are looked at, too.
    std::fs::write(&file, "path = \"/d\"\nhtpasswd-file = \"/no/such\"\ntls = true\ntls-cert = \"/no/cert\"\ntls-key = \"/no/key\"\nacl-file = \"/no/acl\"\n").unwrap();
    let (code, said) = run(&["config", "check", "--config", name], &[]);
    assert!(
        code == Some(78) && ["/no/such", "/no/cert", "/no/acl"].iter().all(|file| said.contains(file)),
        "{said}"
    );
    let (code, said) = run(&["config", "check", "--path", "/d", "--no-auth"], &[]);
    assert_eq!((code, said.trim()), (Some(0), "the settings are right"));
}

#[test]
fn settings_are_shown_with_their_origins() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.toml");
    let data = dir.path().join("data");
    let data = data.display();
    std::fs::write(&file, format!("path = \"{data}\"\nappend-only = true\nmax-size = \"1GiB\"\n")).unwrap();
    let name = file.to_str().unwrap();
    let env = [("PACKHOUSE_CONFIG", name), ("PACKHOUSE_LISTEN", ":1,:2"), ("PACKHOUSE_MAX_SIZE", "2GiB")];
    let (code, said) = run(&["config", "show", "--origin", "--no-auth", "--workers", "2"], &env);
    assert_eq!(code, Some(0), "{said}");
    for wanted in [
        format!("path = \"{data}\"  # {name}:1:8"),
        format!("append-only = true  # {name}:2:15"),
        "max-size = \"2GiB\"  # PACKHOUSE_MAX_SIZE".into(),
        "listen = [\":1\",\":2\"]  # PACKHOUSE_LISTEN".into(),
        "no-auth = true  # --no-auth".into(),
        "workers = 2  # --workers".into(),
        "head-timeout = \"10s\"  # default".into(),
    ] {
        assert!(said.lines().any(|line| line == wanted), "{wanted} in\n{said}");
    }
    // What is shown is a settings file again.
    let (_, shown) = run(&["config", "show", "--no-auth"], &env);
    std::fs::write(&file, &shown).unwrap();
    let (code, said) = run(&["config", "check", "--config", name], &[]);
    assert_eq!(code, Some(0), "{said}\n{shown}");
    let (_, schema) = run(&["config", "schema"], &[]);
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["properties"]["append-only"]["type"], "boolean");
    let (_, sample) = run(&["config", "sample"], &[]);
    std::fs::write(&file, sample).unwrap();
    assert_eq!(run(&["config", "check", "--config", name, "--path", "/d", "--no-auth"], &[]).0, Some(0));
}

#[test]
fn cpu_profile_names_what_does_it() {
    let (code, said) = run(&["serve", "--path", "/d", "--cpu-profile", "x"], &[]);
    assert!(code == Some(78) && said.contains("perf record"), "{code:?} {said}");
}

fn write(dir: &Path, toml: &str) {
    std::fs::write(dir.join("packhouse.toml"), toml).unwrap();
}

#[test]
fn a_running_server_takes_all_or_nothing() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let rights = |right: &str| format!("[users.alice]\nrights = {{ \"/**\" = \"{right}\" }}\n");
        let server = configured(driver, dir.path(), &["alice", "bob"], &rights("full"), &[]);
        let pack = format!("/r1/data/{}", id_of(b"pack"));
        let store = || as_user(&server, "alice", "POST", &pack, b"pack");
        let delete = || as_user(&server, "alice", "DELETE", &pack, b"");
        assert_eq!((store(), delete()), (200, 200));
        write(dir.path(), &rights("append"));
        server.signal("-HUP");
        server.wait_for_log("reloaded the settings and the password file: 2 users");
        assert_eq!((store(), delete()), (200, 403));
        // One mistake: nothing of it holds.
        write(dir.path(), &format!("max-siez = 1\n{}", rights("full")));
        server.signal("-HUP");
        server.wait_for_log("did you mean `max-size`?");
        assert_eq!(delete(), 403);
        // A broken password file keeps the old rights, too.
        write(dir.path(), &rights("full"));
        let users_file = dir.path().join("users");
        let good = std::fs::read(&users_file).unwrap();
        std::fs::write(&users_file, "broken\n").unwrap();
        server.signal("-HUP");
        server.wait_for_log("line 1 is not of the form user:hash");
        assert_eq!(delete(), 403);
        std::fs::write(&users_file, good).unwrap();
        // Nor does anything beside what can't change in a running server.
        write(dir.path(), &format!("workers = 3\n{}", rights("full")));
        server.signal("-HUP");
        server.wait_for_log("need a restart: workers");
        assert_eq!(delete(), 403);
        // A setting that says what is in effect anyway is no change; the reserve can change.
        let cores = std::thread::available_parallelism().unwrap();
        let as_root = if is_root() { "user = \"root\"\n" } else { "" };
        let spelt = format!("workers = {cores}\nsocket-mode = \"0700\"\nmin-free = \"1MiB\"\n{as_root}");
        let before = server.text().matches("reloaded the settings and").count();
        write(dir.path(), &format!("{spelt}{}", rights("append")));
        server.signal("-HUP");
        wait_for("the reload", || server.text().matches("reloaded the settings and").count() > before);
        write(dir.path(), &format!("min-free = \"8000PiB\"\n{}", rights("full")));
        server.signal("-HUP");
        let mut tries = 0_u32;
        wait_for("the reserve", || {
            tries += 1;
            let body = tries.to_be_bytes();
            as_user(&server, "alice", "POST", &format!("/r1/data/{}", id_of(&body)), &body) == 507
        });
        for n in 1..tries {
            let path = format!("/r1/data/{}", id_of(&n.to_be_bytes()));
            assert_eq!(as_user(&server, "alice", "DELETE", &path, b""), 200);
        }
        // A quota that comes while the server runs is counted and holds.
        let limit = stored(&server.data) * 4096;
        write(dir.path(), &format!("max-size = {limit}\n{}", rights("full")));
        server.signal("-HUP");
        server.wait_for_log("the quotas are exact");
        let body = crate::common::noise(1000, 1);
        let path = format!("/r1/data/{}", id_of(&body));
        assert_eq!(as_user(&server, "alice", "POST", &path, &body), 507);
        assert_eq!(delete(), 200);
        assert_eq!(as_user(&server, "alice", "POST", &path, &body), 200);
    });
}

#[test]
fn rights_by_a_file_are_seen_without_a_signal() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["alice"]);
        let acl = dir.path().join("acl.toml");
        std::fs::write(&acl, "[r1]\nalice = \"Append\"\n").unwrap();
        let server = Server::start(driver, &["--htpasswd-file", &file, "--acl-file", acl.to_str().unwrap()]);
        assert_eq!(as_user(&server, "alice", "POST", "/r1/config", b"x"), 200);
        assert_eq!(as_user(&server, "alice", "DELETE", "/r1/config", b""), 403);
        std::fs::write(&acl, "[r1]\nalice = \"Modify\" # now\n").unwrap();
        wait_for("the new right", || as_user(&server, "alice", "DELETE", "/r1/config", b"") == 200);
        std::fs::write(&acl, "[r1]\nalice = \"Everything\"\n").unwrap();
        server.wait_for_log("the old rights stay");
        assert_eq!(as_user(&server, "alice", "DELETE", "/r1/config", b""), 200);
    });
}
