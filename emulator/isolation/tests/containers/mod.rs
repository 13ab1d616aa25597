//! Tests of containers through the public interface of the crate: real processes of real programs, seen from inside and
//! outside.

mod escape;
mod mounts;

use std::{
    ffi::OsString,
    fs,
    io::BufRead,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use container_isolation::{Bind, Container, ContainerSpec, End, Engine, Exit, Process, ProcessSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Timeout of single steps. Nothing takes longer on a busy machine; without a timeout, a hang would look like a slow
/// test.
const PATIENCE: Duration = Duration::from_secs(120);

const PROGRAM: &str = env!("CARGO_BIN_EXE_container-roles");

const FS_TOOLS: &str = "/__modal/.bin/modal-sandbox-fs-tools";

struct Machine {
    engine: Engine,
    parent: tempfile::TempDir,
}

fn engine_in(parent: &Path, name: &str) -> Engine {
    Engine::new(&parent.join(format!("modal-emulator-{name}")), Path::new(PROGRAM), false).unwrap()
}

fn machine() -> Machine {
    let parent = tempfile::tempdir().unwrap();
    Machine { engine: engine_in(parent.path(), "1-test"), parent }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Polls a condition until it is true. Panics after [`PATIENCE`].
async fn until(what: &str, so: impl Fn() -> bool) {
    let asking = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

fn spec(id: &str) -> ContainerSpec {
    ContainerSpec { id: id.into(), hostname: format!("{id}-host"), ..Default::default() }
}

fn command(argv: &[&str]) -> ProcessSpec {
    ProcessSpec { argv: argv.iter().map(OsString::from).collect(), ..Default::default() }
}

fn shell(script: &str) -> ProcessSpec {
    command(&["/bin/sh", "-c", script])
}

async fn read_all(fd: OwnedFd) -> String {
    let mut reader = tokio::net::unix::pipe::Receiver::from_owned_fd(fd).unwrap();
    let mut text = Vec::new();
    reader.read_to_end(&mut text).await.unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// Waits until a process has ended. Returns its exit, its output and its errors.
async fn finish(process: Process) -> (Exit, String, String) {
    let Process { stdin, stdout, stderr, exit, .. } = process;
    drop(stdin);
    let all = async {
        let errors = async {
            match stderr {
                Some(stderr) => read_all(stderr).await,
                None => String::new(),
            }
        };
        let (output, errors, exit) = tokio::join!(read_all(stdout), errors, exit);
        (exit.unwrap(), output, errors)
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap()
}

async fn run(container: &Container, spec: ProcessSpec) -> (Exit, String, String) {
    finish(container.spawn(spec).await.unwrap()).await
}

/// Returns the output of a script, which must succeed.
async fn output(container: &Container, script: &str) -> String {
    let (exit, output, errors) = run(container, shell(script)).await;
    assert_eq!(exit, Exit::Code(0), "{script}: {output}{errors}");
    output.trim_end().to_owned()
}

#[tokio::test]
async fn processes_end_as_they_end() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    assert_eq!(run(&container, command(&["true"])).await.0, Exit::Code(0));
    assert_eq!(run(&container, shell("exit 7")).await.0, Exit::Code(7));
    assert_eq!(run(&container, shell("kill -TERM $$")).await.0, Exit::Signal(libc::SIGTERM));
    // A real-time signal, for which few libraries have a name.
    assert_eq!(run(&container, shell("kill -40 $$")).await.0, Exit::Signal(40));
    let (exit, out, err) = run(&container, shell("echo out; echo err >&2")).await;
    assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Code(0), "out\n", "err\n"));
    let merged = ProcessSpec { merge_stderr: true, ..shell("echo out; echo err >&2") };
    assert_eq!(run(&container, merged).await, (Exit::Code(0), "out\nerr\n".into(), String::new()));
}

/// Starts a script and waits until it has printed something that begins with `r`.
async fn ready(container: &Container, script: &str) -> Process {
    let process = container.spawn(shell(script)).await.unwrap();
    let mut stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(process.stdout).unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, stdout.read_u8()).await.unwrap().unwrap(), b'r');
    Process { stdout: stdout.into_nonblocking_fd().unwrap(), ..process }
}

#[tokio::test]
async fn a_program_that_is_being_written_is_executed_afterwards() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let writer = ready(&container, "cp /bin/true /tmp/p; exec 3>>/tmp/p; echo ready; sleep 1").await;
    assert_eq!(run(&container, command(&["/tmp/p"])).await.0, Exit::Code(0));
    assert_eq!(finish(writer).await.0, Exit::Code(0));
    let writer = ready(&container, "exec 3>>/tmp/p; echo ready; read line").await;
    let (exit, _, err) = run(&container, command(&["/tmp/p"])).await;
    assert_eq!((exit, err.as_str()), (Exit::Code(126), "/tmp/p: Text file busy\n"));
    finish(writer).await;
}

/// They may be hard links to the machine's files.
#[tokio::test]
async fn files_of_the_package_database_change_only_inside() {
    let files = fs::read_dir("/var/lib/dpkg/info").into_iter().flatten().flatten().map(|entry| entry.path());
    let Some(file) = files.into_iter().find(|file| file.extension().is_some_and(|kind| kind == "list")) else {
        // The machine does not use dpkg.
        return;
    };
    let state = || {
        let found = fs::metadata(&file).unwrap();
        (found.mode(), found.uid(), found.modified().unwrap(), fs::read(&file).unwrap())
    };
    let before = state();
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let path = file.display();
    let script = format!("chmod 600 '{path}' && echo changed >>'{path}' && tail -n 1 '{path}' && stat -c %a '{path}'");
    assert_eq!(output(&container, &script).await, "changed\n600");
    assert!(state() == before, "{path} of the machine has changed");
    drop(container);
    drop(machine);
    assert!(state() == before, "{path} of the machine has changed");
}

/// For example while a new version is being installed.
#[tokio::test]
async fn containers_start_after_the_program_was_removed() {
    let parent = tempfile::tempdir().unwrap();
    let program = parent.path().join("program");
    fs::copy(PROGRAM, &program).unwrap();
    let engine = Engine::new(&parent.path().join("modal-emulator-1-test"), &program, false).unwrap();
    fs::remove_file(&program).unwrap();
    let container = engine.start(spec("a")).await.unwrap();
    assert_eq!(run(&container, command(&["test", "-x", FS_TOOLS])).await.0, Exit::Code(0));
}

#[tokio::test]
async fn what_cannot_be_run_says_so() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let (exit, _, err) = run(&container, command(&["no-such-program"])).await;
    assert_eq!((exit, err.as_str()), (Exit::Code(127), "no-such-program: not found\n"));
    assert_eq!(run(&container, command(&["/no/such/program"])).await.0, Exit::Code(127));
    assert_eq!(run(&container, command(&[""])).await.0, Exit::Code(127));
    assert_eq!(run(&container, command(&["/etc/passwd"])).await.0, Exit::Code(126));
    output(&container, "printf x > /tmp/garbage; chmod +x /tmp/garbage").await;
    assert_eq!(run(&container, command(&["/tmp/garbage"])).await.0, Exit::Code(126));
    let lost = ProcessSpec { cwd: "/no/such/place".into(), ..command(&["true"]) };
    let (exit, _, err) = run(&container, lost).await;
    assert_eq!(exit, Exit::Code(127));
    assert!(err.starts_with("cannot change to /no/such/place"), "{err}");
    let stranger = ProcessSpec { user: Some("nobody-knows".into()), ..command(&["true"]) };
    let (exit, _, err) = run(&container, stranger).await;
    assert_eq!(exit, Exit::Code(126));
    assert!(err.contains("nobody-knows"), "{err}");
    assert!(container.spawn(command(&[])).await.is_err());
    assert!(container.spawn(command(&["a\0b"])).await.is_err());
}

#[tokio::test]
async fn input_arrives_and_ends() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let Process { stdin, stdout, exit, .. } = container.spawn(command(&["cat"])).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let mut stdin = tokio::net::unix::pipe::Sender::from_owned_fd(stdin).unwrap();
    let mut stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout).unwrap();
    let write = async {
        stdin.write_all(&sent).await.unwrap();
        drop(stdin);
    };
    let mut received = Vec::new();
    let both = async { tokio::join!(write, stdout.read_to_end(&mut received)) };
    tokio::time::timeout(PATIENCE, both).await.unwrap().1.unwrap();
    assert!(received == sent);
    assert_eq!(exit.await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn a_process_has_what_it_was_given_and_nothing_else() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let (_, environment, _) =
        run(&container, ProcessSpec { env: vec![("A".into(), "b c".into())], ..command(&["env"]) }).await;
    assert_eq!(environment, "A=b c\nHOME=/root\n");
    let own = ProcessSpec { env: vec![("HOME".into(), "".into())], ..command(&["env"]) };
    assert_eq!(run(&container, own).await.1, "HOME=\n");
    let placed = ProcessSpec { cwd: "/usr/share".into(), ..command(&["pwd"]) };
    assert_eq!(run(&container, placed).await.1, "/usr/share\n");
    assert_eq!(output(&container, "ls /proc/self/fd | tr '\\n' ' '").await, "0 1 2 3");
    assert_eq!(
        output(&container, "grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f2 | sort -u").await,
        "0".repeat(16)
    );
    assert_eq!(output(&container, "hostname; cat /etc/hostname").await, "a-host\na-host");
    // Programs are searched in the `PATH` of the process, not in that of the machine.
    output(&container, "mkdir /p; printf '#!/bin/sh\necho mine' > /p/tool; chmod +x /p/tool").await;
    let found = ProcessSpec { env: vec![("PATH".into(), "/none:/p".into())], ..command(&["tool"]) };
    assert_eq!(run(&container, found).await.1, "mine\n");
    // Arguments of nearly the maximum length that the kernel accepts.
    let long = "x".repeat(120_000);
    let (_, output, _) = run(&container, command(&["printf", "%s%s", &long, &long])).await;
    assert_eq!(output.len(), 240_000);
}

#[tokio::test]
async fn users_are_switched() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let as_user = |user: &str| ProcessSpec { user: Some(user.into()), ..shell("id -u; id -g") };
    assert_eq!(run(&container, as_user("root")).await.1, "0\n0\n");
    if !is_root() {
        let (exit, _, err) = run(&container, as_user("nobody")).await;
        assert_eq!(exit, Exit::Code(126));
        assert!(err.contains("without privileges"), "{err}");
        return;
    }
    assert_eq!(run(&container, as_user("nobody")).await.1, "65534\n65534\n");
    assert_eq!(run(&container, as_user("4321:4322")).await.1, "4321\n4322\n");
    // The users come from the container's own account files.
    output(&container, "echo 'ann:x:4000:4001::/:/bin/sh' >> /etc/passwd").await;
    assert_eq!(run(&container, as_user("ann")).await.1, "4000\n4001\n");
    let (exit, ..) = run(&container, ProcessSpec { user: Some("ann".into()), ..shell("echo > /etc/x") }).await;
    assert_eq!(exit, Exit::Code(2));
}

#[tokio::test]
async fn a_terminal_is_one() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let script = "test -t 0 && test -t 1 && test -t 2 && tty && stty size && read line && echo got $line";
    let terminal = ProcessSpec { pty: Some((33, 77)), ..shell(script) };
    let Process { stdin, stdout, stderr, exit, .. } = container.spawn(terminal).await.unwrap();
    assert!(stderr.is_none());
    let (mut reader, mut writer) = (fs::File::from(stdout), fs::File::from(stdin));
    // Terminals are not pipes, so this uses blocking threads instead of the async runtime.
    for fd in [&reader, &writer] {
        let flags = nix::fcntl::OFlag::O_RDWR;
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    }
    std::io::Write::write_all(&mut writer, b"hello\n").unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        // Reading ends with an error once no process has the other side open.
        let _ = std::io::Read::read_to_end(&mut reader, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let text = tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert_eq!(exit.await.unwrap(), Exit::Code(0), "{text}");
    for part in ["/dev/pts/0", "33 77", "got hello"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn the_machine_cannot_be_seen() {
    let machine = machine();
    let here = machine.parent.path().to_str().unwrap();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let other = machine.engine.start(spec("b")).await.unwrap();
    assert_eq!(output(&container, "ls -A /home /tmp /var/tmp /mnt /srv /media /sys").await.matches('\n').count(), 12);
    // Root's home directory contains only the files of a distribution's image.
    let home = output(&container, "ls -A /root; cmp /root/.bashrc /usr/share/base-files/dot.bashrc; true").await;
    assert!(["", ".bashrc\n.profile"].contains(&home.as_str()), "{home}");
    assert_eq!(output(&container, &format!("test -e {here}; echo $?")).await, "1");
    // Only its own processes are visible: init and the shell.
    assert_eq!(output(&container, "cd /proc; set -- [0-9]*; echo $#").await, "2");
    assert_eq!(output(&container, "grep -c '[$]' /etc/shadow; true").await, "0");
    assert_eq!(output(&container, "cat /etc/machine-id; ls /etc/ssh /etc/ssl/private 2>/dev/null; true").await, "");
    assert_eq!(
        output(&container, "find /etc /opt -maxdepth 2 ! -perm -4 ! -type l 2>/dev/null | sort").await,
        "/etc/gshadow\n/etc/shadow"
    );
    // Files that one container writes are not visible in another one.
    output(&container, "echo a > /tmp/mine; echo a > /usr/mine; echo a > /dev/shm/mine").await;
    assert_eq!(output(&other, "ls /tmp /usr/mine /dev/shm 2>/dev/null; true").await, "/dev/shm:\n\n/tmp:");
    // Processes cannot change mounts, devices or kernel settings.
    for refused in [
        "mount -t tmpfs none /mnt",
        "umount /proc/sys",
        "mknod /tmp/disk b 8 0",
        "echo 1 > /proc/sys/kernel/printk",
        "cat /proc/1/environ /proc/1/maps",
        "ls -l /proc/1/root/ /proc/1/cwd/",
        "kill -KILL 1; test ! -d /proc/1",
        "touch /__modal/x",
        "chroot /proc/1/root true",
    ] {
        let (exit, out, _) = run(&container, shell(refused)).await;
        assert_ne!(exit, Exit::Code(0), "{refused}: {out}");
    }
}

/// Users' files in world-readable places and the environment of the emulator are not visible.
#[tokio::test]
async fn what_people_keep_stays_with_them() {
    // Created before the engine reads the machine's directories, and readable by every user.
    let word = format!("planted-{}", std::process::id());
    let mut planted = Vec::new();
    for place in ["/tmp", "/var/tmp", "/var/lib", "/root", "/home", "/srv", "/run", "/mnt"] {
        // Without privileges, only some of them are writable.
        if let Ok(directory) = tempfile::Builder::new().prefix("planted-").tempdir_in(place) {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(directory.path().join("secret"), &word).unwrap();
            planted.push(directory);
        }
    }
    assert!(planted.len() >= 2);
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let other = machine.engine.start(spec("b")).await.unwrap();
    output(&other, &format!("for place in /tmp /usr /etc /dev/shm; do echo {word} > $place/planted-other; done")).await;
    for directory in &planted {
        let path = directory.path().display();
        assert_eq!(output(&container, &format!("test -e {path}; echo $?")).await, "1", "{path}");
    }
    let found = "find / /usr /etc /opt /dev -xdev -name 'planted-*' 2>/dev/null; true";
    assert_eq!(output(&container, found).await, "");
    // Under `cargo test`, this process has variables that a shell does not have.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert_eq!(output(&container, "cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -c CARGO; true").await, "0");
    let own = std::env::args().next().unwrap();
    let own = std::path::Path::new(&own).file_name().unwrap().to_str().unwrap();
    assert_eq!(
        output(&container, &format!("cat /proc/[0-9]*/cmdline | grep -c '[{}]{}'; true", &own[..1], &own[1..])).await,
        "0"
    );
    // Accounts of human users are not copied, and system accounts have no passwords.
    assert_eq!(
        output(
            &container,
            "cut -d: -f3 /etc/passwd | awk '$1 >= 1000 && $1 != 65534'; grep -v ':[*]:' /etc/shadow; true"
        )
        .await,
        ""
    );
}

#[tokio::test]
async fn writes_stay_inside() {
    let machine = machine();
    let before = (fs::read("/etc/passwd").unwrap(), fs::read("/usr/bin/env").unwrap());
    let container = machine.engine.start(spec("a")).await.unwrap();
    let script = "rm /usr/bin/env && mkdir -p /usr/local/lib/new /data && echo x > /usr/local/lib/new/f && echo y > /data/f \
                  && echo evil > /etc/passwd && cat /usr/local/lib/new/f /data/f /etc/passwd && test ! -e /usr/bin/env";
    assert_eq!(output(&container, script).await, "x\ny\nevil");
    assert!(before == (fs::read("/etc/passwd").unwrap(), fs::read("/usr/bin/env").unwrap()));
    assert!(!Path::new("/usr/local/lib/new").exists() && !Path::new("/data/f").exists());
    let upper = container.upper();
    assert_eq!(fs::read(upper.join("data/f")).unwrap(), b"y\n");
    assert!(fs::symlink_metadata(upper.join("usr/bin/env")).unwrap().file_type().is_char_device());
}

/// A snapshot that is taken while the container is removed is either complete or fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_whole_or_none() {
    let machine = machine();
    for round in 0..5 {
        let container = machine.engine.start(spec(&format!("c{round}"))).await.unwrap();
        output(&container, "mkdir /data && cd /data && seq 1000 | xargs touch").await;
        let to = machine.parent.path().join(format!("layer{round}"));
        let (taken, removed) = tokio::join!(container.snapshot(&to), container.remove());
        removed.unwrap();
        if taken.is_ok() {
            assert_eq!(fs::read_dir(to.join("data")).unwrap().count(), 1000);
        }
    }
}

#[tokio::test]
async fn a_snapshot_is_a_layer() {
    let machine = machine();
    let first = machine.engine.start(spec("first")).await.unwrap();
    let script = "mkdir -p /data/dir/deep /data/gone && echo 1 > /data/dir/deep/old && echo 2 > /data/gone/f && rm /usr/bin/env \
                  && echo h > /data/one && ln /data/one /data/two && ln -s one /data/link && chmod 4751 /data/one \
                  && touch -d @1234567890 /data/one && mkfifo /data/fifo && chmod 1777 /data && echo 'k=v' > /etc/new.conf \
                  && mkdir /data/shut && echo s > /data/shut/f && chmod 0 /data/shut/f /data/shut";
    output(&first, script).await;
    let layers: Vec<PathBuf> = (0..2).map(|number| machine.parent.path().join(format!("layer:{number},"))).collect();
    first.snapshot(&layers[0]).await.unwrap();
    assert!(first.snapshot(&layers[0]).await.is_err(), "into a layer that is there already");

    let second = machine.engine.start(ContainerSpec { layers: layers[..1].to_vec(), ..spec("second") }).await.unwrap();
    let check = "stat -c '%a %Y %h' /data/one; stat -c %a /data; readlink /data/link; test -p /data/fifo; cat /data/two /etc/new.conf; \
                 test -e /usr/bin/env; echo $?; hostname";
    assert_eq!(output(&second, check).await, "4751 1234567890 2\n1777\none\nh\nk=v\n1\nsecond-host");
    // A directory that was removed and created again must not show entries of the layer below.
    output(&second, "rm -r /data/dir /data/gone && mkdir -p /data/dir/deep && echo new > /data/dir/deep/new").await;
    second.snapshot(&layers[1]).await.unwrap();
    second.remove().await.unwrap();
    assert!(!second.upper().exists());

    let third = machine.engine.start(ContainerSpec { layers: layers.clone(), ..spec("third") }).await.unwrap();
    assert_eq!(
        output(&third, "ls -R /data/dir; ls -d /data/gone 2>&1 | wc -l; cat /data/one; test -e /usr/bin/env; echo $?")
            .await,
        "/data/dir:\ndeep\n\n/data/dir/deep:\nnew\n1\nh\n1"
    );
    assert_eq!(output(&third, "stat -c %a /data/shut; chmod 700 /data/shut; stat -c %a /data/shut/f; chmod 400 /data/shut/f; cat /data/shut/f").await, "0\n0\ns");
    // The layers were not changed.
    output(&third, "echo changed > /data/one").await;
    assert_eq!(fs::read(layers[0].join("data/one")).unwrap(), b"h\n");
    assert_eq!(fs::metadata(layers[0].join("data/one")).unwrap().mtime(), 1_234_567_890);
}

#[tokio::test]
async fn an_image_from_nothing_has_the_file_tools_only() {
    let machine = machine();
    let container = machine.engine.start(ContainerSpec { from_scratch: true, ..spec("a") }).await.unwrap();
    assert_eq!(run(&container, command(&["/bin/sh"])).await.0, Exit::Code(127));
    let (exit, listed, _) = run(&container, command(&[FS_TOOLS, r#"{"ListFiles": {"path": "/"}}"#])).await;
    assert_eq!(exit, Exit::Code(0));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["__modal", "dev", "etc", "proc", "root", "sys", "tmp"]);
}

#[tokio::test]
async fn the_file_tools_are_there_for_clients_and_for_scripts() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let argument = r#"{"WriteFile": {"path": "/w/x"}}"#;
    let Process { stdin, exit, .. } = container.spawn(command(&[FS_TOOLS, argument])).await.unwrap();
    let mut stdin = tokio::net::unix::pipe::Sender::from_owned_fd(stdin).unwrap();
    stdin.write_all(b"content").await.unwrap();
    drop(stdin);
    assert_eq!(exit.await.unwrap(), Exit::Code(0));
    assert_eq!(output(&container, "ls -A /w; stat -c %a /w/x; cat /w/x").await, "x\n644\ncontent");
    assert_eq!(output(&container, &format!("{FS_TOOLS} '{{\"ReadFile\": {{\"path\": \"/w/x\"}}}}'")).await, "content");
    if is_root() {
        // The tools run as the user of the exec, even if they are called as a function instead of executed.
        let write = command(&[FS_TOOLS, r#"{"WriteFile": {"path": "/tmp/d/n"}}"#]);
        let (exit, _, err) = run(&container, ProcessSpec { user: Some("nobody".into()), ..write.clone() }).await;
        assert_eq!((exit, err.as_str()), (Exit::Code(0), ""));
        assert_eq!(
            output(&container, "stat -c '%U %a' /tmp/d/n; chmod 755 /tmp/d; chown 0 /tmp/d/n").await,
            "nobody 644"
        );
        let (_, _, err) = run(&container, ProcessSpec { user: Some("nobody".into()), ..write }).await;
        assert!(err.contains(r#""error_kind":"PermissionDenied""#), "{err}");
    }
    let (exit, _, err) = run(&container, command(&[FS_TOOLS, r#"{"Stat": {"path": "/none"}}"#])).await;
    assert_eq!(exit, Exit::Code(1));
    assert!(err.contains(r#""error_kind":"NotFound""#), "{err}");
}

#[tokio::test]
async fn directories_of_the_machine_are_mounted() {
    let machine = machine();
    let (free, fixed) = (machine.parent.path().join("free"), machine.parent.path().join("fixed"));
    for volume in [&free, &fixed] {
        fs::create_dir(volume).unwrap();
        fs::write(volume.join("f"), "there").unwrap();
    }
    let bind =
        |source: &PathBuf, target: &str| Bind { source: source.clone(), target: target.into(), ..Default::default() };
    let binds = vec![bind(&free, "/mnt/free"), Bind { read_only: true, ..bind(&fixed, "/not/yet/there") }];
    let container = machine.engine.start(ContainerSpec { binds, ..spec("a") }).await.unwrap();
    assert_eq!(output(&container, "echo new > /mnt/free/g; cat /mnt/free/f /not/yet/there/f").await, "therethere");
    assert_eq!(run(&container, shell("echo x > /not/yet/there/g")).await.0, Exit::Code(2));
    // Only a subdirectory is mounted. It is created if it does not exist.
    let part = Bind { inside: "a/b".into(), ..bind(&free, "/part") };
    let second = machine.engine.start(ContainerSpec { binds: vec![part.clone()], ..spec("b") }).await.unwrap();
    output(&second, "echo below > /part/h").await;
    assert_eq!(output(&container, "cat /mnt/free/a/b/h; rm -r /mnt/free/a; ln -s / /mnt/free/a").await, "below");
    // A link that a container has created in the meantime is not followed.
    let error = machine.engine.start(ContainerSpec { binds: vec![part], ..spec("c") }).await.unwrap_err();
    assert!(format!("{error:#}").contains("open a/b"), "{error:#}");
    container.remove().await.unwrap();
    assert_eq!(fs::read(free.join("g")).unwrap(), b"new\n");
    assert_eq!(fs::read(fixed.join("f")).unwrap(), b"there");
}

#[tokio::test]
async fn the_network_is_its_own() {
    let machine = machine();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = command(&["bash", "-c", &format!("echo > /dev/tcp/127.0.0.1/{port}")]);
    let alone = machine.engine.start(spec("alone")).await.unwrap();
    let (exit, _, err) = run(&alone, connect).await;
    // Refused, not unreachable: the loopback interface is up, and no process listens on the port.
    assert!(exit == Exit::Code(1) && err.contains("refused"), "{err}");
}

#[tokio::test]
async fn a_kill_takes_the_whole_tree() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    // With job control, each job has its own process group within the session.
    let jobs = command(&["bash", "-mc", "sleep 1000 & sh -c 'sleep 1000; true' & echo ready; wait"]);
    let Process { pid, stdout, exit, stdin: _stdin, stderr: _stderr } = container.spawn(jobs).await.unwrap();
    let mut ready = [0; 6];
    let mut stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout).unwrap();
    stdout.read_exact(&mut ready).await.unwrap();
    container.kill(pid, libc::SIGKILL).await.unwrap();
    assert_eq!(exit.await.unwrap(), Exit::Signal(libc::SIGKILL));
    // The stream ends when no process has the other side open any more.
    tokio::time::timeout(PATIENCE, stdout.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    // A killed process has its entry in /proc until its parent has waited for it.
    let begun = std::time::Instant::now();
    while output(&container, "cat /proc/[0-9]*/comm | grep -c sleep; true").await != "0" {
        assert!(begun.elapsed() < PATIENCE, "a process of the killed tree is left");
    }
    container.kill(pid, libc::SIGTERM).await.unwrap();
    assert!(container.kill(pid, 1000).await.is_err());
}

#[tokio::test]
async fn stopping_ends_and_removes_everything() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    assert!(machine.engine.start(spec("a")).await.is_err(), "twice the same id");
    assert!(machine.engine.start(spec("../a")).await.is_err(), "an id that is a path");
    let process = container.spawn(shell("trap '' TERM HUP; setsid sleep 1000 & sleep 1000")).await.unwrap();
    tokio::time::timeout(PATIENCE, container.stop()).await.unwrap();
    assert!(process.exit.await.is_err());
    assert_eq!(container.ended().await, End::Over);
    assert!(container.spawn(command(&["true"])).await.is_err());
    assert!(container.kill(process.pid, 9).await.is_err());
    let directory = container.upper().parent().unwrap().to_owned();
    until("work directories are removed", || fs::read_dir(&directory).unwrap().count() == 1).await;

    let dropped = machine.engine.start(spec("b")).await.unwrap();
    let process = dropped.spawn(command(&["sleep", "1000"])).await.unwrap();
    drop(dropped);
    assert!(tokio::time::timeout(PATIENCE, process.exit).await.unwrap().is_err());

    let last = machine.engine.start(spec("c")).await.unwrap();
    machine.engine.shutdown().await;
    machine.engine.shutdown().await;
    assert_eq!(last.ended().await, End::Over);
    assert!(machine.engine.start(spec("d")).await.is_err());
    let state = machine.parent.path().join("modal-emulator-1-test");
    assert!(!state.join("containers").exists());
    drop((container, last, machine.engine));
    until("the state directory is removed", || !state.exists()).await;
}

#[tokio::test]
async fn limits_hold() {
    let machine = machine();
    let missing = machine.engine.limits_missing().join("\n");
    let limited = ContainerSpec { memory_limit: Some(64 << 20), cpu_limit: Some(100), ..spec("a") };
    let container = machine.engine.start(limited).await.unwrap();
    assert!(!container.oom_killed());
    if !missing.contains("memory limits") {
        // One process, so that no other one can be killed in its place.
        let (exit, ..) = run(&container, shell("dd if=/dev/zero of=/dev/null bs=150M count=1; exit $?")).await;
        assert_eq!(exit, Exit::Code(128 + libc::SIGKILL));
        assert!(container.oom_killed());
        // The container itself keeps running.
        output(&container, "true").await;
    }
    if !missing.contains("processor limits") {
        // With a tenth of a processor, a second of work takes many seconds.
        let script = "timeout 1 sh -c 'while :; do :; done'; awk '{print $16 + $17}' /proc/self/stat";
        let spent: f64 = output(&container, &format!("({script})")).await.parse().unwrap_or(0.0);
        assert!(spent < 50.0, "{spent} hundredths of a second");
    }
    if !missing.contains("number of processes") {
        let bombed = machine.engine.start(spec("b")).await.unwrap();
        let bomb = command(&["bash", "-c", "exec 0<&- 1>&- 2>&-; while sleep 1000 & do :; done; sleep 1000"]);
        let Process { stdout, .. } = bombed.spawn(bomb).await.unwrap();
        // The bomb closes its streams first.
        read_all(stdout).await;
        let refused = async { while bombed.spawn(command(&["true"])).await.is_ok() {} };
        tokio::time::timeout(PATIENCE, refused).await.unwrap();
        tokio::time::timeout(PATIENCE, bombed.stop()).await.unwrap();
    }
    tokio::time::timeout(PATIENCE, container.stop()).await.unwrap();
}

#[tokio::test]
async fn hundreds_at_a_time() {
    let machine = machine();
    let starts = (0..20).map(|number| machine.engine.start(spec(&format!("c{number}"))));
    let containers: Vec<_> = futures_util::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
    let runs = (0..400).map(|number| {
        let container = &containers[number % containers.len()];
        async move { (number, run(container, shell(&format!("read x; exit {}", number % 100))).await.0) }
    });
    for (number, exit) in futures_util::future::join_all(runs).await {
        // Their input ends at once, so `read` fails, and then they exit with their number.
        assert_eq!(exit, Exit::Code(number as i32 % 100));
    }
}

/// Not a separate test: runs the emulator that the next test kills.
#[tokio::test]
async fn an_emulator_to_be_killed() {
    let Some(parent) = std::env::var_os("EMULATOR_TO_BE_KILLED") else { return };
    let engine = engine_in(Path::new(&parent), "2-killed");
    let container = engine.start(spec("a")).await.unwrap();
    let _process = container.spawn(command(&["sleep", "1000"])).await.unwrap();
    println!("it runs");
    std::future::pending::<()>().await;
}

/// Returns all descendants of a process.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

#[tokio::test]
async fn an_emulator_that_is_killed_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let living = engine_in(parent.path(), "1-living");
    let container = living.start(spec("a")).await.unwrap();
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "containers::an_emulator_to_be_killed", "--nocapture"])
        .env("EMULATOR_TO_BE_KILLED", parent.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    assert!(lines.any(|line| line.contains("it runs")));
    let processes = descendants(victim.id());
    assert_eq!(processes.len(), 2, "init and sleep");
    victim.kill().unwrap();
    victim.wait().unwrap();
    until("no process is left", || processes.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())).await;

    let leftovers = parent.path().join("modal-emulator-2-killed");
    assert!(leftovers.exists());
    let _next = engine_in(parent.path(), "3-next");
    assert!(!leftovers.exists());
    // The running emulator is not affected, and its state directory stays locked.
    output(&container, "echo x > /tmp/x").await;
    assert!(Engine::new(&parent.path().join("modal-emulator-1-living"), Path::new(PROGRAM), false).is_err());
}
