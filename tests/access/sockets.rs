//! Several listeners, modes of unix sockets, sockets that systemd passes.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use crate::common::{Conn, Server, free_port, on_both, wait_for};

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

#[test]
fn systemd_passes_one_socket_as_to_rest_server() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let address = free_port();
        // --listen is what rest-server ignores then.
        let Some(mut server) = Server::activated(
            driver,
            &[&address],
            &[],
            &["--listen", "127.0.0.1:1"],
            &dir.path().join("data"),
        ) else {
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
        let Some(server) = Server::activated(driver, &sockets, &names, &flags, &dir.path().join("data"))
        else {
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
