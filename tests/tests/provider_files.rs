//! The file functions of the provider for Modal and of the host, with the emulator: what the checks of
//! `sandbox-host conformance` do not say, because it is not the same for other providers, or needs a sandbox that lies.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox_host::{
    FileFault, Kind, Result, Sandbox,
    types::{ExecSpec, ImageSpec, SandboxSpec, Verdict, WriteMode, WriteOptions},
};
use system_tests::{World, refused, sh, told};

/// Longer than a process takes to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(mode: WriteMode, permissions: Option<u32>) -> WriteOptions {
    WriteOptions { mode, permissions, ..WriteOptions::default() }
}

/// Returns the file fault of a call that must fail.
#[track_caller]
fn fault<T: std::fmt::Debug>(result: Result<T>) -> FileFault {
    let error = refused(result, &[]);
    error.file_fault().unwrap_or_else(|| panic!("not a file fault: {error:?}")).clone()
}

/// A local directory that is removed at the end of the test.
struct Local(PathBuf);

impl Local {
    fn new(name: &str) -> Local {
        let path = std::env::temp_dir().join(format!("sandbox-files-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("cannot create the directory");
        Local(path)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_invalid_part_of_a_path() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    for (path, word) in [("relative", "absolute"), ("", "absolute"), ("/nul\0", "NUL"), (&"/x".repeat(3000), "4096")] {
        refused(sandbox.read_file(path, 1).await, &[word]);
        refused(sandbox.stat(path, true).await, &[word]);
    }
    for target in ["", &"x".repeat(4096)] {
        refused(sandbox.make_symlink("/tmp/other", target).await, &["1 to 4095"]);
    }
    let write = |options| sandbox.write_file("/tmp/x", "1", options);
    refused(write(options(WriteMode::Replace, Some(0o10000))).await, &["twelve bits"]);
    let unknown = WriteOptions { extra: vec![("owner".into(), "\"x\"".into())], ..WriteOptions::default() };
    refused(write(unknown).await, &["owner"]);
    refused(sandbox.watch("/", "main", false, 0, Duration::ZERO).await, &["main"]);
    refused(sandbox.watch("/", "two words", false, 0, Duration::ZERO).await, &["two words"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_processes_of_an_aborted_write_end() -> Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    for (mode, permissions) in [
        (WriteMode::Replace, None),
        (WriteMode::Replace, Some(0o600)),
        (WriteMode::Append, None),
        (WriteMode::CreateNew, None),
    ] {
        let (mut writer, reader) = tokio::io::duplex(64);
        let upload = {
            let sandbox = sandbox.clone();
            tokio::spawn(async move { sandbox.upload("/a/f", reader, options(mode, permissions)).await })
        };
        // More than one chunk, so that some data has been sent.
        writer.write_all(&vec![b'n'; 5 << 20]).await.expect("cannot write to standard input");
        upload.abort();
        let _ = upload.await;
        // The kernel keeps 15 bytes of the name modal-sandbox-fs-tools.
        sh(&sandbox, "until ! pgrep -x cat && ! pgrep -x modal-sandbox-f; do :; done").await;
    }
    Ok(())
}

/// Requests and memory grow at most linearly with the size of the directory: all pages come from one listing instead of
/// one listing per page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_directory_is_listed_once() -> Result<()> {
    const ENTRIES: usize = 100_000;
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    sh(&sandbox, &format!("mkdir /many; cd /many; seq {ENTRIES} | xargs touch")).await;
    let mut expected: Vec<String> = (1..=ENTRIES).map(|number| number.to_string()).collect();
    expected.sort();
    // Fault rules without an effect are used to count calls.
    for method in ["TaskExecStart", "TaskExecStdioRead", "TaskExecWait"] {
        let count = serde_json::json!({ "method": method, "fault": { "delay": { "millis": 0 } } });
        world.emulator.chaos().add(serde_json::from_value(count).expect("invalid rule"));
    }
    let calls = || world.emulator.chaos().rules().iter().map(|(_, applied)| *applied).collect::<Vec<_>>();
    let mut pages = sandbox.directory_pages("/many");
    let (mut found, mut count) = (Vec::new(), 0);
    while let Some(page) = pages.next().await? {
        assert!(page.len() <= 10_000, "{}", page.len());
        count += 1;
        found.extend(page.into_iter().map(|entry| entry.name));
    }
    assert!(found == expected, "{} of {ENTRIES} entries", found.len());
    assert!((ENTRIES / 10_000..ENTRIES / 1000).contains(&(count as usize)), "{count} pages");
    let made = calls();
    // One helper process for the listing, and at most two connections per page: another instance continues a listing
    // that it did not start.
    assert_eq!(made[0], 1, "{made:?}");
    assert!(made[1] <= 2 * count && made[2] <= count, "{made:?}, {count} pages");
    let found: Vec<_> = sandbox.list_directory("/many").await?.into_iter().map(|entry| entry.name).collect();
    assert!(found == expected, "{} of {ENTRIES} entries", found.len());
    assert_eq!(calls()[0], 2);
    Ok(())
}

/// Returns test data whose bytes depend on their offset.
fn pattern(from: u64, length: usize) -> Vec<u8> {
    (from..from + length as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// A reader and writer that generates and checks the data of [`pattern`] without holding it in memory.
struct Pattern {
    at: u64,
    size: u64,
}

impl tokio::io::AsyncRead for Pattern {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let length = (self.size - self.at).min(buf.remaining() as u64).min(256 << 10) as usize;
        buf.put_slice(&pattern(self.at, length));
        self.at += length as u64;
        std::task::Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Pattern {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let length = data.len().min(256 << 10);
        if data[..length] != pattern(self.at, length) {
            return std::task::Poll::Ready(Err(std::io::Error::other(format!("wrong bytes after offset {}", self.at))));
        }
        self.at += length as u64;
        std::task::Poll::Ready(Ok(length))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// Returns the peak resident memory of this process, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("cannot read /proc/self/status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the line VmHWM is missing");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("not a number")
}

/// Transfers 1 GiB up and down. The measured memory is that of the host and the emulator; the emulator keeps unread
/// data in files.
#[test]
fn one_gibibyte_is_transferred_both_ways_in_constant_memory() -> Result<()> {
    // The test measures the memory of its process.
    system_tests::own_process::in_own_process_async(transfer_one_gibibyte()).unwrap_or(Ok(()))
}

async fn transfer_one_gibibyte() -> Result<()> {
    const SIZE: u64 = 1 << 30;
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    // A small transfer first, so that the measurement covers only the growth.
    sandbox.upload("/tmp/big", Pattern { at: 0, size: 16 << 20 }, WriteOptions::default()).await?;
    sandbox.download("/tmp/big", Pattern { at: 0, size: 16 << 20 }).await?;
    let before = peak_kib();
    let sent = sandbox.upload("/tmp/big", Pattern { at: 0, size: SIZE }, WriteOptions::default()).await?;
    assert_eq!(sent, SIZE);
    assert_eq!(sandbox.stat("/tmp/big", false).await?.size, SIZE);
    let mut check = Pattern { at: 0, size: SIZE };
    assert_eq!(sandbox.download("/tmp/big", &mut check).await?, SIZE);
    assert_eq!(check.at, SIZE);
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < 96 * 1024, "memory grew by {grown} KiB");
    sandbox.terminate().await
}

/// Returns path, kind, mode, and content or target of all entries below a directory.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("cannot read the directory") {
            let path = entry.expect("cannot read the directory").path();
            let meta = path.symlink_metadata().expect("cannot read the metadata");
            let mode = meta.permissions().mode() & 0o7777;
            let what = if meta.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).expect("cannot read the link").display())
            } else if meta.is_dir() {
                open.push(path.clone());
                format!("d {mode:o}")
            } else {
                format!(
                    "f {mode:o} {:?}",
                    String::from_utf8_lossy(&std::fs::read(&path).expect("cannot read the file"))
                )
            };
            found.insert(
                path.strip_prefix(root).expect("the entry is not below the directory").to_string_lossy().into_owned(),
                what,
            );
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_tree_needs_one_command_each_way() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let local = Local::new("tree");
    let (from, back) = (local.0.join("from"), local.0.join("back"));
    std::fs::create_dir_all(&from).expect("cannot create the directory");
    std::fs::write(from.join("plain"), "x").expect("cannot write the file");
    std::fs::write(from.join("large"), pattern(0, 3 << 20)).expect("cannot write the file");
    let execs = |sandbox: &Sandbox| {
        let tables = world.emulator.state().tables.lock();
        tables.sandboxes[sandbox.id()].execs.lock().len()
    };
    let before = execs(&sandbox);
    let mut told = 0;
    let sent = sandbox.upload_directory(&from, "/made/up/tree", |length| told += length).await?;
    assert_eq!(execs(&sandbox) - before, 1, "an upload should need one exec");
    assert_eq!(sent.bytes, told);
    assert_eq!(sh(&sandbox, "stat -c '%U %a' /made/up/tree/plain").await, "root 644\n");
    let before = execs(&sandbox);
    let unpacked = sandbox.download_directory("/made/up/tree", &back, |_| ()).await?;
    assert_eq!(execs(&sandbox) - before, 1, "a download should need one exec");
    assert_eq!((unpacked.skipped, unpacked.examples.len()), (0, 0), "{unpacked:?}");
    assert_eq!(tree(&from), tree(&back));
    Ok(())
}

/// What the host does with local files is the same for all providers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_keeps_other_local_files() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let local = Local::new("local");
    let back = local.0.join("back");
    sandbox.write_file("/tree/plain", "x", WriteOptions::default()).await?;
    std::fs::create_dir_all(&back).expect("cannot create the directory");
    std::fs::write(back.join("plain"), "changed").expect("cannot write the file");
    std::fs::write(back.join("mine"), "stays").expect("cannot write the file");
    sandbox.download_directory("/tree", &back, |_| ()).await?;
    assert_eq!(std::fs::read(back.join("plain")).expect("cannot read the file"), b"x");
    assert_eq!(std::fs::read(back.join("mine")).expect("cannot read the file"), b"stays");
    let error = refused(sandbox.upload_directory(&local.0.join("no"), "/x", |_| ()).await, &["no"]);
    assert!(matches!(error.kind(), Kind::Io(std::io::ErrorKind::NotFound)), "{error:?}");
    let file = local.0.join("file");
    std::fs::write(&file, "x").expect("cannot write the file");
    refused(sandbox.download_directory("/tree", &file, |_| ()).await, &["file"]);
    Ok(())
}

/// Creates a sandbox whose `tar` program prints this archive, whatever its arguments are.
async fn liar(world: &World, archive: &[u8]) -> Sandbox {
    let sandbox = world.sandbox().await;
    let written = async {
        sandbox.write_file("/lie/archive", archive, WriteOptions::default()).await?;
        sandbox
            .write_file("/usr/bin/tar", "#!/bin/sh\ncat /lie/archive\n", WriteOptions::default().permissions(0o755))
            .await
    };
    written.await.expect("cannot replace the program tar");
    sandbox
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_archive_stays_below_the_destination() -> Result<()> {
    let world = World::start().await;
    let local = Local::new("liar");
    let python = system_tests::python();
    let make = |script: &str| {
        let script = format!(
            "import tarfile, io, sys\nt = tarfile.open(fileobj=sys.stdout.buffer, mode='w|')\n\
             def add(name, kind=tarfile.REGTYPE, data=b'', link='', mode=0o644):\n    \
             i = tarfile.TarInfo(name); i.type = kind; i.size = len(data); i.linkname = link; i.mode = mode\n    \
             t.addfile(i, io.BytesIO(data))\n{script}\nt.close()\n"
        );
        let output = std::process::Command::new(&python).args(["-c", &script]).output().expect("cannot start Python");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let outside = local.0.join("outside");
    std::fs::create_dir_all(&outside).expect("cannot create the directory");
    let to = local.0.join("to");
    let up = outside.display();
    // Archives that are refused as a whole.
    for script in [
        "add('../outside/x', data=b'x')".to_string(),
        "add('a/../../outside/x', data=b'x')".to_string(),
        format!("add('{up}/x', data=b'x')"),
        format!("add('h', tarfile.LNKTYPE, link='{up}/secret')"),
        "add('h', tarfile.LNKTYPE, link='../outside/secret')".to_string(),
        "add('x' * 100 + '/../../../outside/x', data=b'x')".to_string(),
    ] {
        std::fs::write(outside.join("secret"), "secret").expect("cannot write the file");
        let sandbox = liar(&world, &make(&script)).await;
        let error = refused(sandbox.download_directory("/any", &to, |_| ()).await, &["outside"]);
        assert_eq!(error.kind(), &Kind::Forbidden, "{script}: {error}");
        assert_eq!(std::fs::read_dir(&outside).expect("cannot read the directory").count(), 1, "{script}");
    }
    // Entries that are skipped, and later entries that must not be written through them.
    let cases: [(String, u64); 7] = [
        (format!("add('l', tarfile.SYMTYPE, link='{up}'); add('l/x', data=b'x')"), 1),
        ("add('l', tarfile.SYMTYPE, link='../outside'); add('m', data=b'm')".to_string(), 1),
        // A link that leads outside only if its missing parent is created later.
        ("add('m', tarfile.SYMTYPE, link='later/../../outside')".to_string(), 1),
        // A link that leads outside only through another link.
        ("add('s/l', tarfile.SYMTYPE, link='..'); add('m', tarfile.SYMTYPE, link='s/l/../outside')".to_string(), 1),
        ("add('d', tarfile.CHRTYPE); add('b', tarfile.BLKTYPE); add('p', tarfile.FIFOTYPE)".to_string(), 3),
        ("add('h', tarfile.LNKTYPE, link='no'); add('f', data=b'f')".to_string(), 1),
        ("add('f', data=b'f', mode=0o7777); add('d', tarfile.DIRTYPE, mode=0o7777)".to_string(), 0),
    ];
    for (script, skipped) in cases {
        let _ = std::fs::remove_dir_all(&to);
        let sandbox = liar(&world, &make(&script)).await;
        let unpacked = sandbox.download_directory("/any", &to, |_| ()).await?;
        assert_eq!(unpacked.skipped, skipped, "{script}: {unpacked:?}");
        assert_eq!(std::fs::read_dir(&outside).expect("cannot read the directory").count(), 1, "{script}");
        for (path, what) in tree(&to) {
            assert!(!what.contains("outside"), "{script}: {path} {what}");
            let special = ["f 7777", "f 4", "d 7777"].iter().any(|start| what.starts_with(start));
            assert!(!special, "{script}: {path} {what}");
        }
    }
    // A link through which later entries would be written: one from the archive, and one that existed before.
    let link = "add('s/l', tarfile.SYMTYPE, link='..'); add('l', tarfile.SYMTYPE, link='s/l/../outside')";
    let through = format!("{link}; add('l/x', data=b'x'); add('l', data=b'file')");
    let through = through.as_str();
    for before in [false, true] {
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir_all(&to).expect("cannot create the directory");
        if before {
            symlink(&outside, to.join("k")).expect("cannot create the link");
        }
        let script = if before { "add('k/x', data=b'x')" } else { through };
        let sandbox = liar(&world, &make(script)).await;
        let unpacked = sandbox.download_directory("/any", &to, |_| ()).await;
        assert_eq!(
            std::fs::read_dir(&outside).expect("cannot read the directory").count(),
            1,
            "{script}: {unpacked:?}"
        );
        assert!(unpacked.is_err(), "{script}: {unpacked:?}");
        assert!(before || (to.join("s/l").is_symlink() && !to.join("l").is_symlink()), "{script}: {:?}", tree(&to));
    }
    // Data that is not an archive, and a hostile archive.
    let huge = {
        let mut header = tarfile_header(b"././@LongLink", b'L', u64::from(u32::MAX));
        header.extend(vec![b'a'; 1 << 20]);
        header
    };
    for archive in [b"no archive".repeat(100), huge, make("add('f', data=b'x' * 3000)")[..1500].to_vec()] {
        let sandbox = liar(&world, &archive).await;
        let error = refused(sandbox.download_directory("/any", &to, |_| ()).await, &["archive"]);
        assert_eq!(error.kind(), &Kind::Forbidden, "{error}");
    }
    Ok(())
}

/// Other providers may read a pipe without a writer as an empty file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_pipes_are_refused_and_leave_no_process() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    sh(&sandbox, "mkdir /s; mkfifo /s/pipe; ln -s pipe /s/link").await;
    for name in ["/s/pipe", "/s/link"] {
        assert!(matches!(fault(sandbox.read_file(name, 10).await), FileFault::Other(_)), "{name}");
        let written = sandbox.write_file(name, "x", WriteOptions::default()).await;
        assert!(matches!(fault(written), FileFault::Other(_)), "{name}");
    }
    // The helper processes of the refused operations have ended.
    let left = "pgrep -f '^/__modal/[.]bin/modal-sandbox-fs-tools'";
    sh(&sandbox, &format!("for n in $(seq 300); do {left} || exit 0; sleep 0.1; done; exit 1")).await;
    Ok(())
}

/// Names of programs that an unprivileged user may have placed in directories of the image's PATH.
const PLANTED: [&str; 24] = [
    "sh", "tr", "grep", "rm", "tar", "chmod", "mv", "mkdir", "cat", "ln", "readlink", "rmdir", "sleep", "stty", "head",
    "wc", "env", "setpriv", "su", "runuser", "id", "kill", "ls", "cp",
];

/// File operations in an image whose PATH and other variables lead to the files of another user: none of those files
/// runs as root, and none changes the result of an operation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_placed_by_another_user_never_run_as_root() -> Result<()> {
    let world = World::start().await;
    let dockerfile = format!(
        "FROM debian\n\
         RUN useradd -m -u 4321 agent && touch /seen && chmod 666 /seen && mkdir /home/agent/bin\n\
         RUN for name in {}; do printf '#!/bin/dash\\necho \"%s $(/usr/bin/id -u)\" >>/seen\\nexit 1\\n' $name \
         >/home/agent/bin/$name; done; chmod 755 /home/agent/bin/*; echo 'echo env $(/usr/bin/id -u) >>/seen' >/home/agent/env\n\
         RUN printf '#include <stdio.h>\\n#include <unistd.h>\\n__attribute__((constructor)) static void f(void) {{ FILE *s = \
         fopen(\"/seen\", \"a\"); if (s) {{ fprintf(s, \"library %%d\\\\n\", geteuid()); fclose(s); }} }}\\n' >/tmp/x.c && \
         gcc -shared -fPIC -o /home/agent/x.so /tmp/x.c && chown -R agent /home/agent\n\
         ENV PATH=/home/agent/bin:/usr/sbin:/usr/bin:/sbin:/bin BASH_ENV=/home/agent/env ENV=/home/agent/env CDPATH=/home \
         TAR_OPTIONS=--exclude=* GREP_OPTIONS=-v POSIXLY_CORRECT=1 GLOBIGNORE=* IFS=/ SHELLOPTS=xtrace LC_ALL=de_DE.UTF-8\n\
         ENV LD_PRELOAD=/home/agent/x.so LD_LIBRARY_PATH=/home/agent/lib\n",
        PLANTED.join(" ")
    );
    let spec = SandboxSpec::new(ImageSpec::dockerfile(dockerfile)).command(["/usr/bin/sleep", "infinity"]);
    let sandbox = world.provider.create(spec).await?;
    // The setup above runs with the image's own environment, and so does the entry point. Its line can be written after the
    // sandbox has been created.
    let begun = Instant::now();
    while sandbox.read_file("/seen", 100).await? != b"library 0\n" {
        assert!(begun.elapsed() < PATIENCE, "the entry point does not load the library");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sandbox.write_file("/seen", "", WriteOptions::default()).await?;
    let agent = |argv: &[&str]| ExecSpec::new(argv.iter().copied()).user("agent");

    // Commands of another user have the image's environment and the requested directory and arguments.
    let line = "echo $PATH $LD_PRELOAD $LD_LIBRARY_PATH $0; /bin/pwd";
    let said = sandbox.run(agent(&["/bin/dash", "-c", line, "zero"]).cwd("tmp")).await?;
    let path = "/home/agent/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = format!("{path} /home/agent/x.so /home/agent/lib zero\n/tmp\n");
    assert_eq!(String::from_utf8_lossy(&said.stdout.data), expected, "{}", told(&said));
    let own = sandbox.run(agent(&["/bin/dash", "-c", "echo $LD_PRELOAD"]).env("LD_PRELOAD", "")).await?;
    assert_eq!(own.stdout.data, b"\n", "{}", told(&own));
    let long = "x".repeat(40_000);
    let said = sandbox.run(agent(&["/bin/dash", "-c", "echo ${#1} ${#2}", "sh", &long, &long])).await?;
    assert_eq!(said.stdout.data, b"40000 40000\n", "{}", told(&said));
    let planted = sandbox.run(agent(&["id"])).await?;
    assert!(
        matches!(planted.verdict, Verdict::Exited(1)),
        "the command should use the PATH of the image: {}",
        told(&planted)
    );

    // Signals and time limits.
    let sleep = ["/bin/dash", "-c", "echo ready; /bin/sleep 1000 & wait"];
    let mut process = sandbox.spawn(agent(&sleep)).await?;
    use tokio::io::AsyncReadExt as _;
    process.stdout.as_mut().expect("the stream was taken").read_u8().await.expect("the command did not start");
    process.kill().await?;
    assert!(matches!(process.wait().await?, Verdict::Signaled(9)));
    let late = sandbox.run(agent(&sleep).timeout(Duration::from_secs(1))).await?;
    assert!(matches!(late.verdict, Verdict::Deadline), "{}", told(&late));
    let mut process = sandbox.spawn(agent(&sleep).pty(24, 80, "vt100")).await?;
    process.stdout.as_mut().expect("the stream was taken").read_u8().await.expect("the command did not start");
    process.resize(50, 132).await?;
    process.kill().await?;

    // File operations.
    for (mode, permissions) in
        [(WriteMode::Replace, Some(0o640)), (WriteMode::Append, None), (WriteMode::CreateNew, Some(0o600))]
    {
        let name = format!("/w/{}", permissions.unwrap_or_default());
        sandbox.write_file(&name, "text", options(mode, permissions)).await?;
        assert_eq!(sandbox.read_file(&name, 10).await?, b"text", "{mode:?}");
    }
    sandbox.rename("/w/0", "/w/moved", false).await?;
    sandbox.make_symlink("/w/link", "moved").await?;
    sandbox.set_permissions("/w/link", 0o604).await?;
    assert_eq!(sandbox.stat("/w/moved", true).await?.mode, 0o604);
    let names: Vec<_> = sandbox.list_directory("/w").await?.into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["384", "416", "link", "moved"]);
    let local = Local::new("planted");
    sandbox.download_directory("/w", &local.0.join("down"), |_| ()).await?;
    sandbox.upload_directory(&local.0.join("down"), "/again", |_| ()).await?;
    sandbox.download_directory("/again", &local.0.join("again"), |_| ()).await?;
    assert_eq!(tree(&local.0.join("again")), tree(&local.0.join("down")));
    assert_eq!(std::fs::read(local.0.join("again/moved")).expect("cannot read the file"), b"text");
    sandbox.remove("/again", true).await?;

    let seen = String::from_utf8(sandbox.read_file("/seen", 1 << 20).await?).expect("not UTF-8");
    let as_root: Vec<_> = seen.lines().filter(|line| line.ends_with(" 0")).collect();
    assert!(as_root.is_empty(), "{as_root:?}");
    assert!(
        seen.contains("library 4321") && seen.contains("id 4321"),
        "the commands of the user should run the placed files: {seen}"
    );
    Ok(())
}

/// Programs in an unusual directory are used if only root can write to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_in_an_unusual_directory_are_used() -> Result<()> {
    let world = World::start().await;
    let programs = "sh tar mkdir rm cat chmod mv ln readlink rmdir tr grep";
    let image = |change: &str| {
        // The program that removes the others is removed last.
        let take = "cd / && for name in tar mkdir cat chmod mv ln readlink rmdir tr grep sh; do \
                    /busybox/rm -f /bin/$name /usr/bin/$name; done";
        ImageSpec::dockerfile(format!(
            "FROM debian\nRUN mkdir /busybox && for name in {programs}; do cp -L $(command -v $name) /busybox/; done && \
             {change} && {take}\n"
        ))
    };
    let sandbox = world.sandbox_of(image("true")).await;
    sandbox.write_file("/d/f", "text", options(WriteMode::Replace, Some(0o640))).await?;
    sandbox.rename("/d/f", "/d/g", false).await?;
    let local = Local::new("busybox");
    sandbox.download_directory("/d", &local.0.join("d"), |_| ()).await?;
    assert_eq!(std::fs::read(local.0.join("d/g")).expect("cannot read the file"), b"text");
    sandbox.upload_directory(&local.0.join("d"), "/up/here", |_| ()).await?;
    assert_eq!(sandbox.read_file("/up/here/g", 10).await?, b"text");
    let command = ["/busybox/sh", "-c", "echo ready; /usr/bin/sleep 1000 & wait"];
    let mut process = sandbox.spawn(ExecSpec::new(command)).await?;
    use tokio::io::AsyncReadExt as _;
    process.stdout.as_mut().expect("the stream was taken").read_u8().await.expect("the command did not start");
    process.kill().await?;
    assert!(matches!(process.wait().await?, Verdict::Signaled(9)));

    for change in ["chown 4321 /busybox", "chmod 777 /busybox"] {
        let sandbox = world.sandbox_of(image(change)).await;
        let error = refused(sandbox.set_permissions("/etc/passwd", 0o600).await, &["could not run"]);
        assert_eq!(error.kind(), &Kind::Unsupported, "{change}");
    }
    Ok(())
}

/// Returns a header of a tar stream with a correct checksum.
fn tarfile_header(name: &[u8], kind: u8, size: u64) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar  \0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
