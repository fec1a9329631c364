//! `packhouse user`, and a server that takes what it wrote.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::common::{Server, login, program, wait_for};

fn user(args: &[&str], input: &str) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    command.arg("user").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn users_are_added_changed_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let file = dir.path().join(".htpasswd");
    assert_eq!(user(&["add", "--path", data, "--stdin", "--cost", "8", "alice"], "first\n").0, Some(0));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let server = Server::start("epoll", &["--htpasswd-file", file.to_str().unwrap()]);
    let ask =
        |user: &str, password: &str| server.request("GET", "/r1/config", &login(user, password), b"").status;
    assert_eq!((ask("alice", "first"), ask("alice", "second")), (404, 401));
    assert_eq!(user(&["passwd", "--path", data, "--stdin", "--cost", "8", "alice"], "second\n").0, Some(0));
    assert_eq!(
        user(&["add", "--htpasswd-file", file.to_str().unwrap(), "--stdin", "--cost", "8", "bob"], "b:b").0,
        Some(0)
    );
    wait_for("the change", || ask("alice", "second") == 404);
    assert_eq!((ask("alice", "first"), ask("bob", "b:b")), (401, 404));
    assert_eq!(user(&["list", "--path", data], ""), (Some(0), "alice\nbob\n".into()));
    assert_eq!(user(&["list", "--json", "--path", data], ""), (Some(0), "[\"alice\",\"bob\"]\n".into()));
    assert_eq!(user(&["del", "--path", data, "bob"], "").0, Some(0));
    wait_for("bob to be out", || ask("bob", "b:b") == 401);
    // Also the last one is out at once.
    assert_eq!(user(&["del", "--path", data, "alice"], "").0, Some(0));
    server.signal("-HUP");
    wait_for("alice to be out", || ask("alice", "second") == 401);
    assert_eq!(user(&["add", "--path", data, "--stdin", "--cost", "8", "alice"], "first\n").0, Some(0));
    for (args, input, wanted) in [
        (&["add", "--path", data, "--stdin", "alice"][..], "x\n", "there is a user alice already"),
        (&["passwd", "--path", data, "--stdin", "carol"], "x\n", "there is no user carol"),
        (&["del", "--path", data, "carol"], "", "there is no user carol"),
        (&["add", "--path", data, "--stdin", "a:b"], "x\n", "without colons"),
        (&["add", "--path", data, "--stdin", "carol"], "\n", "a password is 1 to 72 bytes"),
        (&["list", "--path", "/no/such"], "", "/no/such/.htpasswd"),
    ] {
        let (code, said) = user(args, input);
        assert!(code == Some(1) && said.contains(wanted), "{args:?}: {said}");
    }
    // A password has no place on the command line.
    assert_eq!(user(&["add", "--path", data, "carol", "secret"], "").0, Some(2));
    assert_eq!(user(&["add", "carol"], "").0, Some(2));
}
