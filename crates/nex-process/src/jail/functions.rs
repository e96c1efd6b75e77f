//! The system calls of an agent that runs functions; every other one answers EPERM.
//!
//! An allow list: functions run inside the agent's program, whose needs are known. It starts threads and no processes, opens TCP
//! connections and listens to nobody, reads files that the jail shows it, and makes memory executable, for compiled code. Whoever takes it
//! over through a hole of an engine has no more than that. It comes on top of the jail's own filter and holds for all threads.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

use super::error::JailError;

/// Allowed with any arguments.
const ALLOWED: &[i64] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_fallocate,
    libc::SYS_membarrier,
    // Threads. `clone3` is answered by the jail's own filter: its flags are out of sight.
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // Signals of its own: traps of WebAssembly are some.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Descriptors.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_fcntl,
    libc::SYS_ftruncate,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    // Connections.
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    // Time, chance, and what it is.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
];

/// The older names that the event loop and the C library use where they exist.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[];

/// Asks which pages were written; both engines clean up after a call by it.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// The type of a socket without the flags that are given with it.
const SOCKET_TYPE: u64 = 0xf;

/// Gives up, for all threads of this process and for good, what running functions does not need.
///
/// # Errors
/// When the filter cannot be applied, on a kernel that has filters; a kernel without any is in the jail's report already.
pub fn restrict_to_functions() -> Result<(), JailError> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(()) };
    let failed = |source: io::Error| JailError::Step {
        step: "filtering the system calls of functions",
        advice: "report it: every kernel that has filters takes this one",
        source,
    };
    let program = program(arch).map_err(|error| failed(io::Error::other(error)))?;
    match apply_filter_all_threads(&program) {
        Ok(()) => Ok(()),
        Err(seccompiler::Error::Seccomp(error)) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => Ok(()),
        Err(error) => Err(failed(io::Error::other(error))),
    }
}

fn program(arch: TargetArch) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|number| (*number, Vec::new())).collect();
    let thread = flag(libc::CLONE_THREAD);
    rules.insert(libc::SYS_clone, vec![rule([(0, SeccompCmpOp::MaskedEq(thread), thread)])?]);
    let stream = flag(libc::SOCK_STREAM);
    let families = [libc::AF_INET, libc::AF_INET6]
        .map(|family| rule([(0, SeccompCmpOp::Eq, flag(family)), (1, SeccompCmpOp::MaskedEq(SOCKET_TYPE), stream)]));
    rules.insert(libc::SYS_socket, families.into_iter().collect::<Result<_, _>>()?);
    let own = u64::from(std::process::id());
    // To abort; and bounds that it may lower for itself.
    rules.insert(libc::SYS_tgkill, vec![rule([(0, SeccompCmpOp::Eq, own)])?]);
    rules.insert(libc::SYS_prlimit64, vec![rule([(0, SeccompCmpOp::Eq, 0)])?]);
    let requests = [libc::FIONBIO & 0xffff_ffff, PAGEMAP_SCAN].map(|request| rule([(1, SeccompCmpOp::Eq, request)]));
    rules.insert(libc::SYS_ioctl, requests.into_iter().collect::<Result<_, _>>()?);
    let options = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_DUMPABLE, libc::PR_GET_DUMPABLE, libc::PR_SET_VMA];
    let options = options.map(|option| rule([(0, SeccompCmpOp::Eq, flag(option))]));
    rules.insert(libc::SYS_prctl, options.into_iter().collect::<Result<_, _>>()?);
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()
}

fn flag(value: libc::c_int) -> u64 {
    u64::from(value.unsigned_abs())
}

/// All of these conditions on arguments.
fn rule<const N: usize>(conditions: [(u8, SeccompCmpOp, u64); N]) -> Result<SeccompRule, BackendError> {
    let conditions =
        conditions.map(|(argument, operation, value)| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value));
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_compiles_for_every_architecture_and_has_nothing_that_starts_or_reaches_another_process() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            program(arch).unwrap();
        }
        let never = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_kill,
            libc::SYS_pidfd_open,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_accept4,
            libc::SYS_io_uring_setup,
            libc::SYS_mount,
            libc::SYS_unlinkat,
            libc::SYS_seccomp,
        ];
        for call in never {
            assert!(!ALLOWED.contains(&call) && !ALLOWED_HERE.contains(&call), "{call}");
        }
        let unique: std::collections::BTreeSet<_> = ALLOWED.iter().chain(ALLOWED_HERE).collect();
        assert_eq!(unique.len(), ALLOWED.len() + ALLOWED_HERE.len());
    }
}
