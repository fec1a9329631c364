//! What the process gives up at its start: root, files that no setting names, connections of its own, other programs.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::common::{DRIVERS, Server, USER, id_of, is_root, login, on_both, program, skip};

/// The kernel's answer to a system call of landlock(7).
fn has_landlock() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::on(&dir.path().join("data"), "epoll", &[]);
    let has = server.text().contains("Sandbox: Landlock");
    if !has {
        skip("this kernel has no Landlock");
    }
    has
}

fn status(server: &Server, field: &str) -> Vec<String> {
    of_threads(&server.pid().to_string(), field)
}

/// What proc(5) says of every thread of a process; nothing where the kernel does not know the field.
pub fn of_threads(pid: &str, field: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let field = format!("{field}:\t");
    tasks
        .filter_map(|task| {
            // A thread may end meanwhile.
            let text = std::fs::read_to_string(task.unwrap().path().join("status")).ok()?;
            text.lines().find_map(|line| line.strip_prefix(field.as_str()).map(Into::into))
        })
        .collect()
}

#[test]
fn root_is_given_up_once_the_sockets_are_bound() {
    if !is_root() {
        return skip("giving up root needs root");
    }
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (data, socket) = (dir.path().join("data"), dir.path().join("socket"));
        let listen = format!("unix:{}", socket.display());
        let flags = ["--user", "nobody", "--listen", "127.0.0.1:0", "--listen", &listen];
        let bare = Server::on(&data, driver, &[&flags[..], &["--sandbox=false"]].concat());
        assert!(status(&bare, "NoNewPrivs").iter().all(|flag| flag == "1"));
        drop(bare);
        let server = Server::on(&data, driver, &flags);
        assert!(server.text().contains("Running as nobody (uid 65534"), "{}", server.text());
        for uid in status(&server, "Uid") {
            assert_eq!(uid, format!("{USER}\t{USER}\t{USER}\t{USER}"));
        }
        for gid in status(&server, "Gid") {
            assert!(!gid.split('\t').any(|gid| gid == "0"), "{gid}");
        }
        assert!(status(&server, "Groups").iter().all(|all| !all.split(' ').any(|gid| gid == "0")));
        assert!(status(&server, "CapPrm").iter().all(|all| all.chars().all(|digit| digit == '0')));
        assert!(status(&server, "NoNewPrivs").iter().all(|flag| flag == "1"));
        server.store("/r1/", "data", b"x");
        for path in [&data, &data.join("r1"), &data.join(".packhouse"), &socket] {
            assert_eq!(path.symlink_metadata().unwrap().uid(), USER, "{}", path.display());
        }
    });
}

#[test]
fn what_the_service_user_cannot_read_is_told_at_the_start() {
    if !is_root() {
        return skip("giving up root needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (data, users) = (dir.path().join("data"), dir.path().join("users"));
    std::fs::write(&users, "u:$2y$04$WJbmCZB2RbBUgYGmnvBnPOcBlGMk.fU8fvSoH8WBX2qjCdsuDV8Lm\n").unwrap();
    std::fs::set_permissions(&users, PermissionsExt::from_mode(0o600)).unwrap();
    let run = |more: &[&str]| {
        let output = Command::new(program())
            .args(["serve", "--user", "nobody", "--listen", "127.0.0.1:0", "--path"])
            .arg(&data)
            .args(more)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = run(&["--htpasswd-file", users.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("users") && text.contains("Permission denied"), "{text}");
    let (code, text) = run(&["--no-auth", "--user", "no-such-user"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("cannot run as no-such-user: there is no such user"), "{text}");
    // What was read as root can't be read again.
    let settings = dir.path().join("settings.toml");
    std::fs::write(&settings, "").unwrap();
    std::fs::set_permissions(&settings, PermissionsExt::from_mode(0o600)).unwrap();
    let server = Server::on(&data, DRIVERS[0], &["--user", "nobody", "--config", settings.to_str().unwrap()]);
    server.wait_for_log("settings.toml: Permission denied (os error 13): SIGHUP will not be able to read it");
    drop(server);
    // A repository of somebody else.
    std::fs::create_dir_all(data.join("theirs/data")).unwrap();
    std::fs::set_permissions(data.join("theirs"), PermissionsExt::from_mode(0o700)).unwrap();
    let server = Server::on(&data, DRIVERS[0], &["--user", "nobody"]);
    server.wait_for_log("theirs: this folder can't be read: Permission denied");
    assert_eq!(server.status("POST", &format!("/theirs/keys/{}", id_of(b"x")), b"x"), 500);
}

/// A server that was taken over would run this: everything that the sandbox is to stop, from inside. The server's own start,
/// by settings that name a folder of each kind, as root.
#[test]
fn nothing_outside_can_be_reached() {
    if !has_landlock() {
        return;
    }
    const INSIDE: &str = "TEST_INSIDE";
    if let Some(dir) = std::env::var_os(INSIDE) {
        return escape(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    for folder in ["data", "keys", "logs", "run", "outside"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    for file in ["outside/secret", "keys/users"] {
        std::fs::write(dir.path().join(file), "secret").unwrap();
    }
    // In a process of its own: the sandbox is for good.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "confine::nothing_outside_can_be_reached", "--nocapture"])
        .env(INSIDE, dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing was reached"), "{output:?}");
    for folder in ["outside", "keys"] {
        assert_eq!(std::fs::read_dir(dir.path().join(folder)).unwrap().count(), 1);
    }
}

fn escape(dir: &Path) {
    use packhouse::server::confine;
    use packhouse::settings::{given::Given, load};
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::net::{TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let name = SocketAddr::from_abstract_name(format!("packhouse-test-{}", std::process::id())).unwrap();
    let _service = UnixListener::bind_addr(&name).unwrap();
    let [data, keys, logs, run, outside] =
        ["data", "keys", "logs", "run", "outside"].map(|name| dir.join(name));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let variables = [
        ("PACKHOUSE_PATH", text(&data)),
        ("PACKHOUSE_HTPASSWD_FILE", text(&keys.join("users"))),
        ("PACKHOUSE_LOG", text(&logs.join("log"))),
        ("PACKHOUSE_LISTEN", format!("unix:{}", text(&run.join("socket")))),
    ];
    let variables = variables.map(|(name, value)| (name.into(), value)).into();
    let loaded = load(&Given { config: None, values: Vec::new() }, &variables).unwrap();
    let confined = confine(&loaded, Vec::new()).unwrap();
    assert!(confined.told.contains(&"Sandbox: Landlock".into()), "{:?}", confined.told);
    // In a thread that came later, as all of a server do.
    std::thread::spawn(move || {
        let denied = |what: &str, result: std::io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied, "{what}");
        };
        std::fs::write(data.join("file"), "x").unwrap();
        std::fs::create_dir(data.join("sub")).unwrap();
        std::fs::rename(data.join("file"), data.join("sub/file")).unwrap();
        std::fs::hard_link(data.join("sub/file"), data.join("again")).unwrap();
        // What the server needs of the others it has: to read, to write, and to remove its socket.
        assert_eq!(std::fs::read(keys.join("users")).unwrap(), b"secret");
        std::fs::write(logs.join("log"), "x").unwrap();
        std::fs::remove_file(run.join("socket")).unwrap();
        denied("change passwords", std::fs::write(keys.join("users"), "x"));
        denied("replace passwords", std::fs::write(keys.join("new"), "x"));
        denied("remove passwords", std::fs::remove_file(keys.join("users")));
        denied("make a file among sockets", std::fs::write(run.join("file"), "x"));
        for kind in [FileType::Fifo, FileType::CharacterDevice, FileType::BlockDevice] {
            let made = mknodat(CWD, data.join("special"), kind, Mode::RWXU, 0x0103);
            // Not PERM, which would be for want of a capability.
            assert_eq!(made.unwrap_err(), rustix::io::Errno::ACCESS, "make a special file");
        }
        let parent = rustix::process::getppid().unwrap();
        let signal = rustix::process::test_kill_process(parent).unwrap_err();
        assert_eq!(signal, rustix::io::Errno::PERM, "signal others");
        denied("read", std::fs::read(outside.join("secret")).map(drop));
        denied("read through ..", std::fs::read(data.join("../outside/secret")).map(drop));
        denied("read passwords", std::fs::read("/etc/passwd").map(drop));
        denied("list", std::fs::read_dir(&outside).map(drop));
        denied("write", std::fs::write(outside.join("new"), "x"));
        denied("append", std::fs::File::options().append(true).open(outside.join("secret")).map(drop));
        denied("remove", std::fs::remove_file(outside.join("secret")));
        denied("make a folder", std::fs::create_dir(outside.join("folder")));
        denied("symlink", std::os::unix::fs::symlink("/etc", data.join("link")));
        denied("connect", TcpStream::connect(address).map(drop));
        denied("talk to a service", UnixStream::connect_addr(&name).map(drop));
        denied("listen", TcpListener::bind("127.0.0.1:0").map(drop));
        denied("run a program", Command::new("/bin/true").status().map(drop));
        // Into another folder, or out of it: a link across is refused too, whatever the kernel calls it.
        assert!(std::fs::rename(data.join("again"), outside.join("stolen")).is_err());
        assert!(std::fs::rename(outside.join("secret"), data.join("stolen")).is_err());
        assert!(std::fs::hard_link(outside.join("secret"), data.join("stolen")).is_err());
    })
    .join()
    .unwrap();
    println!("nothing was reached");
}

#[test]
fn a_reload_within_reach_works_and_one_outside_is_refused_with_the_reason() {
    if !has_landlock() {
        return;
    }
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let settings_dir = dir.path().join("etc");
        let elsewhere = dir.path().join("elsewhere");
        let logs = dir.path().join("logs");
        for folder in [&settings_dir, &elsewhere, &logs] {
            std::fs::create_dir(folder).unwrap();
        }
        let (settings, users) = (settings_dir.join("packhouse.toml"), settings_dir.join("users"));
        let write_users = |file: &Path, names: &[&str]| {
            let lines: String =
                names.iter().map(|name| format!("{name}:{}\n", bcrypt::hash("secret", 4).unwrap())).collect();
            // As editors and certificate clients do: a new file in the place of the old one.
            let new = file.with_extension("new");
            std::fs::write(&new, lines).unwrap();
            std::fs::rename(new, file).unwrap();
        };
        let write_settings = |users: &Path| {
            std::fs::write(&settings, format!("htpasswd-file = \"{}\"\n", users.display())).unwrap();
        };
        write_users(&users, &["old"]);
        write_settings(&users);
        let log = logs.join("access.log");
        let mut command = Command::new(program());
        command.args(["serve", "--io-driver", driver, "--listen", "127.0.0.1:0", "--config"]).arg(&settings);
        command.arg("--log").arg(&log).arg("--path").arg(dir.path().join("data"));
        let server = Server::launch(command, &dir.path().join("data"));
        let asks = |user: &str| server.request("GET", "/nothing/keys/", &login(user, "secret"), b"").status;
        assert_eq!((asks("old"), asks("new")), (404, 401));
        write_users(&users, &["old", "new"]);
        server.signal("-HUP");
        server.wait_for_log("2 users");
        assert_eq!(asks("new"), 404);
        // The log is rotated under it.
        std::fs::rename(&log, logs.join("access.log.1")).unwrap();
        server.signal("-USR1");
        crate::common::wait_for("a new log", || log.exists());
        let other = elsewhere.join("users");
        write_users(&other, &["third"]);
        write_settings(&other);
        server.signal("-HUP");
        server.wait_for_log("outside of the folders that the sandbox keeps within reach");
        assert_eq!((asks("old"), asks("third")), (404, 401));
    });
}
