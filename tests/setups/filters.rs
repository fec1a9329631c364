//! System call filters, as systemd, Docker and others set them: a server does without what it can do without, and says so
//! once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::{Command, Output, Stdio};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::common::{DRIVERS, Server, id_of, is_root, noise, on_both, program, skip};

/// Rules by the number of a system call; none is for all of its arguments.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Runs something in a thread, and what it starts, with a filter.
fn filtered<T: Send + 'static>(
    rules: Rules,
    (otherwise, matching): (SeccompAction, SeccompAction),
    run: impl FnOnce() -> T + Send + 'static,
) -> T {
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter: BpfProgram =
        SeccompFilter::new(rules, otherwise, matching, arch).unwrap().try_into().unwrap();
    let thread = move || {
        seccompiler::apply_filter(&filter).unwrap();
        run()
    };
    std::thread::spawn(thread).join().unwrap()
}

/// The numbers of system calls, from the kernel's header.
fn numbers() -> Option<HashMap<String, i64>> {
    let arch = std::env::consts::ARCH;
    let header = if arch == "x86_64" {
        "/usr/include/x86_64-linux-gnu/asm/unistd_64.h".into()
    } else {
        "/usr/include/asm-generic/unistd.h".to_owned()
    };
    let Ok(text) = std::fs::read_to_string(&header) else {
        skip(&format!("{header} is not there"));
        return None;
    };
    let number = |line: &str| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(char::is_whitespace)?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    let mut all: HashMap<String, i64> = text.lines().filter_map(number).collect();
    // Newer than the header.
    all.extend([("cachestat".to_owned(), 451)]);
    Some(all)
}

/// The system calls of systemd's groups, as its own tool lists them.
fn systemd(groups: &[&str]) -> Option<HashSet<String>> {
    let (mut found, mut open) =
        (HashSet::new(), groups.iter().map(|group| (*group).to_owned()).collect::<Vec<_>>());
    while let Some(group) = open.pop() {
        let Ok(output) = Command::new("systemd-analyze").args(["syscall-filter", &group]).output() else {
            skip("systemd-analyze is not installed");
            return None;
        };
        for word in String::from_utf8(output.stdout).unwrap().lines().skip(1).map(str::trim) {
            match word {
                "" => {}
                comment if comment.starts_with('#') => {}
                group if group.starts_with('@') => open.push(group.into()),
                call => drop(found.insert(call.to_owned())),
            }
        }
    }
    assert!(found.len() > 20, "{groups:?}: {found:?}");
    Some(found)
}

fn calls(names: &[&str]) -> Option<Rules> {
    let numbers = numbers()?;
    Some(
        names
            .iter()
            .map(|name| (*numbers.get(*name).unwrap_or_else(|| panic!("{name}")), Vec::new()))
            .collect(),
    )
}

/// What a server must do whatever is missing: a large and a small object, a list, and a download of what is cached.
fn works(server: &Server) {
    let body = noise(3 << 20, 1);
    let large = server.store("/r1/", "data", &body);
    server.store("/r1/", "keys", b"key");
    assert!(server.request("GET", &large, "", b"").body == body);
    assert!(server.request("GET", &large, "Range: bytes=5-70000\r\n", b"").body == body[5..=70_000]);
    for form in ["", "Accept: application/vnd.x.restic.rest.v2\r\n"] {
        let list = server.request("GET", "/r1/keys/", form, b"");
        assert!(list.status == 200 && list.text().contains(&id_of(b"key")), "{}", list.text());
    }
    assert_eq!(server.status("DELETE", &large, b""), 200);
}

fn starts(
    rules: &Rules,
    actions: (SeccompAction, SeccompAction),
    driver: &'static str,
    flags: &[&str],
) -> Server {
    let dir = tempfile::tempdir().unwrap().keep();
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let mut server = filtered(rules.clone(), actions, move || {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Server::on(&dir.join("data"), driver, &flags)
    });
    server.remove_at_end();
    server
}

/// rest-server's and Debian's own unit have this list, for which systemd kills.
#[test]
fn under_the_list_of_system_services_all_works_and_what_is_missing_is_told_once() {
    let (Some(numbers), Some(list)) = (numbers(), systemd(&["@system-service"])) else { return };
    let allowed: Rules = list.iter().filter_map(|name| Some((*numbers.get(name)?, Vec::new()))).collect();
    on_both(|driver| {
        for denied in [SeccompAction::KillProcess, SeccompAction::Errno(1), SeccompAction::Errno(38)] {
            for flags in [&[][..], &["--sandbox=false"]] {
                let server = starts(&allowed, (denied.clone(), SeccompAction::Allow), driver, flags);
                works(&server);
                let text = server.text();
                if denied == SeccompAction::KillProcess {
                    assert_eq!(text.matches("a system call filter forbids").count(), 1, "{text}");
                    assert!(text.contains("landlock_create_ruleset") && text.contains("cachestat"), "{text}");
                }
                assert!(!text.contains("Sandbox: Landlock"), "{text}");
            }
        }
    });
}

/// What many units add: `SystemCallFilter=~@privileged @resources`.
#[test]
fn without_privileged_calls_and_those_for_resources_all_works() {
    let (Some(numbers), Some(denied)) = (numbers(), systemd(&["@privileged", "@resources"])) else { return };
    let denied: Rules = denied.iter().filter_map(|name| Some((*numbers.get(name)?, Vec::new()))).collect();
    on_both(|driver| {
        for how in [SeccompAction::KillProcess, SeccompAction::Errno(1)] {
            let server = starts(&denied, (SeccompAction::Allow, how), driver, &[]);
            works(&server);
        }
        // The command line is under the same unit's filter when a timer runs it.
        let rules = denied.clone();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        let output: Output = filtered(rules, (SeccompAction::Allow, SeccompAction::KillProcess), move || {
            Command::new(program()).args(["repo", "verify", "--path"]).arg(path).output().unwrap()
        });
        assert!(output.status.success(), "{output:?}");
    });
}

/// Where nothing is forbidden everything is used, by root and by other users.
#[test]
fn without_a_filter_nothing_is_said_to_be_missing() {
    on_both(|driver| {
        let servers = [Some(Server::start(driver, &[])), Server::as_user(driver, &[])];
        for server in servers.iter().flatten() {
            assert!(!server.text().contains("system call filter"), "{}", server.text());
        }
    });
}

/// Each of them alone, by a kill: also those that no list of systemd's leaves out today.
#[test]
fn each_call_that_is_optional_may_be_missing() {
    // Only root has something to give up.
    let capabilities = if is_root() { "capset" } else { "" };
    let optional: [(&[&str], &str); 17] = [
        (&["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"], "no sandbox"),
        (&["landlock_restrict_self"], "no sandbox"),
        (&["io_uring_setup", "io_uring_enter", "io_uring_register"], "epoll"),
        (&["landlock_add_rule"], "no sandbox"),
        (&["io_uring_enter"], "epoll"),
        (&["io_uring_register"], "epoll"),
        (&["seccomp"], "seccomp"),
        (&["capset"], capabilities),
        (&["preadv2"], "preadv2"),
        (&["sendfile"], "sendfile"),
        (&["cachestat"], "cachestat"),
        (&["flock"], "flock"),
        (&["fallocate"], "fallocate"),
        (&["linkat"], "linkat"),
        (&["renameat2"], "renameat2"),
        (&["fsetxattr", "fgetxattr", "flistxattr"], "fsetxattr"),
        (&["setpriority", "sched_setscheduler", "sched_setattr"], "setpriority"),
    ];
    for (names, told) in optional {
        eprintln!("{names:?}");
        let Some(rules) = calls(names) else { return };
        let server = starts(&rules, (SeccompAction::Allow, SeccompAction::KillProcess), "auto", &[]);
        works(&server);
        assert!(server.text().contains(told), "{names:?}: {}", server.text());
        // An errno is not always told, but all works.
        let Some(rules) = calls(names) else { return };
        works(&starts(&rules, (SeccompAction::Allow, SeccompAction::Errno(1)), "auto", &[]));
    }
    // What older container engines answer of calls that they do not know, and where nothing is to be told.
    for names in [&["statx"][..], &["fstatfs", "statfs"], &["faccessat2", "faccessat", "access"]] {
        for errno in [1, 38] {
            eprintln!("{names:?} {errno}");
            let Some(rules) = calls(names) else { return };
            works(&starts(&rules, (SeccompAction::Allow, SeccompAction::Errno(errno)), "auto", &[]));
        }
    }
    // What was asked for by name is not left out silently.
    let Some(rules) = calls(&["sched_setaffinity"]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut command = Server::command(&data, DRIVERS[1], &["--cpus", "0"]);
    let output = filtered(rules, (SeccompAction::Allow, SeccompAction::KillProcess), move || {
        command.stdin(Stdio::null()).output().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && said.contains("sched_setaffinity"), "{said}");
    // And what there is no server without is told with its remedy.
    let Some(rules) = calls(&["openat2"]) else { return };
    let mut command = Server::command(&data, DRIVERS[1], &[]);
    let output = filtered(rules, (SeccompAction::Allow, SeccompAction::KillProcess), move || {
        command.stdin(Stdio::null()).output().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(3) && said.contains("openat2") && said.contains("SystemCallFilter"),
        "{said}"
    );
}

/// `RestrictAddressFamilies=AF_INET AF_INET6`
#[test]
fn without_unix_sockets_there_is_no_control_socket_and_all_else_works() {
    let unix = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 1).unwrap();
    let Some(numbers) = numbers() else { return };
    let rules = Rules::from([(numbers["socket"], vec![SeccompRule::new(vec![unix]).unwrap()])]);
    on_both(|driver| {
        let server = starts(&rules, (SeccompAction::Allow, SeccompAction::Errno(97)), driver, &[]);
        works(&server);
        let text = server.text();
        assert!(text.contains("no control socket can be made here") && text.contains("SIGHUP"), "{text}");
        server.signal("-HUP");
        server.wait_for_log("reloaded the settings");
    });
}
