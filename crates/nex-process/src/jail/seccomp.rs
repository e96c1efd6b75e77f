//! System calls that no workload needs and many escapes did; each answers EPERM, as it would without privileges.
//!
//! A deny list, not an allow list: workloads are arbitrary programs. The list is about attack surface; what
//! holds a process are the layers before. `clone3` answers ENOSYS because its flags are out of a filter's sight: every C
//! library then uses `clone`, whose flags are checked.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter, sock_filter,
};

use super::error::JailError;
use crate::confinement::Layer;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Numbers that are younger than the library's list, the same on every architecture.
const STATMOUNT: i64 = 457;
const LISTMOUNT: i64 = 458;
const OPEN_TREE_ATTR: i64 = 467;

/// Forbidden with any arguments.
const FORBIDDEN: &[i64] = &[
    // The file system's shape, and files by number instead of by name.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    STATMOUNT,
    LISTMOUNT,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // Namespaces.
    libc::SYS_unshare,
    libc::SYS_setns,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The kernel itself, and those of its parts where most holes were found.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    // The host as a whole.
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
];

#[cfg(target_arch = "x86_64")]
const FORBIDDEN_HERE: &[i64] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
#[cfg(target_arch = "aarch64")]
const FORBIDDEN_HERE: &[i64] = &[libc::SYS_kexec_file_load];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const FORBIDDEN_HERE: &[i64] = &[];

/// Every flag by which `clone` would make a namespace.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// The socket families a workload may open; the others reach drivers and kernel services.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Execution domains that programs ask for or query; the rest weaken the process or are attack surface.
const PERSONALITIES: [u64; 2] = [0, 0xffff_ffff];

/// Applies the filters to this thread and everything it will start.
pub(super) fn restrict() -> Result<Layer, JailError> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(Layer::Missing { reason: format!("no system call list for {}", std::env::consts::ARCH) });
    };
    let failed = |source: io::Error| JailError::Step {
        step: "filtering system calls",
        advice: "use a kernel with CONFIG_SECCOMP_FILTER",
        source,
    };
    let programs = programs(arch).map_err(|error| failed(io::Error::other(error)))?;
    for program in &programs {
        match apply_filter(program) {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(error)) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => {
                return Ok(Layer::Missing { reason: "this kernel has no seccomp filters".to_owned() });
            }
            Err(error) => return Err(failed(io::Error::other(error))),
        }
    }
    Ok(Layer::Held)
}

fn programs(arch: TargetArch) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let errno = |number: libc::c_int| SeccompAction::Errno(number.unsigned_abs());
    let absent = Rules::from([(libc::SYS_clone3, Vec::new())]);
    Ok(vec![
        SeccompFilter::new(absent, SeccompAction::Allow, errno(libc::ENOSYS), arch)?.try_into()?,
        SeccompFilter::new(forbidden()?, SeccompAction::Allow, errno(libc::EPERM), arch)?.try_into()?,
        foreign_numbers(),
    ])
}

fn forbidden() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = FORBIDDEN.iter().chain(FORBIDDEN_HERE).map(|number| (*number, Vec::new())).collect();
    let mut clone = Vec::new();
    for flag in NAMESPACES {
        let flag = u64::from(flag.unsigned_abs());
        clone.push(SeccompRule::new(vec![dword(0, SeccompCmpOp::MaskedEq(flag), flag)?])?);
    }
    rules.insert(libc::SYS_clone, clone);
    rules.insert(libc::SYS_mknodat, devices(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, devices(1)?);
    let families = FAMILIES.iter().map(|family| dword(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs())));
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(families.collect::<Result<_, _>>()?)?]);
    // Only Unix sockets come in pairs that anybody needs.
    rules.insert(
        libc::SYS_socketpair,
        vec![SeccompRule::new(vec![dword(0, SeccompCmpOp::Ne, u64::from(libc::AF_UNIX.unsigned_abs()))?])?],
    );
    let personalities = PERSONALITIES.iter().map(|domain| dword(0, SeccompCmpOp::Ne, *domain));
    rules.insert(libc::SYS_personality, vec![SeccompRule::new(personalities.collect::<Result<_, _>>()?)?]);
    // Injecting input into a shared terminal.
    let typing = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| -> Result<_, seccompiler::BackendError> {
        SeccompRule::new(vec![dword(1, SeccompCmpOp::Eq, request & 0xffff_ffff)?])
    });
    rules.insert(libc::SYS_ioctl, typing.into_iter().collect::<Result<_, _>>()?);
    Ok(rules)
}

fn devices(mode_argument: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let kind = u64::from(libc::S_IFMT);
    [libc::S_IFCHR, libc::S_IFBLK]
        .into_iter()
        .map(|device| SeccompRule::new(vec![dword(mode_argument, SeccompCmpOp::MaskedEq(kind), u64::from(device))?]))
        .collect()
}

fn dword(argument: u8, operation: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value)
}

/// Refuses numbers with bit 30 set. On x86-64 those are the x32 calls: the same kernel functions under numbers that the other
/// filters do not know, and with the same architecture mark.
fn foreign_numbers() -> BpfProgram {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k };
    vec![
        // The system call's number is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, 0x4000_0000),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_compiles_for_every_architecture_and_names_no_call_twice() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            assert_eq!(programs(arch).unwrap().len(), 3);
        }
        let plain = FORBIDDEN.len() + FORBIDDEN_HERE.len();
        let unique: std::collections::BTreeSet<_> = FORBIDDEN.iter().chain(FORBIDDEN_HERE).collect();
        assert_eq!(unique.len(), plain);
    }
}
