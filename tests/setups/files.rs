//! Files that are watched, replaced and edited: nothing that changes is missed, nothing that is edited loses its rights.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::common::mount::{self, bind};
use crate::common::{Server, USER, is_root, login, on_both, skip, wait_for};
use crate::words::{run, run_with};

fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

fn status(server: &Server, user: &str, password: &str) -> u16 {
    server.request("GET", "/nothing/keys/", &login(user, password), b"").status
}

/// A removed user must not go on logging in because of how its file was replaced.
#[test]
fn every_replacement_of_the_password_file_is_noticed() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        // Hashes of bcrypt have one length: the file's size never changes.
        let write =
            |path: &Path, name: &str| std::fs::write(path, format!("{name}:{}\n", hash("pw"))).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        let at_one_time = |path: &Path| {
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        };
        write(&file, "one");
        at_one_time(&file);
        let server = Server::start(driver, &["--htpasswd-file", file.to_str().unwrap()]);
        assert_eq!((status(&server, "one", "pw"), status(&server, "two", "pw")), (404, 401));
        // As `cp -p`, ostree, /nix/store and csi drivers do: another file, with the same size and the same time.
        let new = dir.path().join("new");
        write(&new, "two");
        at_one_time(&new);
        std::fs::rename(&new, &file).unwrap();
        wait_for("two", || status(&server, "two", "pw") == 404);
        assert_eq!(status(&server, "one", "pw"), 401);
        // Vanished for longer than two looks, and back.
        std::fs::remove_file(&file).unwrap();
        server.wait_for_log("the old users stay");
        assert_eq!(server.request("GET", "/readyz", "", b"").status, 503);
        std::thread::sleep(std::time::Duration::from_secs(7));
        assert_eq!(status(&server, "two", "pw"), 404);
        write(&file, "six");
        at_one_time(&file);
        wait_for("six", || status(&server, "six", "pw") == 404);
        assert_eq!(status(&server, "two", "pw"), 401);
        assert_eq!(server.request("GET", "/readyz", "", b"").text(), "ok\n");
    });
}

#[test]
fn what_could_not_be_read_is_read_once_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let file = dir.path().join("users");
    std::fs::write(&file, format!("one:{}\n", hash("pw"))).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let Some(server) = Server::as_user(
        "epoll",
        &["--htpasswd-file", file.to_str().unwrap(), "--prometheus", "--prometheus-no-auth"],
    ) else {
        return;
    };
    let metric = |name: &str| {
        let text = server.request("GET", "/metrics", "", b"").text();
        text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(ToOwned::to_owned)).unwrap()
    };
    assert_eq!(metric("packhouse_reload_success"), "1.0");
    // As certbot writes a renewed key: a new file of root's.
    std::fs::write(dir.path().join("new"), format!("two:{}\n", hash("pw"))).unwrap();
    std::fs::set_permissions(dir.path().join("new"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::rename(dir.path().join("new"), &file).unwrap();
    server.wait_for_log("the old users stay");
    assert_eq!(metric("packhouse_reload_success"), "0.0");
    assert_ne!(metric("packhouse_reload_failures_total"), "0");
    let ready = server.request("GET", "/readyz", "", b"");
    assert!(ready.status == 503 && ready.text().contains("password file"), "{}", ready.text());
    assert!(
        !ready.text().contains("users\n") && !ready.text().contains(dir.path().to_str().unwrap()),
        "no paths for strangers"
    );
    assert_eq!(metric("packhouse_writable"), "0.0");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    wait_for("two", || status(&server, "two", "pw") == 404);
    assert_eq!(server.request("GET", "/readyz", "", b"").text(), "ok\n");
    assert_eq!(metric("packhouse_reload_success"), "1.0");
    assert_eq!(server.text().matches("the old users stay").count(), 1, "told once");
}

#[test]
fn a_reload_that_is_refused_has_an_exit_code_and_a_reason() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let (settings, data) = (dir.path().join("p.toml"), dir.path().join("data"));
        std::fs::write(&settings, "max-uploads-per-user = 3\n").unwrap();
        let server = Server::on(&data, driver, &["--config", settings.to_str().unwrap()]);
        let reload = || run(&["reload", "--path", data.to_str().unwrap()]);
        let (code, said) = reload();
        assert!(code == Some(0) && said.contains("reloaded the settings"), "{code:?} {said}");
        // A default that is spelt out is no change.
        std::fs::write(&settings, "sandbox = true\nlisten = \"127.0.0.1:0\"\nworkers = 5\n").unwrap();
        let (code, said) = reload();
        assert!(code == Some(1) && said.contains("need a restart: workers"), "{code:?} {said}");
        assert!(!said.contains("sandbox") && !said.contains("listen"), "{said}");
        let ready = server.request("GET", "/readyz", "", b"");
        assert!(
            ready.status == 200 && ready.text().contains("the last reload was refused"),
            "{}",
            ready.text()
        );
        std::fs::write(&settings, "max-uploads = 3\n").unwrap();
        let (code, said) = reload();
        assert!(code == Some(1) && said.contains("there is no setting `max-uploads`"), "{code:?} {said}");
        std::fs::write(&settings, "sandbox = true\n").unwrap();
        let (code, said) =
            run(&["reload", "--config", settings.to_str().unwrap(), "--path", data.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(server.request("GET", "/readyz", "", b"").text(), "ok\n");
        drop(server);
        let (code, said) = reload();
        assert!(code == Some(1) && said.contains("no packhouse answers"), "{code:?} {said}");
    });
}

#[test]
fn a_repository_that_was_removed_by_hand_gives_its_quota_back() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        // Five folders each, a shard of `data` and a pack: in blocks of 4096 bytes.
        let server = Server::on(&data, driver, &["--max-size", &(12 * 4096).to_string()]);
        server.wait_for_log("the quotas are exact");
        server.store("/r1/", "data", &[1; 900]);
        server.create("/r2/");
        let other = format!("/r2/data/{}", crate::common::id_of(&[2; 900]));
        let full = server.request("POST", &other, "", &[2; 900]);
        assert_eq!(full.status, 507);
        let wanted = "the quota of all repositories together is used up: 49152 of 49152 bytes on disk are stored or reserved, and 4096 more do not fit";
        assert!(full.text().contains(wanted), "{}", full.text());
        std::fs::remove_dir_all(data.join("r1")).unwrap();
        let (code, said) = run(&["repo", "recount", "--path", data.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(server.status("POST", &other, &[2; 900]), 200);
        // A reload counts anew, too.
        std::fs::remove_dir_all(data.join("r2")).unwrap();
        server.signal("-HUP");
        server.create("/r2/");
        wait_for("room", || server.status("POST", &other, &[2; 900]) == 200);
    });
}

fn user(args: &[&str], password: &str) {
    let (code, said) = run_with(&[&["user"], args].concat(), &[], password);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn an_edited_password_file_keeps_mode_owner_and_access_control_list() {
    if !is_root() {
        return skip("files of other users need root");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "# root:service\n").unwrap();
    let chown = |owner: &str, path: &Path| {
        assert!(Command::new("chown").arg(owner).arg(path).status().unwrap().success());
    };
    chown(&format!("0:{USER}"), &file);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let has_acl =
        Command::new("setfacl").args(["-m", "u:daemon:r", path]).status().is_ok_and(|done| done.success());
    if !has_acl {
        skip("setfacl does not work here");
    }
    let acl = || {
        let output = Command::new("getfacl").args(["-cp", path]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let before = acl();
    assert!(before.contains("user:daemon:r--"), "{before}");
    for args in [
        &["add", "--htpasswd-file", path, "--stdin", "--cost", "8", "alice"][..],
        &["passwd", "--htpasswd-file", path, "--stdin", "--cost", "8", "alice"],
        &["del", "--htpasswd-file", path, "alice"],
    ] {
        user(args, "pw\n");
        let meta = file.metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (0, USER), "{args:?}");
        assert_eq!(acl(), before, "{args:?}");
    }
    // A first file is the folder's owner's, so that the server can read it.
    let owned = dir.path().join("owned");
    std::fs::create_dir(&owned).unwrap();
    chown(&format!("{USER}:{USER}"), &owned);
    user(&["add", "--path", owned.to_str().unwrap(), "--stdin", "--cost", "8", "alice"], "pw\n");
    let meta = owned.join(".htpasswd").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (USER, USER, 0o600));
    assert_eq!(std::fs::read_dir(&owned).unwrap().count(), 1, "nothing is left over");
    // In a folder of root's the user that the settings name can read it by its group.
    let config = dir.path().join("p.toml");
    let new = dir.path().join("new-users");
    std::fs::write(
        &config,
        format!("path = \"/srv\"\nuser = \"{USER}\"\nhtpasswd-file = \"{}\"\n", new.display()),
    )
    .unwrap();
    for (name, mode) in [("alice", 0o640), ("bob", 0o640)] {
        user(&["add", "--config", config.to_str().unwrap(), "--stdin", "--cost", "8", name], "pw\n");
        let meta = new.metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (0, USER, mode));
    }
}

#[test]
fn a_password_file_with_two_names_keeps_both() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    std::fs::write(&one, "# users\n").unwrap();
    std::fs::hard_link(&one, &two).unwrap();
    user(&["add", "--htpasswd-file", one.to_str().unwrap(), "--stdin", "--cost", "8", "alice"], "pw\n");
    assert!(std::fs::read_to_string(&two).unwrap().contains("alice:"));
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
}

/// A container is given a single file, which no other can replace.
#[test]
fn a_password_file_that_is_a_mount_is_written_in_place() {
    let Some((dir, _)) = mount::place() else { return };
    let (real, shown) = (dir.path().join("real"), dir.path().join("shown"));
    for file in [&real, &shown] {
        std::fs::write(file, "").unwrap();
    }
    std::fs::set_permissions(&real, PermissionsExt::from_mode(0o640)).unwrap();
    let _bound = bind(&real, &shown);
    for name in ["alice", "bob"] {
        user(&["add", "--htpasswd-file", shown.to_str().unwrap(), "--stdin", "--cost", "8", name], "pw\n");
    }
    user(&["del", "--htpasswd-file", shown.to_str().unwrap(), "alice"], "");
    let text = std::fs::read_to_string(&real).unwrap();
    assert!(text.starts_with("bob:$2y$") && text.lines().count() == 1, "{text}");
    assert_eq!(real.metadata().unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn the_password_file_that_is_edited_is_the_one_that_the_server_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, users, data) =
        (dir.path().join("p.toml"), dir.path().join("users"), dir.path().join("data"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(
        &settings,
        format!("path = \"{}\"\nhtpasswd-file = \"{}\"\n", data.display(), users.display()),
    )
    .unwrap();
    let add = |args: &[&str], env: &[(&str, &str)], name: &str| {
        let all = [&["user", "add", "--stdin", "--cost", "8"], args, &[name]].concat();
        run_with(&all, env, "pw\n")
    };
    let config = settings.to_str().unwrap();
    assert_eq!(add(&["--config", config], &[], "alice").0, Some(0));
    assert_eq!(add(&[], &[("PACKHOUSE_CONFIG", config)], "bob").0, Some(0));
    let env =
        [("PACKHOUSE_PATH", data.to_str().unwrap()), ("PACKHOUSE_HTPASSWD_FILE", users.to_str().unwrap())];
    assert_eq!(add(&[], &env, "carol").0, Some(0));
    assert_eq!(run(&["user", "ls", "--config", config]), (Some(0), "alice\nbob\ncarol\n".into()));
    assert!(!data.join(".htpasswd").exists());
    for alias in ["rm", "remove", "delete"] {
        let name = [("rm", "alice"), ("remove", "bob"), ("delete", "carol")]
            .iter()
            .find(|(a, _)| *a == alias)
            .unwrap()
            .1;
        assert_eq!(run(&["user", alias, "--config", config, name]).0, Some(0));
    }
    // Where nobody reads one, none is written.
    std::fs::write(&settings, format!("path = \"{}\"\nno-auth = true\n", data.display())).unwrap();
    let (code, said) = add(&["--config", config], &[], "alice");
    assert!(code == Some(78) && said.contains("reads no password file"), "{code:?} {said}");
    // So do the commands on repositories.
    assert_eq!(run(&["repo", "ls", "--json", "--config", config]), (Some(0), "[]\n".into()));
    assert_eq!(
        run_with(&["repo", "list", "--json"], &[("PACKHOUSE_CONFIG", config)], ""),
        (Some(0), "[]\n".into())
    );
}

/// What rest-server's container makes, and what people write.
#[test]
fn password_files_that_rest_server_takes_start_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users");
    let h = hash("pw");
    for (content, users, told) in [
        (Vec::new(), &[][..], "has no user that can log in"),
        (b"# only a comment\n".to_vec(), &[], "has no user that can log in"),
        (b"bob:$apr1$x$y\n".to_vec(), &[], "line 1, user bob: hashes of MD5"),
        (format!("# caf\u{e9}\nalice:{h}\n").replace('\u{e9}', "\u{e9}").into_bytes(), &["alice"], ""),
        ([b"# caf\xe9\nalice:", h.as_bytes(), b"\n"].concat(), &["alice"], ""),
        (format!("alice:{h}:third\nbob:{h}\n").into_bytes(), &["alice", "bob"], ""),
        (format!("alice:{h} # note\n").into_bytes(), &["alice"], ""),
        (format!(":{h}\nbob:{h}\n").into_bytes(), &["bob"], "line 1 does not count"),
        (format!("\"alice\":\"{h}\"\n").into_bytes(), &["alice"], ""),
        (format!("nonsense\nbob:{h}\n").into_bytes(), &["bob"], "line 1 does not count"),
        (format!("bob:{h}\r\nalice:$5$x$y\r\n").into_bytes(), &["bob"], "line 2, user alice"),
        (format!("\u{feff}alice:{h}#note\n").into_bytes(), &["alice"], ""),
        // Checked, it would let nobody in for days.
        (
            format!("bob:{}\nalice:{h}\n", h.replacen("$04$", "$31$", 1)).into_bytes(),
            &["alice"],
            "line 1, user bob: a bcrypt cost",
        ),
    ] {
        std::fs::write(&file, &content).unwrap();
        let server = Server::start("epoll", &["--htpasswd-file", file.to_str().unwrap()]);
        for user in users {
            assert_eq!(status(&server, user, "pw"), 404, "{}", content.escape_ascii());
        }
        assert_eq!(status(&server, "stranger", "pw"), 401);
        assert!(server.text().contains(told), "{}: {}", content.escape_ascii(), server.text());
    }
}

#[test]
fn what_is_no_file_holds_up_no_reload() {
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        std::fs::write(&file, format!("one:{}\n", hash("pw"))).unwrap();
        let mut server = Server::start(driver, &["--htpasswd-file", file.to_str().unwrap()]);
        std::fs::remove_file(&file).unwrap();
        assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        server.wait_for_log("it is no regular file");
        assert_eq!(server.request("GET", "/readyz", "", b"").status, 503);
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, format!("two:{}\n", hash("pw"))).unwrap();
        wait_for("two", || status(&server, "two", "pw") == 404);
        assert_eq!(server.request("GET", "/readyz", "", b"").text(), "ok\n");
        assert!(server.stop().success());
        // At a start it is an error, and no wait.
        std::fs::remove_file(&file).unwrap();
        assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        let refused = Server::command(&server.data, driver, &["--htpasswd-file", file.to_str().unwrap()])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(3));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("it is no regular file"));
    });
}
