//! `/readyz` and `/metrics` tell what holds now, in the form that is asked for.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::common::mount::Mount;
use crate::common::{Server, id_of, noise, on_both};

#[test]
fn a_full_disk_is_not_ready() {
    on_both(|driver| {
        let Some(disk) = Mount::image("mkfs.ext4", 32) else { return };
        // A file of the server's that is open for writing would keep the disk from being made read-only.
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let flags = ["--prometheus", "--prometheus-no-auth", "--min-free", "8MiB", "--state-dir"];
        let flags = [&flags[..], &[state.to_str().unwrap()]].concat();
        let server = Server::on(&disk.point.join("data"), driver, &flags);
        let writable =
            || server.request("GET", "/metrics", "", b"").text().contains("\npackhouse_writable 1.0\n");
        assert!(server.request("GET", "/readyz", "", b"").status == 200 && writable());
        let mut seed = 0;
        let full = loop {
            let body = noise(1 << 20, seed);
            seed += 1;
            let status = server.status("POST", &format!("/r1/data/{}", id_of(&body)), &body);
            if status != 200 {
                break status;
            }
            assert!(seed < 100);
        };
        assert_eq!(full, 507);
        // Down to the last block above the reserve.
        std::fs::write(disk.point.join("more"), noise(1 << 20, 99)).unwrap();
        let ready = server.request("GET", "/readyz", "", b"");
        assert!(ready.status == 503 && ready.text().contains("the disk is full"), "{}", ready.text());
        assert!(!writable());
        std::fs::remove_file(disk.point.join("more")).unwrap();
        for n in 0..5 {
            server.status("DELETE", &format!("/r1/data/{}", id_of(&noise(1 << 20, n))), b"");
        }
        assert!(server.request("GET", "/readyz", "", b"").status == 200 && writable());
        disk.remount("remount,ro");
        let ready = server.request("GET", "/readyz", "", b"");
        assert!(ready.status == 503, "before anybody has tried to write: {}", ready.text());
        assert!(!writable());
    });
}

#[test]
fn a_data_folder_that_cannot_be_read_is_not_ready() {
    let Some(server) = Server::as_user("uring", &[]) else { return };
    assert_eq!(server.request("GET", "/readyz", "", b"").status, 200);
    let data = server.data.clone();
    for mode in [0o000, 0o300, 0o500] {
        std::fs::set_permissions(&data, PermissionsExt::from_mode(mode)).unwrap();
        let ready = server.request("GET", "/readyz", "", b"");
        assert!(
            ready.status == 503 && ready.text().contains("Permission denied"),
            "{mode:o}: {}",
            ready.text()
        );
    }
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(server.request("GET", "/readyz", "", b"").status, 200);
}

#[test]
fn metrics_are_in_the_form_that_is_asked_for() {
    let server = Server::start("epoll", &["--prometheus", "--prometheus-no-auth"]);
    server.store("/r1/", "keys", b"key");
    for (accept, open) in [
        ("", false),
        ("Accept: */*\r\n", false),
        ("Accept: text/plain\r\n", false),
        ("Accept: application/json\r\n", false),
        ("Accept: application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5\r\n", true),
    ] {
        let answer = server.request("GET", "/metrics", accept, b"");
        let text = answer.text();
        assert_eq!(
            answer.header("content-type").starts_with("application/openmetrics-text"),
            open,
            "{accept}"
        );
        assert_eq!(text.ends_with("# EOF\n"), open, "{accept}");
        // In the form of old a comment names what the sample is called.
        let mut typed = Vec::new();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("# TYPE ") {
                typed.push(line.split(' ').next().unwrap().to_owned());
            } else if !line.starts_with('#') && !open {
                let name = line.split(['{', ' ']).next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                assert!(
                    typed.iter().any(|known| known == name || Some(known.as_str()) == base),
                    "{name} has no TYPE"
                );
            }
        }
        assert!(text.contains("rest_server_blob_write_total{"), "{text}");
    }
}

#[test]
fn a_data_folder_that_is_another_by_now_is_not_ready() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let (data, state) = (dir.path().join("data"), dir.path().join("state"));
        let server = Server::on(&data, driver, &["--state-dir", state.to_str().unwrap()]);
        assert_eq!(server.request("GET", "/readyz", "", b"").status, 200);
        std::fs::rename(&data, dir.path().join("moved")).unwrap();
        for again in [false, true] {
            if again {
                std::fs::create_dir(&data).unwrap();
            }
            let ready = server.request("GET", "/readyz", "", b"");
            assert!(
                ready.status == 503 && ready.text().contains("another folder by now"),
                "{}",
                ready.text()
            );
        }
        std::fs::remove_dir(&data).unwrap();
        std::fs::rename(dir.path().join("moved"), &data).unwrap();
        assert_eq!(server.request("GET", "/readyz", "", b"").status, 200);
    });
}

/// Also where the manager waits at an abstract socket, as containers have it; and although a running server connects to nothing.
#[test]
fn the_service_manager_hears_of_a_start_a_reload_and_a_stop() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("packhouse-notify-{}-{driver}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let managers = [
            (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}")),
        ];
        for (manager, variable) in managers {
            manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let hears = || {
                let mut text = [0; 256];
                let length = manager.recv(&mut text).unwrap();
                String::from_utf8_lossy(&text[..length]).trim_end().to_owned()
            };
            let data = dir.path().join("data");
            let mut command = Server::command(&data, driver, &[]);
            command.env("NOTIFY_SOCKET", variable);
            let mut server = Server::launch(command, &data);
            assert_eq!(hears(), "READY=1");
            server.signal("-HUP");
            assert_eq!([hears(), hears()], ["RELOADING=1", "READY=1"]);
            assert_eq!(server.stop().code(), Some(0));
            assert_eq!(hears(), "STOPPING=1");
        }
    });
}
