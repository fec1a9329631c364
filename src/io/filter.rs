//! The system calls that a running server does without: seccomp(2) refuses them to all of its threads.
//!
//! The filter is a list of what is refused (EPERM), not of what is allowed. Which harmless calls a server makes depends on the C
//! library, the kernel and the version of Rust; a call that is missing in a list of allowed ones would fail years later, in a rare
//! case, and look like a broken disk. What a list of refused calls can't know are calls that come with later kernels: those answer
//! as on a kernel that lacks them (ENOSYS), for which every caller has another way. An error, and not a kill: whoever runs code in
//! this process can end it anyway, and a call that was refused by mistake costs one request instead of all backups.
//!
//! io_uring bypasses the filter: see `ring`. So do calls of another architecture (32 bit): the process is killed for them.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use rustix::io::Errno;
use rustix::net::AddressFamily;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads, sock_filter,
};

/// Rules by the number of a system call: it is refused if one of them matches, or if it has none.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Calls that are refused whatever their arguments are.
///
/// No socket is made but pairs of unix sockets; of those that there are none is bound, listens, or connects. `sendmsg(2)` may
/// name another end, which a filter can't see; the server does not use it. A backend on another server will need TCP sockets that
/// connect where the settings say: Landlock can hold them to that port.
const REFUSED: [c_long; 90] = [
    // Sockets.
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    // Rings without limits; limits that are lifted.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_register,
    // Programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    PROCESS_MRELEASE,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Rights and owners of files. By descriptor they are changed still: of files that could be opened, when a log is rotated.
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchownat,
    libc::SYS_mknodat,
    // An access control list is a mode, too. Landlock sees neither these nor, before Linux 6.2, truncation by path.
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    SETXATTRAT,
    REMOVEXATTRAT,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    // Files by handle, past all folders.
    libc::SYS_open_by_handle_at,
    // The root folder, mounts, namespaces.
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    MOUNT_SETATTR,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Users, groups, capabilities.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    // Parts of the kernel in which flaws are found.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
    libc::SYS_personality,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_acct,
    libc::SYS_quotactl,
    QUOTACTL_FD,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    FILE_SETATTR,
];

/// Older forms of the same, which this architecture alone has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: [c_long; 14] = [
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_mknod,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_kexec_file_load,
    libc::SYS_modify_ldt,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_uselib,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: [c_long; 0] = [];

// libc does not have these on all targets. Their numbers are the same on all architectures.
const CLONE3: u32 = 435;
const MOUNT_SETATTR: c_long = 442;
const QUOTACTL_FD: c_long = 443;
const PROCESS_MRELEASE: c_long = 448;
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;
const OPEN_TREE_ATTR: c_long = 467;
const FILE_SETATTR: c_long = 469;
/// The newest call that was looked at for these lists (Linux 6.18). Above are later ones, and those of the x32 ABI, which
/// have bit 30 set and would pass as others otherwise.
const NEWEST: u32 = 469;

/// Flag of clone(2): a thread, not a process.
const CLONE_THREAD: u64 = 0x1_0000;
/// Requests of ioctl(2) that put characters into the input of the terminal which this process writes its log to.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

/// Takes from all threads of the process, and those that they will start, what a running server does without. For good. To
/// be called when there is nothing more to bind or connect to, and each worker has its ring.
///
/// # Errors
/// The kernel has no seccomp(2), or another filter forbids it.
pub fn install() -> io::Result<()> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let errno = SeccompAction::Errno(Errno::PERM.raw_os_error().unsigned_abs());
    let rules = rules().map_err(io::Error::other)?;
    let refused: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch)
        .and_then(TryInto::try_into)
        .map_err(io::Error::other)?;
    apply_filter_all_threads(&unknown()).map_err(io::Error::other)?;
    apply_filter_all_threads(&refused).map_err(io::Error::other)
}

fn rules() -> Result<Rules, BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let own = u64::from(std::process::id());
    let unix = u64::from(AddressFamily::UNIX.as_raw());
    let mut rules: Rules = REFUSED.into_iter().chain(REFUSED_HERE).map(|call| (call, Vec::new())).collect();
    let some = [
        // To an address; with MSG_FASTOPEN that would connect.
        (libc::SYS_sendto, vec![when(4, SeccompCmpArgLen::Qword, Ne, 0)?]),
        (libc::SYS_socketpair, vec![word(0, Ne, unix)?]),
        // Signals to others. glibc's abort(3) sends itself one so; musl's uses tkill(2), is refused, and crashes instead.
        (libc::SYS_kill, vec![word(0, Ne, own)?]),
        (libc::SYS_tgkill, vec![word(0, Ne, own)?]),
        (libc::SYS_prlimit64, vec![word(0, Ne, 0)?]),
        // A thread has no namespaces of its own that need no privilege, so that their flags need no rule.
        (libc::SYS_clone, vec![word(0, MaskedEq(CLONE_THREAD), 0)?]),
        (libc::SYS_ioctl, vec![word(1, Eq, TIOCSTI)?, word(1, Eq, TIOCLINUX)?]),
    ];
    rules.extend(some);
    Ok(rules)
}

/// Matches an argument of 32 bits, whatever its upper half is: the kernel does not look at that either.
fn word(argument: u8, is: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    when(argument, SeccompCmpArgLen::Dword, is, value)
}

fn when(
    argument: u8,
    length: SeccompCmpArgLen,
    is: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, length, is, value)?])
}

/// The program that hides later calls, and clone3(2): its flags are in memory, where no filter sees them, and the C library makes
/// threads by clone(2) where there is no clone3. seccompiler compares numbers for equality alone, so that it is written by hand.
fn unknown() -> [sock_filter; 5] {
    // `struct seccomp_data` begins with the number; the codes are those of linux/bpf_common.h.
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let errno = SeccompAction::Errno(Errno::NOSYS.raw_os_error().unsigned_abs());
    [
        sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: CLONE3 },
        sock_filter { code: JUMP_IF_GREATER_OR_EQUAL, jt: 0, jf: 1, k: NEWEST + 1 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: errno.into() },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: SeccompAction::Allow.into() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_listed_twice_or_newer_than_the_newest() {
        let mut all: Vec<_> = REFUSED.into_iter().chain(REFUSED_HERE).collect();
        assert!(all.iter().all(|call| *call <= c_long::from(NEWEST)));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        // None of the rules with arguments replaces a call that is refused whole.
        assert_eq!(rules().expect("rules").len(), count + 7);
    }
}
