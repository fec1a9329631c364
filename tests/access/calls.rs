//! The system calls and the operations of rings that a running server gave up, tried one by one from inside.
#![expect(unsafe_code, reason = "what a flaw in the server would do has no safe form")]

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;

use io_uring::{IoUring, Probe, opcode, squeue};
use libc::c_long;
use packhouse::io::runtime::{Driver, block_on};
use packhouse::io::{filter, ring};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketType, listen, sendto, shutdown, socket};

use crate::common::{Server, USER, id_of, is_root, on_both, skip};
use crate::confine::of_threads;

/// For a process of its own: what it gives up is gone for good. Its value is a folder.
const INSIDE: &str = "TEST_INSIDE_CALLS";
const IPPROTO_MPTCP: c_long = 262;

/// Calls that name another server, another process, the rights of a file, or the machine: what an attacker would try, whatever
/// the filter lists.
const DANGEROUS: [(&str, c_long); 69] = [
    ("setxattr", libc::SYS_setxattr),
    ("lsetxattr", libc::SYS_lsetxattr),
    ("removexattr", libc::SYS_removexattr),
    ("lremovexattr", libc::SYS_lremovexattr),
    ("truncate", libc::SYS_truncate),
    ("utimensat", libc::SYS_utimensat),
    ("socket", libc::SYS_socket),
    ("connect", libc::SYS_connect),
    ("bind", libc::SYS_bind),
    ("listen", libc::SYS_listen),
    ("sendmsg", libc::SYS_sendmsg),
    ("sendmmsg", libc::SYS_sendmmsg),
    ("sendto", libc::SYS_sendto),
    ("socketpair", libc::SYS_socketpair),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("kill", libc::SYS_kill),
    ("tkill", libc::SYS_tkill),
    ("tgkill", libc::SYS_tgkill),
    ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("prlimit64", libc::SYS_prlimit64),
    ("fchmodat", libc::SYS_fchmodat),
    ("fchmodat2", 452),
    ("fchownat", libc::SYS_fchownat),
    ("mknodat", libc::SYS_mknodat),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("chroot", libc::SYS_chroot),
    ("pivot_root", libc::SYS_pivot_root),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("open_tree", libc::SYS_open_tree),
    ("open_tree_attr", 467),
    ("move_mount", libc::SYS_move_mount),
    ("fsopen", libc::SYS_fsopen),
    ("mount_setattr", 442),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("setuid", libc::SYS_setuid),
    ("setgid", libc::SYS_setgid),
    ("setresuid", libc::SYS_setresuid),
    ("setresgid", libc::SYS_setresgid),
    ("setgroups", libc::SYS_setgroups),
    ("capset", libc::SYS_capset),
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("keyctl", libc::SYS_keyctl),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("personality", libc::SYS_personality),
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("kexec_load", libc::SYS_kexec_load),
    ("reboot", libc::SYS_reboot),
    ("swapon", libc::SYS_swapon),
    ("sethostname", libc::SYS_sethostname),
    ("quotactl", libc::SYS_quotactl),
    ("syslog", libc::SYS_syslog),
    ("clock_settime", libc::SYS_clock_settime),
    ("adjtimex", libc::SYS_adjtimex),
];

/// One system call; what the kernel answers.
fn call(number: c_long, arguments: [c_long; 6]) -> Result<c_long, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the callers pass no pointer that the kernel could write to.
    let done = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if done < 0 { Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap()) } else { Ok(done) }
}

fn denied<T>(what: &str, result: io::Result<T>) {
    let errno = result.map(drop).map_err(|e| Errno::from_io_error(&e));
    assert_eq!(errno, Err(Some(Errno::PERM)), "{what}");
}

/// What the process has before, as a server does.
struct Before {
    /// Another server, and a local service.
    address: SocketAddr,
    service: std::path::PathBuf,
    /// A socket that is not connected, one that could be, and a listener.
    tcp: OwnedFd,
    unix: OwnedFd,
    udp: UdpSocket,
    listener: TcpListener,
    file: std::path::PathBuf,
}

/// By system call. The filter answers before the kernel looks at arguments or rights.
fn by_call(has: Before) {
    for (name, number) in DANGEROUS {
        // No call takes these arguments: what is not refused fails otherwise, and does no harm.
        assert_eq!(call(number, [-1; 6]), Err(Errno::PERM), "{name}");
    }
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW] {
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX, libc::AF_NETLINK, libc::AF_VSOCK] {
            for protocol in [0, IPPROTO_MPTCP] {
                let made = call(libc::SYS_socket, [family.into(), kind.into(), protocol, 0, 0, 0]);
                assert_eq!(made, Err(Errno::PERM), "socket {family} {kind} {protocol}");
            }
        }
    }
    let Before { address, service, tcp, unix, udp, listener, file } = has;
    denied("connect", rustix::net::connect(&tcp, &address).map_err(Into::into));
    let path = rustix::net::SocketAddrUnix::new(&service).unwrap();
    denied("talk to a service", rustix::net::connect(&unix, &path).map_err(Into::into));
    denied("connect by a new socket", TcpStream::connect(address));
    denied("talk by a new socket", UnixStream::connect(&service));
    denied("listen", TcpListener::bind("127.0.0.1:0"));
    denied("listen without an address", listen(&tcp, 1).map_err(Into::into));
    denied("a datagram", udp.send_to(b"x", address));
    let fast = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.unsigned_abs());
    denied("connect by sending", sendto(&tcp, b"x", fast, &address).map_err(Into::into));
    // A connection that waits is still served.
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"answer").unwrap();
    // A listening socket that was closed is like a new one.
    shutdown(&listener, Shutdown::Both).unwrap();
    denied("connect by a former listener", sendto(&listener, b"x", fast, &address).map_err(Into::into));
    denied("listen again", listen(&listener, 1).map_err(Into::into));
    denied("chmod", std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)));
    denied("chown", std::os::unix::fs::chown(&file, None, Some(0)));
    let parent = rustix::process::getppid().unwrap();
    denied("signal others", rustix::process::test_kill_process(parent).map_err(Into::into));
    for request in [0x5412, 0x541c] {
        let typed = call(libc::SYS_ioctl, [-1, request, 0, 0, 0, 0]);
        assert_eq!(typed, Err(Errno::PERM), "write into the terminal's input");
    }
    assert!(Command::new("/bin/true").status().is_err(), "run a program");
    // A new process; its only flag is the signal of its end.
    assert_eq!(call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]), Err(Errno::PERM));
    assert_eq!(call(libc::SYS_clone, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0, 0]), Err(Errno::PERM));
    // Hidden: what a filter can't judge, the x32 ABI, and calls that are newer than it.
    for number in [435, 0x4000_0000 | libc::SYS_socket, 470, 600] {
        assert_eq!(call(number, [0; 6]), Err(Errno::NOSYS), "{number}");
    }
    assert_eq!(std::thread::spawn(|| 1).join().unwrap(), 1, "a thread");
    UnixStream::pair().unwrap();
}

/// By a ring as a worker has it: each operation that the kernel knows and that is not in use is refused.
fn by_ring((mut ring, known): (IoUring, Probe)) {
    assert!(known.is_supported(opcode::Connect::CODE) && known.is_supported(opcode::Send::CODE));
    for code in (0..=u8::MAX).filter(|code| known.is_supported(*code)) {
        let mut bytes = [0_u8; 64];
        bytes[0] = code;
        bytes[4..8].copy_from_slice(&(-1_i32).to_ne_bytes());
        // SAFETY: an entry is 64 bytes, of which the first is the operation; all of its fields are integers.
        let entry = unsafe { std::mem::transmute::<[u8; 64], squeue::Entry>(bytes) };
        // SAFETY: no memory is named.
        unsafe { ring.submission().push(&entry) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        let errno = -ring.completion().next().unwrap().result();
        assert_eq!(errno != libc::EACCES, ring::OPERATIONS.contains(&code), "operation {code}: {errno}");
    }
    let lifted = call(libc::SYS_io_uring_register, [ring.as_raw_fd().into(), 12, 0, 0, 0, 0]);
    assert_eq!(lifted, Err(Errno::PERM));
}

/// A ring as workers have them, and the operations that the kernel knows; none where it knows no limits.
fn limited() -> Option<(IoUring, Probe)> {
    let mut builder = IoUring::builder();
    let mut known = Probe::new();
    let limited = builder.setup_r_disabled().build(8).and_then(|ring| {
        ring::limit_disabled()?;
        IoUring::new(8)?.submitter().register_probe(&mut known)?;
        Ok((ring, known))
    });
    limited.inspect_err(|e| skip(&format!("rings without limits: {e}"))).ok()
}

fn attack(dir: &Path) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let service = dir.join("service");
    let _service = UnixListener::bind(&service).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let file = dir.join("file");
    std::fs::write(&file, "x").unwrap();
    let has = Before {
        address,
        service,
        tcp: socket(AddressFamily::INET, SocketType::STREAM, None).unwrap(),
        unix: socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap(),
        udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
        listener,
        file,
    };
    let ring = limited();
    if ring.is_some() {
        // The runtime's own: its socket can be made still, and yet it can't connect.
        let connected = block_on(Driver::Uring, monoio::net::TcpStream::connect_addr(address)).unwrap();
        assert_eq!(connected.err().unwrap().kind(), io::ErrorKind::PermissionDenied);
        assert!(ring::are_limited());
    }
    // In a thread that was there before, as all of a server are.
    let (go, gone) = channel();
    let earlier = std::thread::spawn(move || {
        gone.recv().unwrap();
        by_call(has);
        ring.into_iter().for_each(by_ring);
    });
    filter::install().unwrap();
    go.send(()).unwrap();
    earlier.join().unwrap();
    println!("nothing was reached");
}

#[test]
fn nothing_is_reached_by_a_system_call_or_a_ring() {
    if let Some(dir) = std::env::var_os(INSIDE) {
        return attack(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "calls::nothing_is_reached_by_a_system_call_or_a_ring", "--nocapture"])
        .env(INSIDE, dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing was reached"), "{output:?}");
}

/// Filters of every thread. None before Linux 5.9, which does not tell.
fn filters(pid: &str) -> Vec<u32> {
    let counts = of_threads(pid, "Seccomp_filters");
    counts.into_iter().map(|count| count.parse().unwrap()).collect()
}

#[test]
fn every_thread_of_a_server_is_filtered_and_the_server_works() {
    let Some(own) = filters("self").first().copied() else { return skip("Linux before 5.9") };
    on_both(|driver| {
        let mut server = Server::start(driver, &[]);
        assert!(server.text().contains("Sandbox: seccomp"), "{}", server.text());
        assert!(!server.text().contains("can't be held"), "{}", server.text());
        // Two programs.
        let pid = server.pid().to_string();
        assert!(filters(&pid).iter().all(|count| *count == own + 2), "{:?}", filters(&pid));
        server.store("/r1/", "data", &[1; 1 << 20]);
        server.signal("-HUP");
        server.wait_for_log("reloaded the settings");
        assert!(filters(&pid).iter().all(|count| *count == own + 2), "also those that came later");
        assert_eq!(server.stop().code(), Some(0));
        let bare = Server::start(driver, &["--sandbox=false"]);
        assert!(filters(&bare.pid().to_string()).iter().all(|count| *count == own));
    });
}

/// rest-server's image runs as root, on volumes of other users.
#[test]
fn root_keeps_its_rights_to_files_and_nothing_else() {
    if !is_root() {
        return skip("rights of root need root");
    }
    const DAC_OVERRIDE: u64 = 1 << 1;
    const FOWNER: u64 = 1 << 3;
    let number = |sets: &str| u64::from_str_radix(sets, 16).unwrap();
    let own = number(&of_threads("self", "CapPrm")[0]);
    on_both(|driver| {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        for folder in ["", "r1", "r1/keys", "r1/data"] {
            let folder = data.join(folder);
            std::fs::create_dir(&folder).unwrap();
            std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(&folder, Some(USER), Some(USER)).unwrap();
        }
        let theirs = data.join("r1/keys").join(id_of(b"key"));
        std::fs::write(&theirs, b"key").unwrap();
        std::fs::set_permissions(&theirs, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&theirs, Some(USER), Some(USER)).unwrap();
        let server = Server::on(&data, driver, &[]);
        let pid = server.pid().to_string();
        for field in ["CapPrm", "CapEff"] {
            assert!(
                of_threads(&pid, field).iter().all(|has| number(has) == own & (DAC_OVERRIDE | FOWNER)),
                "{field}: {:?}",
                of_threads(&pid, field)
            );
        }
        for field in ["CapInh", "CapAmb", "CapBnd"] {
            assert!(of_threads(&pid, field).iter().all(|has| number(has) == 0), "{field}");
        }
        let path = format!("/r1/keys/{}", id_of(b"key"));
        assert_eq!(server.request("GET", &path, "", b"").body, b"key");
        server.store("/r1/", "data", b"new");
        assert_eq!(server.status("DELETE", &path, b""), 200);
    });
}
