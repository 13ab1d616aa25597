//! The seccomp filter for the system calls that a container's processes may not use.
//!
//! Most socket families are bound to a network namespace, but some are not: `AF_VSOCK` reaches the host of a virtual
//! machine from every namespace. The filter permits only the families that containers need; all others fail as on a
//! kernel that does not support them. `io_uring` is not available, because it can create sockets without the `socket`
//! system call.
//!
//! The filter does not block all dangerous system calls: the rest of the kernel stays reachable.

use std::io;

use crate::sys;

/// The permitted socket families. They belong to the container's network namespace or to its files.
const FAMILIES: [i32; 5] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET];

/// The number is the same on all architectures.
const IO_URING_SETUP: u32 = 425;

/// A system call ABI, identified as in `seccomp_data` (linux/audit.h).
struct Abi {
    arch: u32,
    socket: u32,
    /// The multiplexing call that passes the arguments of `socket` in memory, which a filter cannot read.
    socketcall: Option<u32>,
}

/// The ABIs that programs on this architecture can use.
#[cfg(target_arch = "x86_64")]
const ABIS: [Abi; 2] = [
    Abi { arch: 0xc000_003e, socket: libc::SYS_socket as u32, socketcall: None },
    Abi { arch: 0x4000_0003, socket: 359, socketcall: Some(102) },
];
#[cfg(target_arch = "aarch64")]
const ABIS: [Abi; 2] = [
    Abi { arch: 0xc000_00b7, socket: libc::SYS_socket as u32, socketcall: None },
    Abi { arch: 0x4000_0028, socket: 281, socketcall: Some(102) },
];
#[cfg(target_arch = "riscv64")]
const ABIS: [Abi; 1] = [Abi { arch: 0xc000_00f3, socket: libc::SYS_socket as u32, socketcall: None }];

/// The bit that marks system calls of the x32 ABI, which has the same architecture value as x86-64.
const X32: u32 = 0x4000_0000;

// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
/// The lower half of the first argument: socket families are 32-bit numbers.
const FIRST: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

fn step(code: u32, value: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: yes, jf: no, k: value }
}

/// Adds instructions that return `answer` if the accumulator equals `what`, and continue with the next instruction
/// otherwise.
fn answer_if(what: u32, answer: u32, program: &mut Vec<libc::sock_filter>) {
    program.extend([step(EQUAL, what, 0, 1), step(RETURN, answer, 0, 0)]);
}

/// Returns the filter program.
fn program() -> Vec<libc::sock_filter> {
    let refuse = |errno: i32| libc::SECCOMP_RET_ERRNO | errno as u32;
    let mut all = Vec::new();
    for abi in ABIS {
        let mut calls = vec![step(LOAD, NUMBER, 0, 0)];
        if cfg!(target_arch = "x86_64") {
            calls.push(step(AND, !X32, 0, 0));
        }
        answer_if(IO_URING_SETUP, refuse(libc::ENOSYS), &mut calls);
        if let Some(number) = abi.socketcall {
            // Its first argument selects the operation; 1 is `socket`.
            let mut by_memory = vec![step(LOAD, FIRST, 0, 0)];
            answer_if(1, refuse(libc::EAFNOSUPPORT), &mut by_memory);
            by_memory.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
            calls.push(step(EQUAL, number, 0, by_memory.len() as u8));
            calls.extend(by_memory);
        }
        calls.extend([
            step(EQUAL, abi.socket, 1, 0),
            step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
            step(LOAD, FIRST, 0, 0),
        ]);
        for family in FAMILIES {
            answer_if(family as u32, libc::SECCOMP_RET_ALLOW, &mut calls);
        }
        calls.push(step(RETURN, refuse(libc::EAFNOSUPPORT), 0, 0));
        all.extend([step(LOAD, ARCH, 0, 0), step(EQUAL, abi.arch, 0, calls.len() as u8)]);
        all.extend(calls);
    }
    // System calls of unknown ABIs fail, because the filter cannot interpret them.
    all.push(step(RETURN, refuse(libc::ENOSYS), 0, 0));
    all
}

/// Installs the filter for the calling process and all processes that it starts. Requires `CAP_SYS_ADMIN` in the user
/// namespace: the alternative, `no_new_privs`, would keep programs in the container from changing their user.
pub(crate) fn install() -> io::Result<()> {
    sys::set_filter(&mut program())
}
