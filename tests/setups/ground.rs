//! What happens to the ground under a running server: its folder, its limits, its clock, its files.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::mount::{self, Mount};
use crate::common::{Conn, Server, id_of, noise, on_both, users, wait_for};
use crate::faulty_mount::{self, Faults, HANG, Op};

fn store(server: &Server, n: u64) -> u16 {
    let body = noise(1000, n);
    server.status("POST", &format!("/r1/data/{}", id_of(&body)), &body)
}

fn ready(server: &Server) -> u16 {
    server.status("GET", "/readyz", b"")
}

#[test]
fn nothing_is_stored_in_a_folder_that_was_mounted_over_or_moved() {
    on_both(|driver| {
        let Some(disk) = Mount::tmpfs("size=64m") else { return };
        let data = disk.point.join("data");
        let server = Server::on(&data, driver, &[]);
        server.create("/r1/");
        assert_eq!((store(&server, 1), ready(&server)), (200, 200));
        let away = disk.point.join("away");
        std::fs::rename(&data, &away).unwrap();
        std::fs::create_dir(&data).unwrap();
        wait_for("the look", || ready(&server) == 503);
        let mut n = 10;
        wait_for("the refusal", || {
            n += 1;
            store(&server, n) == 503
        });
        let path = format!("/r1/data/{}", id_of(&noise(1000, 1)));
        assert_eq!(server.request("GET", &path, "", b"").status, 200, "what is open can be read");
        assert_eq!(server.status("DELETE", &path, b""), 503);
        assert_eq!(server.status("POST", "/r2/?create=true", b""), 503);
        assert!(server.text().contains("is another folder by now"), "{}", server.text());
        // Back in its place.
        std::fs::remove_dir(&data).unwrap();
        std::fs::rename(&away, &data).unwrap();
        wait_for("the way back", || {
            n += 1;
            store(&server, n) == 200
        });
    });
}

#[test]
fn a_state_folder_that_clients_would_take_for_a_repository_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let link = dir.path().join("link");
    symlink(&data, &link).unwrap();
    std::fs::create_dir(&data).unwrap();
    for state in [data.join("state"), link.join("state"), data.join("a/b"), data.clone()] {
        let flags = ["--state-dir", state.to_str().unwrap()];
        let output = Server::command(&data, "epoll", &flags).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(3) && said.contains("leading dot"), "{state:?}: {said}");
    }
    Server::on(&data, "epoll", &["--state-dir", data.join(".own").to_str().unwrap()]);
}

/// `ulimit -f`: the kernel kills for a file that is too large, unless the signal is caught.
#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let inner = Server::command(&data, driver, &[]);
        let mut command = Command::new("sh");
        // Blocks of 512 bytes.
        command
            .args(["-c", "ulimit -f 2048; exec \"$@\"", "sh"])
            .arg(inner.get_program())
            .args(inner.get_args());
        let server = Server::launch(command, &data);
        server.create("/r1/");
        for length in [2 << 20, 5 << 20] {
            let body = noise(length, 1);
            let path = format!("/r1/data/{}", id_of(&body));
            let mut conn = server.connect();
            conn.try_send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"));
            conn.try_send(&body);
            assert_eq!(conn.response().status, 507, "{length}");
        }
        assert_eq!(store(&server, 1), 200);
    });
}

/// A machine that was suspended, a container that was paused: what has come meanwhile counts.
#[test]
fn uploads_whose_data_came_while_the_process_was_stopped_go_on() {
    on_both(|driver| {
        let server = Server::start(driver, &["--body-timeout", "1s", "--head-timeout", "1s"]);
        server.create("/r1/");
        let bodies: Vec<_> = (0..10).map(|n| noise(100_000, n)).collect();
        let begin = |body: &Vec<u8>| {
            let mut conn = server.connect();
            conn.begin_upload(&format!("/r1/data/{}", id_of(body)), "", body, 60_000);
            conn
        };
        let mut conns: Vec<Conn> = bodies.iter().map(begin).collect();
        std::thread::sleep(Duration::from_millis(200));
        server.signal("-STOP");
        for (conn, body) in conns.iter_mut().zip(&bodies) {
            conn.send(&body[60_000..]);
        }
        std::thread::sleep(Duration::from_millis(2500));
        server.signal("-CONT");
        for conn in &mut conns {
            assert_eq!(conn.response().status, 200);
        }
    });
}

#[test]
fn a_stop_is_heard_behind_reloads() {
    on_both(|driver| {
        // A password file on a disk that does not answer any more.
        let Some((dir, point)) = mount::place() else { return };
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        users(&real, &["alice"]);
        let Some(disk) = faulty_mount::mount(&real, &point, Faults::none()) else { return };
        let file = point.join("users");
        let mut server =
            Server::start(driver, &["--htpasswd-file", file.to_str().unwrap(), "--prometheus-no-auth"]);
        disk.set(Op::Open, Some(HANG));
        server.signal("-HUP");
        std::thread::sleep(Duration::from_millis(300));
        server.signal("-HUP");
        assert_eq!(server.status("GET", "/healthz", b""), 200);
        let start = Instant::now();
        server.signal("-TERM");
        server.wait_for_log("shutdown cleanly");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        // The kernel itself lets a process end when such a disk has answered.
        disk.set(Op::Open, None);
        assert_eq!(server.wait().code(), Some(0));
        // Thousands of signals, each of which reads many users.
        let dir = tempfile::tempdir().unwrap();
        let file = users(dir.path(), &["alice"]);
        let hash = bcrypt::hash("pw", 4).unwrap();
        let many: String = (0..50_000).map(|n| format!("user{n}:{hash}\n")).collect();
        std::fs::write(&file, many).unwrap();
        let mut server = Server::start(driver, &["--htpasswd-file", &file]);
        for _ in 0..200 {
            server.signal("-HUP");
        }
        let start = Instant::now();
        assert_eq!(server.stop().code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
}

/// systemd sends SIGHUP to a unit that is starting, too.
#[test]
fn a_reload_that_comes_first_does_not_end_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..5 {
        let data = dir.path().join(format!("data{n}"));
        let mut child =
            Server::command(&data, "epoll", &[]).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // From its first moment on that is its own.
        let caught = format!("/proc/{}/status", child.id());
        wait_for("the signals to be caught", || {
            let status = std::fs::read_to_string(&caught).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1
        });
        Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        assert!(child.try_wait().unwrap().is_none(), "{n}");
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}
