//! Dockerfiles and their expected results: each text file in `tests/builds` holds cases.
//!
//! A case begins with `=== its name`. Lines before its first FROM, ARG or comment set it up: `file NAME MODE CONTENT` adds a
//! file to the context, `archive NAME FLAGS` adds an archive made with these flags of `tar`, `gzip NAME` adds a compressed file
//! that is not an archive, `arg` and `secret` are passed to the build, `BOM` and `CRLF` change the encoding. After the
//! Dockerfile come the expectations:
//!
//! - `error TEXT`: the build fails with this text;
//! - `tree PATH` and a line for each entry below it: `name/`, `name: "content"`, `name -> target`, each preceded by
//!   `[MODE USER:GROUP]` where these differ from a plain COPY by root; `missing` if there is nothing at the path;
//! - `env NAME=VALUE` and `workdir PATH` of the image's processes.
//!
//! `@ARCH@` stands for the machine's processor architecture.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use futures_util::StreamExt as _;
use modal_proto::client as proto;
use sha2::{Digest as _, Sha256};

use super::client::{Control, World};

/// Number of builds that run at the same time.
const AT_ONCE: usize = 4;

/// A Python program that prints the entries below its arguments.
const LISTER: &str = r#"
import json, os, stat, sys
for root in sys.argv[1:]:
    print("tree " + root)
    top = "/probe/" + root
    def show(path, name):
        found = os.lstat(path)
        owner, mode = "%d:%d" % (found.st_uid, found.st_gid), "%o" % (found.st_mode & 0o7777)
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFLNK:
            print(("" if owner == "0:0" else "[%s] " % owner) + name + " -> " + os.readlink(path))
            return
        plain = "755" if kind == stat.S_IFDIR else "644"
        marks = "[%s %s] " % (mode, owner) if owner != "0:0" else "" if mode == plain else "[%s] " % mode
        if kind == stat.S_IFDIR:
            print(marks + name + "/")
        else:
            with open(path, "rb") as file:
                content = file.read()
            text = content.decode() if len(content) < 4096 and b"\0" not in content and content[:1] != b"\x1f" else None
            print(marks + name + ": " + ("*" if text is None else json.dumps(text)))
    if not os.path.lexists(top):
        print("missing")
    elif not os.path.isdir(top) or os.path.islink(top):
        show(top, os.path.basename(top))
    else:
        paths = []
        for directory, directories, files in os.walk(top):
            paths += [os.path.join(directory, name) for name in directories + files]
        for path in sorted(paths):
            show(path, os.path.relpath(path, top))
"#;

#[derive(Debug, Default)]
struct Case {
    name: String,
    files: Vec<(String, u32, Vec<u8>)>,
    args: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    dockerfile: String,
    error: Option<String>,
    /// Expected lines in the form that `LISTER` prints.
    trees: Vec<String>,
    env: Vec<String>,
    workdir: Option<String>,
}

fn archive(name: &str, flags: &str) -> (String, u32, Vec<u8>) {
    use std::os::unix::fs::PermissionsExt as _;
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    std::fs::create_dir(at("d")).unwrap();
    std::fs::write(at("d/f"), "1\n").unwrap();
    std::os::unix::fs::symlink("f", at("d/l")).unwrap();
    for (name, mode) in [("d/f", 0o4750), ("d", 0o755)] {
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = match flags {
        "" => Command::new("gzip"),
        _ => Command::new("tar"),
    };
    let command = match flags {
        "" => command.arg("-c").stdin(std::fs::File::open(at("d/f")).unwrap()),
        flags => command.arg("-C").arg(place.path()).args(["--owner=:3", "--group=:4", flags, "-", "d"]),
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let content = output.stdout;
    (name.to_owned(), 0o644, content)
}

fn cases(text: &str) -> Vec<Case> {
    let text = text.replace(
        "@ARCH@",
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
    );
    text.split("\n=== ")
        .map(|case| case.trim_start_matches("=== "))
        .filter(|case| !case.trim().is_empty())
        .map(read)
        .collect()
}

fn read(text: &str) -> Case {
    let mut lines = text.lines();
    let mut case = Case { name: lines.next().unwrap().to_owned(), ..Case::default() };
    let (mut bom, mut crlf, mut set_up, mut expected) = (false, false, true, false);
    let pair = |text: &str| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap();
    for line in lines {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if set_up {
            match word {
                "file" => {
                    let mut parts = rest.rsplitn(3, ' ');
                    let content = format!("{}\n", parts.next().unwrap());
                    let mode = u32::from_str_radix(parts.next().unwrap(), 8).unwrap();
                    case.files.push((parts.next().unwrap().to_owned(), mode, content.into_bytes()));
                }
                "archive" => {
                    let (name, flags) = rest.split_once(' ').unwrap();
                    case.files.push(archive(name, flags));
                }
                "gzip" => case.files.push(archive(rest, "")),
                "arg" => case.args.extend([pair(rest)]),
                "secret" => case.secrets.extend([pair(rest)]),
                "BOM" => bom = true,
                "CRLF" => crlf = true,
                _ => set_up = false,
            }
            if set_up {
                continue;
            }
        }
        match word {
            "error" => case.error = Some(rest.to_owned()),
            "env" => case.env.push(rest.to_owned()),
            "workdir" => case.workdir = Some(rest.to_owned()),
            "tree" => {
                expected = true;
                case.trees.push(line.to_owned());
            }
            _ if expected && !line.is_empty() => case.trees.push(line.to_owned()),
            _ if expected => {}
            _ => case.dockerfile += &format!("{line}\n"),
        }
    }
    if crlf {
        case.dockerfile = case.dockerfile.replace('\n', "\r\n");
    }
    if bom {
        case.dockerfile.insert(0, '\u{feff}');
    }
    case
}

/// Builds an image. Returns its id and the output of its commands. The error is the text of the failure.
async fn build(control: &mut Control, app_id: &str, image: proto::Image) -> Result<(String, String), String> {
    let request =
        proto::ImageGetOrCreateRequest { app_id: app_id.to_owned(), image: Some(image), ..Default::default() };
    let made = control.image_get_or_create(request).await.map_err(|s| s.to_string())?.into_inner();
    let join = proto::ImageJoinStreamingRequest {
        image_id: made.image_id.clone(),
        timeout: 120.0,
        include_logs_for_finished: true,
        ..Default::default()
    };
    let mut stream = control.image_join_streaming(join).await.unwrap().into_inner();
    let (mut result, mut said) = (None, String::new());
    while let Some(message) = stream.message().await.unwrap() {
        let output = |log: &&proto::TaskLogs| log.file_descriptor() != proto::FileDescriptor::Info;
        message.task_logs.iter().filter(output).for_each(|log| said.push_str(&log.data));
        result = result.or(message.result);
    }
    let result = result.expect("a build ends");
    match result.status() {
        proto::generic_result::GenericStatus::Success => Ok((made.image_id, said)),
        _ => Err(format!("{}\n{said}", result.exception)),
    }
}

/// Builds a case, and returns an error if the result differs from the expectation.
async fn check(mut control: Control, app_id: String, case: Case) -> Result<(), String> {
    let mut files = Vec::new();
    for (name, mode, content) in &case.files {
        let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let data = proto::mount_put_file_request::DataOneof::Data(content.clone().into());
        let put = proto::MountPutFileRequest { sha256_hex: hash.clone(), data_oneof: Some(data) };
        control.mount_put_file(put).await.unwrap();
        files.push(proto::MountFile {
            filename: format!("/{name}"),
            sha256_hex: hash,
            mode: Some(*mode),
            ..Default::default()
        });
    }
    let mut image = proto::Image {
        dockerfile_commands: vec![case.dockerfile.clone()],
        build_args: case.args.clone().into_iter().collect(),
        ..Default::default()
    };
    if !files.is_empty() {
        let request = proto::MountGetOrCreateRequest {
            object_creation_type: proto::ObjectCreationType::AnonymousOwnedByApp as i32,
            files,
            app_id: app_id.clone(),
            ..Default::default()
        };
        image.context_mount_id = control.mount_get_or_create(request).await.unwrap().into_inner().mount_id;
    }
    if !case.secrets.is_empty() {
        let request = proto::SecretGetOrCreateRequest {
            object_creation_type: proto::ObjectCreationType::AnonymousOwnedByApp as i32,
            env_dict: case.secrets.clone().into_iter().collect(),
            app_id: app_id.clone(),
            ..Default::default()
        };
        image.secret_ids = vec![control.secret_get_or_create(request).await.unwrap().into_inner().secret_id];
    }
    let built = build(&mut control, &app_id, image).await;
    let (image_id, _) = match (&case.error, built) {
        (None, built) => built?,
        (Some(error), Err(text)) if text.contains(error) => return Ok(()),
        (Some(error), Err(text)) => return Err(format!("expected the error {error:?}, got {text}")),
        (Some(error), Ok(_)) => return Err(format!("expected the error {error:?}")),
    };
    let mut lines = Vec::new();
    if !case.env.is_empty() || case.workdir.is_some() {
        lines.extend(["FROM built AS own", "RUN env | sed 's/^/env /'; echo workdir \"$PWD\""].map(str::to_owned));
    }
    let roots: Vec<&str> = case.trees.iter().filter_map(|line| line.strip_prefix("tree ")).collect();
    let argv: Vec<&str> = ["python3", "-c", LISTER].into_iter().chain(roots).collect();
    lines.push("FROM debian".to_owned());
    lines.push(format!("RUN --mount=from=built,target=/probe {}", serde_json::to_string(&argv).unwrap()));
    let probe = proto::Image {
        dockerfile_commands: lines,
        base_images: vec![proto::BaseImage { docker_tag: "built".to_owned(), image_id }],
        ..Default::default()
    };
    let (_, said) = build(&mut control, &app_id, probe).await?;
    let seen: Vec<&str> =
        said.lines().filter(|line| !line.starts_with("env ") && !line.starts_with("workdir ")).collect();
    if seen != case.trees {
        return Err(format!("expected\n{}\ngot\n{}", case.trees.join("\n"), seen.join("\n")));
    }
    let wanted = case.env.iter().map(|line| format!("env {line}"));
    let wanted = wanted.chain(case.workdir.iter().map(|path| format!("workdir {path}")));
    for wanted in wanted {
        if !said.lines().any(|line| line == wanted) {
            return Err(format!("expected {wanted}, got\n{said}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dockerfiles_make_what_the_reference_says() {
    let world = World::start().await;
    let mut all = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/builds")).unwrap() {
        all.extend(cases(&std::fs::read_to_string(entry.unwrap().path()).unwrap()));
    }
    // Without root privileges there is no other owner.
    if !nix::unistd::geteuid().is_root() {
        let owned = |line: &String| {
            line.strip_prefix('[').and_then(|line| line.split(']').next()).is_some_and(|a| a.contains(':'))
        };
        all.retain(|case| {
            let needs = ["chown", "USER", "uid="].iter().any(|word| case.dockerfile.contains(word));
            !needs && !case.trees.iter().any(owned)
        });
    }
    assert!(all.len() >= 60, "{} cases", all.len());
    let checks = all.into_iter().map(|case| {
        let (control, app_id) = (world.control.clone(), world.app_id.clone());
        async move {
            let (name, dockerfile) = (case.name.clone(), case.dockerfile.clone());
            check(control, app_id, case).await.err().map(|error| format!("=== {name}\n{dockerfile}--- {error}\n"))
        }
    });
    let wrong: Vec<String> =
        futures_util::stream::iter(checks).buffer_unordered(AT_ONCE).filter_map(async |e| e).collect().await;
    world.emulator.shutdown().await;
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
