//! Tests of images that are mounted in running containers, and of snapshots of directories.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use container_isolation::{Bind, Container, ContainerSpec, DirectoryError, Exit, MountSpec};

use super::{command, machine, output, run, shell, spec};

fn at(target: &str, layers: &[PathBuf]) -> MountSpec {
    MountSpec { target: target.into(), layers: layers.to_vec(), from_scratch: true, ..MountSpec::default() }
}

/// Returns the mount points that a container's `mountinfo` lists.
async fn mounts(container: &Container) -> Vec<String> {
    let listed = output(container, "cut -d' ' -f5 /proc/self/mountinfo").await;
    listed.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_directory_is_copied_as_it_is_seen() {
    let machine = machine();
    let volume = machine.parent.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("theirs"), "").unwrap();
    let binds = vec![Bind { source: volume, target: "/job/volume".into(), ..Default::default() }];
    let container = machine.engine.start(ContainerSpec { binds, ..spec("a") }).await.unwrap();
    let script = "cd /job && mkdir -p deep/er && echo 1 > deep/er/f && ln deep/er/f twin && ln -s deep/er link \
                  && ln -s /job /way && mkfifo pipe && chmod 4710 deep/er/f && touch -d @1234567890 deep/er/f && chmod 2750 . \
                  && mkdir -p /usr/share/kept && echo new > /usr/share/kept/new && rm -r /usr/share/doc";
    output(&container, script).await;
    container.mount(at("/job/mounted", &[])).await.unwrap();
    output(&container, "echo hidden > /job/mounted/x").await;

    let layer = |name: &str| machine.parent.path().join(name);
    // The path is a link, which is followed as for a process.
    container.snapshot_directory(Path::new("/way"), &layer("work")).await.unwrap();
    let found = fs::metadata(layer("work")).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o2750);
    let file = fs::metadata(layer("work/deep/er/f")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.mtime(), file.nlink()), (0o4710, 1_234_567_890, 2));
    assert_eq!(fs::read_link(layer("work/link")).unwrap(), Path::new("deep/er"));
    // Mounts below the directory are not copied.
    assert_eq!(fs::read_dir(layer("work/volume")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(layer("work/mounted")).unwrap().count(), 0);

    // Directories of the machine's programs, with the changes made to them.
    container.snapshot_directory(Path::new("/usr/share/kept"), &layer("kept")).await.unwrap();
    assert_eq!(fs::read(layer("kept/new")).unwrap(), b"new\n");
    container.snapshot_directory(Path::new("/usr/include"), &layer("include")).await.unwrap();
    assert!(layer("include/stdio.h").is_file() || !Path::new("/usr/include/stdio.h").exists());

    // A mount at the path itself is copied.
    container.snapshot_directory(Path::new("/job/mounted"), &layer("mounted")).await.unwrap();
    assert_eq!(fs::read(layer("mounted/x")).unwrap(), b"hidden\n");

    let refused = async |path: &str| container.snapshot_directory(Path::new(path), &layer("none")).await;
    assert!(matches!(refused("/no/such").await, Err(DirectoryError::Missing)));
    assert!(matches!(refused("/job/twin").await, Err(DirectoryError::NotADirectory)));
    // Links are resolved inside the container; the links to descriptors in `/proc` are not followed.
    output(&container, "ln -s ../../../../../../../../etc /up; ln -s /proc/self/root /magic").await;
    container.snapshot_directory(Path::new("/up"), &layer("up")).await.unwrap();
    assert_eq!(fs::read_to_string(layer("up/hostname")).unwrap(), "a-host\n");
    assert!(refused("/magic/home").await.is_err());
    container.stop().await;
    assert!(refused("/job").await.is_err());
}

#[tokio::test]
async fn a_mounted_image_is_seen_at_once_and_hides_what_was_there() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    output(&container, "mkdir -p /data/project && echo below > /data/project/f").await;
    // A running process that waits until the image appears.
    let waiting =
        container.spawn(shell("while ! test -e /data/project/new; do :; done; cat /data/project/new")).await.unwrap();
    let layer = machine.parent.path().join("layer");
    fs::create_dir(&layer).unwrap();
    fs::write(layer.join("new"), "from the image\n").unwrap();
    fs::set_permissions(&layer, fs::Permissions::from_mode(0o711)).unwrap();
    container.mount(at("/data/project/", std::slice::from_ref(&layer))).await.unwrap();
    assert_eq!(super::finish(waiting).await.1, "from the image\n");
    assert_eq!(output(&container, "ls /data/project; stat -c %a /data/project").await, "new\n711");

    // Files are written to the container's own directory, not to the image.
    output(&container, "echo changed > /data/project/new; mkdir /data/project/d; rm -r /data/project/d").await;
    assert_eq!(fs::read(layer.join("new")).unwrap(), b"from the image\n");
    // A second mount of the image is unchanged.
    container.mount(at("/not/yet/there", std::slice::from_ref(&layer))).await.unwrap();
    assert_eq!(output(&container, "cat /not/yet/there/new").await, "from the image");
    // Mounted files are not part of the container's own files.
    let files = machine.parent.path().join("files");
    container.snapshot(&files).await.unwrap();
    assert_eq!(fs::read_to_string(files.join("data/project/f")).unwrap(), "below\n");
    assert!(!files.join("data/project/new").exists());

    // Two mounts on the same path are unmounted together.
    container.mount(at("/data/project", &[])).await.unwrap();
    assert_eq!(output(&container, "ls -A /data/project").await, "");
    container.unmount(Path::new("/data//project")).await.unwrap();
    assert_eq!(output(&container, "cat /data/project/f").await, "below");
    assert!(matches!(container.unmount(Path::new("/data/project")).await, Err(DirectoryError::NotMounted)));
    assert!(mounts(&container).await.iter().all(|mount| mount != "/data/project"));
}

#[tokio::test]
async fn a_whole_image_is_mounted_with_its_programs() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let layer = machine.parent.path().join("layer");
    fs::create_dir_all(layer.join("usr/local/bin")).unwrap();
    fs::write(layer.join("usr/local/bin/own"), "").unwrap();
    let whole = MountSpec { target: "/image".into(), layers: vec![layer], ..MountSpec::default() };
    container.mount(whole).await.unwrap();
    assert_eq!(
        output(&container, "test -x /image/usr/bin/env && ls /image/usr/local/bin/own /image/etc/passwd").await,
        "/image/etc/passwd\n/image/usr/local/bin/own"
    );
    container.unmount(Path::new("/image")).await.unwrap();
    assert_eq!(output(&container, "ls -A /image").await, "");
}

#[tokio::test]
async fn mounts_lead_nowhere_else() {
    let machine = machine();
    let container = machine.engine.start(spec("a")).await.unwrap();
    let before = mounts(&container).await;
    output(&container, "echo x > /file; ln -s /proc /way; ln -s /file /to-file").await;
    for path in
        ["/", "/proc", "/proc/sys", "/sys", "/sys/new", "/dev", "/dev/fd", "/__modal", "/__modal/.bin", "/way/sys"]
    {
        let answer = container.mount(at(path, &[])).await;
        assert!(
            matches!(answer, Err(DirectoryError::Reserved | DirectoryError::Failed(_) | DirectoryError::NotADirectory)),
            "{path}: {answer:?}"
        );
    }
    for path in ["/file", "/file/below", "/to-file"] {
        let answer = container.mount(at(path, &[])).await;
        assert!(matches!(answer, Err(DirectoryError::NotADirectory)), "{path}: {answer:?}");
    }
    assert_eq!(mounts(&container).await, before);

    // If the path leads elsewhere now, nothing is unmounted there.
    container.mount(at("/a/sys", &[])).await.unwrap();
    output(&container, "mv /a /b && ln -s /proc /a && test -d /b/sys").await;
    assert!(matches!(container.unmount(Path::new("/a/sys")).await, Err(DirectoryError::NotMounted)));
    assert_ne!(run(&container, shell("echo 1 > /proc/sys/kernel/printk")).await.0, Exit::Code(0));
    // Processes inside cannot unmount an image or remove its directory.
    container.mount(at("/kept", &[])).await.unwrap();
    for refused in ["umount /kept", "rmdir /kept", "mv /kept /elsewhere"] {
        assert_ne!(run(&container, shell(refused)).await.0, Exit::Code(0), "{refused}");
    }
    // Concurrent mounts work, and all are gone with the container.
    let many = (0..8).map(|number| container.mount(at(&format!("/many/{number}"), &[])));
    for mounted in futures_util::future::join_all(many).await {
        mounted.unwrap();
    }
    assert_eq!(output(&container, "ls /many | wc -l").await, "8");
    assert_eq!(run(&container, command(&["true"])).await.0, Exit::Code(0));
    let directory = container.upper().parent().unwrap().to_owned();
    container.remove().await.unwrap();
    assert!(!directory.exists());
    assert!(container.mount(at("/late", &[])).await.is_err());
    assert!(!directory.exists());
}
