//! Several listeners, modes of unix sockets, sockets that systemd passes.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use crate::common::{Conn, Server, on_both, program, skip, wait_for};

#[test]
fn several_listeners_and_modes() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let unix = format!("unix:{}", path.display());
        let flags =
            ["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--listen", &unix, "--socket-mode", "0660"];
        let server = Server::start(driver, &flags);
        assert_eq!(server.addresses.len(), 3);
        for address in &server.addresses[..2] {
            let mut conn = Conn::new(std::net::TcpStream::connect(address).unwrap());
            assert_eq!(conn.request("GET", "/r1/config", "", b"").status, 404);
        }
        let mut conn = Conn::over(UnixStream::connect(&path).unwrap());
        assert_eq!(conn.request("GET", "/r1/config", "", b"").status, 404);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    });
}

/// Starts a server behind `systemd-socket-activate`, which accepts the first connection to start it.
fn activated(
    driver: &str,
    sockets: &[&str],
    activate: &[&str],
    flags: &[&str],
    data: &Path,
) -> Option<Server> {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        skip("systemd-socket-activate is not installed");
        return None;
    }
    let mut command = Command::new("systemd-socket-activate");
    command.args(sockets.iter().map(|socket| format!("--listen={socket}"))).args(activate);
    command.arg(program()).args(["serve", "--debug", "--no-auth", "--io-driver", driver, "--path"]).arg(data);
    command.args(flags);
    let first = sockets[0].to_owned();
    let poke = std::thread::spawn(move || {
        // Whoever connects first starts the server.
        let mut ready = false;
        for _ in 0..400 {
            ready = if first.starts_with('/') {
                UnixStream::connect(&first).is_ok()
            } else {
                std::net::TcpStream::connect(&first).is_ok()
            };
            if ready {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(ready);
    });
    let server = Server::launch(command, data);
    poke.join().unwrap();
    Some(server)
}

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn systemd_passes_one_socket_as_to_rest_server() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let address = free_port();
        // --listen is what rest-server ignores then.
        let Some(mut server) =
            activated(driver, &[&address], &[], &["--listen", "127.0.0.1:1"], &dir.path().join("data"))
        else {
            return;
        };
        assert_eq!(server.addresses, [address]);
        server.create("/r1/");
        assert!(server.stop().success());
    });
}

#[test]
fn systemd_passes_several_named_sockets() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let (address, admin) = (free_port(), free_port());
        let sockets = [address.as_str(), socket.to_str().unwrap(), &admin];
        let names = ["--fdname=main:main:admin"];
        let flags = ["--listen", "systemd:main", "--admin-listen", "systemd:admin"];
        let Some(server) = activated(driver, &sockets, &names, &flags, &dir.path().join("data")) else {
            return;
        };
        server.create("/r1/");
        let mut conn = Conn::over(UnixStream::connect(&socket).unwrap());
        assert_eq!(conn.request("GET", "/r1/keys/", "", b"").status, 200);
        let mut conn = Conn::new(std::net::TcpStream::connect(&admin).unwrap());
        assert_eq!(conn.request("GET", "/healthz", "", b"").status, 200);
        assert_eq!(conn.request("GET", "/r1/keys/", "", b"").status, 404);
        wait_for("the admin listener in the log", || server.text().contains("start admin server on"));
    });
}

#[test]
fn a_name_that_systemd_does_not_pass() {
    let dir = tempfile::tempdir().unwrap();
    let output = Server::command(dir.path(), "epoll", &["--listen", "systemd:web"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("systemd has passed no such socket"), "{said}");
}
