//! The system calls that a container's processes cannot make.
//!
//! Most kinds of sockets are bound to a network namespace. Others are not: `AF_VSOCK` reaches the host of a virtual machine
//! from every namespace. So only the kinds that a container has a use for can be made, and all others are answered as by a
//! kernel that does not know them. `io_uring` is not there, because it makes sockets without the system call for it.
//!
//! This is no filter of all that is dangerous: the rest of the kernel stays reachable.

use std::io;

use crate::sys;

/// Kinds of sockets that can be made: they belong to the container's own network or to its files.
const FAMILIES: [i32; 5] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET];

/// The same number on all architectures.
const IO_URING_SETUP: u32 = 425;

/// A set of system calls as `seccomp_data` names them: linux/audit.h.
struct Abi {
    arch: u32,
    socket: u32,
    /// The call that has the arguments of `socket` in memory, where a filter cannot look.
    socketcall: Option<u32>,
}

/// Those that programs of this machine may use.
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

/// Marks the calls of the x32 set, which has the architecture of x86-64.
const X32: u32 = 0x4000_0000;

// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
/// The lower half of the first argument: the families are 32-bit numbers.
const FIRST: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

fn step(code: u32, value: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: yes, jf: no, k: value }
}

/// Answers with a value if the accumulator is `what`, and goes on otherwise.
fn answer_if(what: u32, answer: u32, program: &mut Vec<libc::sock_filter>) {
    program.extend([step(EQUAL, what, 0, 1), step(RETURN, answer, 0, 0)]);
}

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
            // Its first argument says which call is meant; that of `socket` is 1.
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
    // Calls of another set: none that is known has been looked at.
    all.push(step(RETURN, refuse(libc::ENOSYS), 0, 0));
    all
}

/// Sets the filter for the calling process and all that it starts. It must have the capability for it (`CAP_SYS_ADMIN` in its
/// user namespace): the other way takes from all programs inside the possibility to change their user.
pub(crate) fn install() -> io::Result<()> {
    sys::set_filter(&mut program())
}
