//! Attacks from inside a container on the emulator's program, and through kernel features that namespaces do not
//! separate.

use super::*;

/// Changes mode and owner of every program file that it can reach through `/proc`, except its own, until it is killed.
/// With the argument `remove`, it first removes the dynamic linker, so that no other program starts.
const TAKE_OVER: &str = r#"
import os, sys
if sys.argv[1:] == ["remove"]:
    os.unlink(os.path.realpath(sys.argv[0]))
own = os.readlink("/proc/self/exe")
print("ready", flush=True)
while True:
    for pid in os.listdir("/proc"):
        exe = "/proc/" + pid + "/exe"
        try:
            if pid.isdigit() and os.readlink(exe) != own:
                os.chmod(exe, 0o4777)
                os.chown(exe, 1234, 1234)
        except OSError:
            pass
"#;

struct Attacker {
    pid: i32,
    _stdin: OwnedFd,
    _stdout: tokio::net::unix::pipe::Receiver,
}

/// Starts [`TAKE_OVER`] and waits until it is running.
async fn take_over(container: &Container, arguments: &[&str]) -> Attacker {
    let argv = [&["/usr/bin/python3", "-c", TAKE_OVER], arguments].concat();
    let Process { pid, stdin, stdout, .. } =
        container.spawn(ProcessSpec { merge_stderr: true, ..command(&argv) }).await.unwrap();
    let mut stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout).unwrap();
    let mut ready = [0; 6];
    tokio::time::timeout(PATIENCE, stdout.read_exact(&mut ready)).await.unwrap().unwrap();
    assert_eq!(&ready, b"ready\n");
    Attacker { pid, _stdin: stdin, _stdout: stdout }
}

/// Returns the attributes of a file that must not change.
fn attributes(path: &Path) -> (u32, u32, u32) {
    let found = fs::metadata(path).unwrap();
    (found.mode(), found.uid(), found.gid())
}

/// There are three ways to reach the program: while a process has not executed its own program yet; while the file tools
/// run as a function because their program cannot be loaded; and by executing `/proc/self/exe`, which is init's program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_of_the_emulator_keeps_mode_and_owner() {
    let parent = tempfile::tempdir().unwrap();
    let program = parent.path().join("program");
    fs::copy(PROGRAM, &program).unwrap();
    let before = attributes(&program);
    let engine = Engine::new(&parent.path().join("modal-emulator-1-test"), &program, false).unwrap();
    let check = |way: &str| assert_eq!(attributes(&program), before, "{way}");

    // A process of the emulator's program that waits for input, under a name that the container chose.
    let container = engine.start(spec("held")).await.unwrap();
    output(&container, "ln -s /proc/self/exe /tmp/modal-sandbox-fs-tools").await;
    for tools in ["/tmp/modal-sandbox-fs-tools", FS_TOOLS] {
        let held = container.spawn(command(&[tools, r#"{"WriteFile": {"path": "/tmp/x"}}"#])).await.unwrap();
        // Waits until the process has executed that program; then its file is accessible.
        let exe = format!("/proc/{}/exe", held.pid);
        let waits = format!(
            "until test -n \"$(readlink {exe})\"; do sleep 0.01; done; chmod 4777 {exe}; chown 1234 {exe}; true"
        );
        tokio::time::timeout(PATIENCE, output(&container, &waits)).await.unwrap();
        check(tools);
        container.kill(held.pid, libc::SIGKILL).await.unwrap();
        assert_eq!(held.exit.await.unwrap(), Exit::Signal(libc::SIGKILL), "{tools}");
    }

    // Processes that search for their program in very many directories before they execute it.
    let attacker = take_over(&container, &[]).await;
    for _ in 0..10 {
        let slow = ProcessSpec { env: vec![("PATH".into(), "x:".repeat(30_000).into())], ..command(&["no-program"]) };
        assert_eq!(run(&container, slow).await.0, Exit::Code(127));
    }
    container.kill(attacker.pid, libc::SIGKILL).await.unwrap();
    check("before a process becomes another program");

    // No program can be loaded any more, so the file tools are called as a function instead of executed.
    let container = engine.start(spec("unloadable")).await.unwrap();
    let loader = "/lib64/ld-linux-x86-64.so.2";
    let loader = if Path::new(loader).exists() { loader } else { "/lib/ld-linux-aarch64.so.1" };
    let script = format!("import sys; sys.argv = ['{loader}', 'remove']\n{TAKE_OVER}");
    let remover = ProcessSpec { merge_stderr: true, ..command(&["/usr/bin/python3", "-c", &script]) };
    let Process { stdout, stdin: _stdin, .. } = container.spawn(remover).await.unwrap();
    let mut stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout).unwrap();
    let mut ready = [0; 6];
    tokio::time::timeout(PATIENCE, stdout.read_exact(&mut ready)).await.unwrap().unwrap();
    assert_eq!(&ready, b"ready\n");
    for number in 0..20 {
        let argument = format!(r#"{{"WriteFile": {{"path": "/tmp/{number}"}}}}"#);
        let (exit, _, errors) = run(&container, command(&[FS_TOOLS, &argument])).await;
        assert_eq!(exit, Exit::Code(0), "{errors}");
    }
    check("while the file tools are called");

    // The changes of the copy that runs inside must not prevent other containers from starting.
    let other = engine.start(spec("other")).await.unwrap();
    output(&other, "true").await;
    engine.shutdown().await;
}

/// Sockets of address families that are not separated by network namespaces would reach the machine or its host.
#[tokio::test]
async fn only_sockets_of_the_container_can_be_made() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let script = r#"
import ctypes, errno, socket
VSOCK, ALG, TIPC, RDS, QIPCRTR = 40, 38, 30, 21, 42
for family in VSOCK, ALG, TIPC, RDS, QIPCRTR:
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET:
        try:
            socket.socket(family, kind)
            print("made:", family, kind)
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                print(family, kind, error)
libc = ctypes.CDLL(None, use_errno=True)
# By way of a ring, sockets would be made without the system call for it.
if libc.syscall(425, 8, ctypes.create_string_buffer(256)) != -1 or ctypes.get_errno() != errno.ENOSYS:
    print("io_uring_setup:", ctypes.get_errno())
for family in socket.AF_UNIX, socket.AF_INET, socket.AF_INET6:
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        socket.socket(family, kind).close()
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()
socket.socketpair()
"#;
    let (exit, out, errors) = run(&container, command(&["/usr/bin/python3", "-c", script])).await;
    assert_eq!((exit, out.as_str(), errors.as_str()), (Exit::Code(0), "", ""));
    // Programs can still change their user.
    if is_root() {
        let status = output(&container, "grep NoNewPrivs /proc/self/status | cut -f2").await;
        assert_eq!(status, "0");
    }
}
