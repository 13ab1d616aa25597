//! Group `images`: building, finding and deleting images.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sandbox_host::types::{Content, ContextFile, ExecSpec, ImageSource, ImageSpec, SandboxSpec};
use sandbox_host::{BuildContext, Kind, LocalDockerfile, fresh_id};

use crate::check::{Outcome, Stop, ensure, failed, pattern, printed, refused, same, told};
use crate::table::checks;
use crate::world::{Case, altered};

checks! {
    "images.registry" ["images", "image.registry"] "image-source: an image from a registry by its name" => registry;
    "images.platform" ["images", "create.platform", "exec", "program:sh", "program:uname"] "image-spec: `platform` is that of the sandbox" => platform;
    "images.unknown-platform" ["images", "create.platform"] "image-spec: a platform that does not exist is an error" => unknown_platform;
    "images.commands" ["images", "image.commands", "exec", "program:sh", "program:cat"] "image-spec: `commands` are executed on top of the source" => commands;
    "images.same-definition" ["images", "image.commands"] "image-spec: an identical definition returns the same id" => same_definition;
    "images.other-definition" ["images", "image.commands"] "image-spec: another definition is another image" => other_definition;
    "images.force" ["images", "image.commands"] "image-spec: `force` builds again" => force;
    "images.find" ["images", "image.commands"] "get-image: returns an image by its id" => find;
    "images.by-id" ["images", "image.commands"] "image-source: an image by its id needs no build and has no log" => by_id;
    "images.dockerfile" ["images", "image.dockerfile", "exec", "program:sh", "program:cat"] "dockerfile: its instructions are executed" => dockerfile;
    "images.build-args" ["images", "image.dockerfile", "exec", "program:sh", "program:cat"] "dockerfile: `build-args` are the values of ARG instructions" => build_args;
    "images.target" ["images", "image.dockerfile", "exec", "program:sh", "program:cat"] "dockerfile: `target` is the stage to build, or the last one" => target;
    "images.context" ["images", "image.dockerfile", "image.context", "exec", "program:cat"] "dockerfile: COPY copies the files of `context`, whose contents were uploaded" => context;
    "images.missing-content" ["images", "image.context"] "missing-content: a content that was uploaded is not missing any more" => missing_content;
    "images.context-of-copy" ["images", "image.dockerfile", "image.context", "exec", "program:sh"] "dockerfile: without ignored files; a file that COPY does not use changes nothing" => context_of_copy;
    "images.context-sent-once" ["images", "image.dockerfile", "image.context"] "missing-content: an unchanged context needs no upload and is the same image, a changed file only its own" => context_sent_once;
    "images.bad-context" ["images", "image.dockerfile", "image.context"] "context-file: a path is relative, without `.` and `..`, and unique" => bad_context;
    "images.context-not-uploaded" ["images", "image.dockerfile", "image.context"] "dockerfile: the contents of `context` must have been uploaded" => not_uploaded;
    "images.copy-of-nothing" ["images", "image.dockerfile"] "dockerfile: COPY of a file that the context lacks fails" => copy_of_nothing;
    "images.stages" ["images", "image.dockerfile", "exec", "program:sh", "program:cat"] "dockerfile: a stage copies from others, and `build-args` are values of ARG before FROM too" => stages;
    "images.unknown-target" ["images", "image.dockerfile"] "dockerfile: a stage that does not exist is an error" => unknown_target;
    "images.failed-build" ["images", "image.dockerfile"] "read-build: fails with `build-failed` after the whole log has been read" => failed_build;
    "images.failed-create" ["images", "image.dockerfile"] "create: fails with `build-failed` if its image cannot be built" => failed_create;
    "images.bad-dockerfile" ["images", "image.dockerfile"] "dockerfile: text without FROM is `invalid-argument`, and so is text with NUL" => bad_dockerfile;
    "images.bad-reference" ["images", "image.registry"] "registry-image: an empty reference is `invalid-argument`" => bad_reference;
    "images.workdir" ["images", "image.commands", "exec", "program:sh"] "built-image: the working directory of commands" => workdir;
    "images.on-top" ["images", "image.commands", "exec", "program:sh", "program:cat"] "image-spec: `commands` on top of an image by its id" => on_top;
    "images.create-builds" ["images", "image.commands", "exec", "program:sh", "program:cat"] "create: builds an image that is not built yet" => create_builds;
    "images.unknown-extra" ["images"] "image-spec: an unknown name in `extra` is `invalid-argument`" => unknown_extra;
    "images.delete" ["images", "image.commands", "image.delete"] "delete-image: deletes an image; idempotent" => delete;
    "images.list" ["images", "image.commands", "image.list"] "list-images: contains an image that was built" => list;
    "images.list-newest-first" ["images", "image.commands", "image.list"] "list-images: newest first" => list_order;
    "images.list-pages" ["images", "image.commands", "image.list"] "image-page: at most `max` images, each once, and the pages end" => list_pages;
    "images.list-without-deleted" ["images", "image.commands", "image.list", "image.delete"] "list-images: a deleted image is not listed" => list_deleted;
    "images.list-max" ["image.list"] "list-images: `max` is between 1 and 1000" => list_max;
    "images.unknown" ["images", "image.commands"] "get-image: fails with `not-found` if there is no such image" => unknown;
}

/// A name that the image of this check alone contains, so that nothing of an earlier run is found.
fn own(case: &Case) -> (ImageSpec, String) {
    let mark = fresh_id();
    (case.image().command(format!("RUN echo {mark} >/conformance-mark")), mark)
}

/// Builds an image. Returns its id and its log.
async fn build(case: &Case, spec: ImageSpec) -> Outcome<(String, String)> {
    let mut log = String::new();
    let image = case.provider.build(spec).await?.finish(|chunk| log.push_str(&chunk.text)).await?;
    case.made_image(&image.id);
    Ok((image.id, log))
}

/// Checks that a sandbox of this image has the mark.
async fn is_marked(case: &Case, image: ImageSpec, mark: &str) -> Outcome {
    let sandbox = case.create(SandboxSpec { image, ..case.spec() }).await?;
    let found = case.sh(&sandbox, "cat /conformance-mark").await?;
    ensure!(found == mark, "the file of the image has the content {found:?} instead of {mark:?}");
    Ok(())
}

async fn commands(case: Arc<Case>) -> Outcome {
    let (spec, mark) = own(&case);
    let (image, _) = build(&case, spec).await?;
    is_marked(&case, ImageSpec::id(image), &mark).await
}

async fn same_definition(case: Arc<Case>) -> Outcome {
    let (spec, _) = own(&case);
    let (first, _) = build(&case, spec.clone()).await?;
    let (again, _) = build(&case, spec.clone()).await?;
    ensure!(first == again, "one definition is {first} and {again}");
    let other = case.other().await?.build(spec).await?.finish(|_| ()).await?;
    ensure!(first == other.id, "for another instance the definition of {first} is {}", other.id);
    Ok(())
}

async fn other_definition(case: Arc<Case>) -> Outcome {
    let (one, other) = (build(&case, own(&case).0).await?.0, build(&case, own(&case).0).await?.0);
    ensure!(one != other, "two definitions are both {one}");
    Ok(())
}

async fn force(case: Arc<Case>) -> Outcome {
    let (spec, _) = own(&case);
    let (first, _) = build(&case, spec.clone()).await?;
    let (again, _) = build(&case, spec.force(true)).await?;
    ensure!(first != again, "a forced build returned {first} again");
    Ok(())
}

async fn find(case: Arc<Case>) -> Outcome {
    let (image, _) = build(&case, own(&case).0).await?;
    let found = case.other().await?.image(&image).await?;
    ensure!(found.id == image, "`get-image` of {image} returned {}", found.id);
    Ok(())
}

async fn by_id(case: Arc<Case>) -> Outcome {
    let (image, _) = build(&case, own(&case).0).await?;
    let (again, log) = build(&case, ImageSpec::id(&image)).await?;
    ensure!(again == image && log.is_empty(), "a build of {image} returned {again}, with the log {log:?}");
    Ok(())
}

async fn registry(case: Arc<Case>) -> Outcome {
    let base = case.base().await?;
    let image = case.provider.build(ImageSpec::registry(&base)).await?.finish(|_| ()).await?;
    let found = case.provider.image(&image.id).await?;
    ensure!(found.id == image.id, "`get-image` of {} returned {}", image.id, found.id);
    case.create(SandboxSpec { image: ImageSpec::registry(&base), ..case.spec() }).await?;
    Ok(())
}

/// Returns the platform of sandboxes of the chosen image.
async fn own_platform(case: &Case) -> Outcome<String> {
    let machine = case.sh(&case.shared().await?, "uname -m").await?;
    let architecture = match machine.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => return Err(Stop::Skipped(format!("the machine of the sandbox is {machine}"))),
    };
    Ok(format!("linux/{architecture}"))
}

/// Returns a sandbox of the chosen image for this platform.
fn for_platform(case: &Case, platform: &str) -> SandboxSpec {
    SandboxSpec { image: ImageSpec { platform: Some(platform.to_owned()), ..case.image() }, ..case.spec() }
}

async fn platform(case: Arc<Case>) -> Outcome {
    let platform = own_platform(&case).await?;
    let sandbox = case.create(for_platform(&case, &platform)).await?;
    let (usual, found) = (case.sh(&case.shared().await?, "uname -m").await?, case.sh(&sandbox, "uname -m").await?);
    ensure!(found == usual, "the machine of a sandbox for {platform} is {found:?}, and usually it is {usual:?}");
    Ok(())
}

async fn unknown_platform(case: Arc<Case>) -> Outcome {
    let Err(error) = case.try_create(for_platform(&case, "conformance/none")).await else {
        return failed("a sandbox was created for the platform `conformance/none`");
    };
    let fits = matches!(error.kind(), Kind::InvalidArgument | Kind::Unsupported | Kind::NotFound | Kind::BuildFailed);
    ensure!(fits, "a platform that does not exist led to {}", told(&error));
    Ok(())
}

/// Writes these files to a directory, reads the Dockerfile there, and builds the image.
async fn local(
    case: &Case,
    folder: &Path,
    files: &[(&str, String)],
    change: impl FnOnce(LocalDockerfile) -> LocalDockerfile,
) -> Outcome<String> {
    for (name, content) in files {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, content)?;
    }
    let dockerfile = change(LocalDockerfile::read(folder.join("Dockerfile")).await?);
    let (spec, _) = case.provider.dockerfile(dockerfile, |_, _| ()).await?;
    Ok(build(case, spec).await?.0)
}

async fn build_args(case: Arc<Case>) -> Outcome {
    let (base, mark, folder) = (case.base().await?, fresh_id(), tempfile::tempdir()?);
    let text = format!("FROM {base}\nARG given=none\nARG kept=default\nRUN echo $given-$kept >/conformance-mark\n");
    let files = [("Dockerfile", text)];
    let image = local(&case, folder.path(), &files, |dockerfile| dockerfile.build_arg("given", &mark)).await?;
    is_marked(&case, ImageSpec::id(image), &format!("{mark}-default")).await
}

async fn target(case: Arc<Case>) -> Outcome {
    let (base, mark, folder) = (case.base().await?, fresh_id(), tempfile::tempdir()?);
    let text = format!(
        "FROM {base} AS one\nRUN echo {mark}-one >/conformance-mark\n\
         FROM one AS two\nRUN echo {mark}-two >/conformance-mark\n"
    );
    let files = [("Dockerfile", text)];
    let one = local(&case, folder.path(), &files, |dockerfile| dockerfile.target("one")).await?;
    let last = local(&case, folder.path(), &files, |dockerfile| dockerfile).await?;
    is_marked(&case, ImageSpec::id(one), &format!("{mark}-one")).await?;
    is_marked(&case, ImageSpec::id(last), &format!("{mark}-two")).await
}

async fn context(case: Arc<Case>) -> Outcome {
    let (base, mark, folder) = (case.base().await?, fresh_id(), tempfile::tempdir()?);
    let files = [
        ("Dockerfile", format!("FROM {base}\nCOPY mark /conformance-mark\nCOPY folder/ /conformance-folder/\n")),
        ("mark", mark.clone()),
        ("folder/deep/file", format!("{mark} below")),
    ];
    let image = local(&case, folder.path(), &files, |dockerfile| dockerfile).await?;
    let sandbox = case.create(SandboxSpec { image: ImageSpec::id(image), ..case.spec() }).await?;
    for (path, content) in [("/conformance-mark", &files[1].1), ("/conformance-folder/deep/file", &files[2].1)] {
        let result = sandbox.run(ExecSpec::new(["cat", path])).await?;
        printed(&format!("the file {path} of the context"), &result, content)?;
    }
    Ok(())
}

async fn missing_content(case: Arc<Case>) -> Outcome {
    let folder = tempfile::tempdir()?;
    let digests = &case.description.digests;
    // More than one piece of an upload.
    let data = [fresh_id().into_bytes(), pattern(9, 5_000_003)].concat();
    std::fs::write(folder.path().join("file"), data)?;
    let context = BuildContext::directory(folder.path(), digests).await?;
    let contents: Vec<_> = context.files().into_iter().map(|file| file.content).collect();
    let missing = case.provider.missing_content(&contents).await?;
    ensure!(missing.len() == 1, "of one new content, {} are missing", missing.len());
    let none = case.provider.missing_content(&[]).await?;
    ensure!(none.is_empty(), "of no content, {} are missing", none.len());
    // More than a service takes in one request.
    let content = |n: u32| Content { sha256: format!("{n:064x}"), size: 1, digests: contents[0].digests.clone() };
    let missing = case.provider.missing_content(&(1..=1500).map(content).collect::<Vec<_>>()).await?;
    ensure!(missing.len() == 1500, "of 1500 new contents, {} are missing", missing.len());
    case.provider.upload_context(&context).await?;
    for provider in [case.provider.clone(), case.other().await?] {
        let missing = provider.missing_content(&contents).await?;
        ensure!(missing.is_empty(), "a content that was uploaded is missing");
    }
    Ok(())
}

async fn dockerfile(case: Arc<Case>) -> Outcome {
    let (base, mark) = (case.base().await?, fresh_id());
    let text = format!("FROM {base}\nRUN echo about to write\nRUN echo {mark} >/conformance-mark\n");
    let (image, log) = build(&case, ImageSpec::dockerfile(text)).await?;
    ensure!(log.contains("about to write"), "the log has no output of the instruction: {log:?}");
    is_marked(&case, ImageSpec::id(image), &mark).await
}

async fn context_of_copy(case: Arc<Case>) -> Outcome {
    let (base, mark, folder) = (case.base().await?, fresh_id(), tempfile::tempdir()?);
    let copies = "COPY src /conformance/src\nCOPY *.txt /conformance/\n";
    let files = [
        ("Dockerfile", format!("FROM {base}\n{copies}RUN chmod 755 /conformance\n")),
        ("src/main", mark.clone()),
        ("src/ignored.log", "no".to_owned()),
        ("a.txt", "a".to_owned()),
        ("unused/file", "not used".to_owned()),
        (".dockerignore", "**/*.log\n".to_owned()),
    ];
    let first = local(&case, folder.path(), &files, |dockerfile| dockerfile).await?;
    let sandbox = case.create(SandboxSpec { image: ImageSpec::id(&first), ..case.spec() }).await?;
    let found = case.sh(&sandbox, "cd /conformance; echo * src/* src/.*log").await?;
    ensure!(found == "a.txt src src/main src/.*log", "the image has the files {found:?}");
    let found = case.sh(&sandbox, "cat /conformance/src/main /conformance/a.txt").await?;
    ensure!(found == format!("{mark}a"), "the files of the image contain {found:?}");
    let unused = [("unused/file", "changed".to_owned())];
    let again = local(&case, folder.path(), &unused, |dockerfile| dockerfile).await?;
    ensure!(again == first, "a file that no COPY uses made {again} of {first}");
    Ok(())
}

async fn context_sent_once(case: Arc<Case>) -> Outcome {
    let (base, folder, large) = (case.base().await?, tempfile::tempdir()?, pattern(11, 9 << 20));
    // A new content at the begin, and more than one piece of an upload.
    let large = [fresh_id().into_bytes(), large].concat();
    std::fs::write(folder.path().join("Dockerfile"), format!("FROM {base}\nCOPY a large /conformance/\n"))?;
    std::fs::write(folder.path().join("a"), fresh_id())?;
    std::fs::write(folder.path().join("large"), &large)?;
    std::fs::write(folder.path().join("unused"), "not used")?;
    let send = async || {
        let dockerfile = LocalDockerfile::read(folder.path().join("Dockerfile")).await?;
        let (spec, sent) = case.provider.dockerfile(dockerfile, |_, _| ()).await?;
        ensure!(sent.files == 2, "a context of two files that COPY uses has {}", sent.files);
        Outcome::Ok((build(&case, spec).await?.0, sent.bytes))
    };
    let (first, sent) = send().await?;
    ensure!(sent > large.len() as u64, "{sent} bytes of a new context were sent");
    if case.declares("files") {
        let sandbox = case.create(SandboxSpec { image: ImageSpec::id(&first), ..case.spec() }).await?;
        same("a file of 9 MiB of the context", &sandbox.read_file("/conformance/large", 64 << 20).await?, &large)?;
    }
    let (again, sent) = send().await?;
    ensure!(sent == 0, "{sent} bytes of an unchanged context were sent again");
    ensure!(again == first, "the same context is {first} and {again}");
    std::fs::write(folder.path().join("a"), "changed")?;
    let (changed, sent) = send().await?;
    ensure!(sent <= 7, "{sent} bytes were sent for a changed file of 7 bytes");
    ensure!(changed != first, "a changed file is still {first}");
    Ok(())
}

/// Returns a Dockerfile image that copies everything, with these files of a context. Their content is one byte that
/// nothing has uploaded.
fn copies(base: &str, paths: &[&str]) -> ImageSpec {
    let mut spec = ImageSpec::dockerfile(format!("FROM {base}\nCOPY . /conformance\n"));
    // A digest that no content has, because it is no digest of a byte.
    let sha256 = fresh_id().replace('-', "").repeat(2);
    let content = Content { sha256, size: 1, digests: Vec::new() };
    if let ImageSource::Dockerfile(dockerfile) = &mut spec.source {
        let file = |path: &&str| ContextFile { path: (*path).to_owned(), mode: 0o644, content: content.clone() };
        dockerfile.context = paths.iter().map(file).collect();
    }
    spec
}

async fn bad_context(case: Arc<Case>) -> Outcome {
    let base = case.base().await?;
    for paths in [&[""][..], &["/abs"], &["a/../b"], &["./a"], &["a//b"], &["a\0"], &["a", "a"]] {
        let built = case.provider.build(copies(&base, paths)).await.map(drop);
        refused(&format!("a context with {paths:?}"), built, &Kind::InvalidArgument)?;
    }
    let short = Content { sha256: "abc".to_owned(), size: 1, digests: Vec::new() };
    let missing = case.provider.missing_content(&[short]).await.map(drop);
    refused("`missing-content` with a digest of three digits", missing, &Kind::InvalidArgument)?;
    Ok(())
}

async fn not_uploaded(case: Arc<Case>) -> Outcome {
    let base = case.base().await?;
    let built = async { case.provider.build(copies(&base, &["a"])).await?.finish(|_| ()).await };
    let Err(error) = built.await else { return failed("an image was built of a content that was not uploaded") };
    let fits = matches!(error.kind(), Kind::InvalidArgument | Kind::Conflict | Kind::NotFound);
    ensure!(fits, "a content that was not uploaded led to {}", told(&error));
    Ok(())
}

async fn copy_of_nothing(case: Arc<Case>) -> Outcome {
    let base = case.base().await?;
    let text = format!("FROM {base}\nCOPY conformance-none /x\n");
    let built = async { case.provider.build(ImageSpec::dockerfile(text)).await?.finish(|_| ()).await };
    let Err(error) = built.await else { return failed("an image was built with COPY of a file that does not exist") };
    let fits = matches!(error.kind(), Kind::InvalidArgument | Kind::BuildFailed);
    ensure!(fits, "COPY of a file that does not exist led to {}", told(&error));
    Ok(())
}

async fn stages(case: Arc<Case>) -> Outcome {
    let (base, mark, folder) = (case.base().await?, fresh_id(), tempfile::tempdir()?);
    let text = format!(
        "ARG base=conformance-none\nFROM $base AS first\nARG word=none\nRUN echo $word >/conformance-mark\n\
         FROM {base} AS second\nCOPY --from=first /conformance-mark /conformance-copy\nRUN echo second >/conformance-mark\n\
         FROM second\nRUN false\n"
    );
    let files = [("Dockerfile", text)];
    let given = |dockerfile: LocalDockerfile| dockerfile.build_arg("word", &mark).build_arg("base", &base);
    for (target, expected) in [("second", format!("second {mark}")), ("first", mark.clone())] {
        let image = local(&case, folder.path(), &files, |dockerfile| given(dockerfile).target(target)).await?;
        let sandbox = case.create(SandboxSpec { image: ImageSpec::id(image), ..case.spec() }).await?;
        let found = case.sh(&sandbox, "cat /conformance-mark /conformance-copy 2>/dev/null || :").await?;
        let found = found.replace('\n', " ");
        ensure!(found == expected, "the files of the stage {target} contain {found:?} instead of {expected:?}");
    }
    let dockerfile = given(LocalDockerfile::read(folder.path().join("Dockerfile")).await?);
    let (spec, _) = case.provider.dockerfile(dockerfile, |_, _| ()).await?;
    let last = async { case.provider.build(spec).await?.finish(|_| ()).await };
    refused("the last stage, which fails", last.await.map(drop), &Kind::BuildFailed)?;
    Ok(())
}

async fn unknown_target(case: Arc<Case>) -> Outcome {
    let (base, folder) = (case.base().await?, tempfile::tempdir()?);
    let files = [("Dockerfile", format!("FROM {base} AS one\n"))];
    std::fs::write(folder.path().join(files[0].0), &files[0].1)?;
    let dockerfile = LocalDockerfile::read(folder.path().join("Dockerfile")).await?.target("conformance-none");
    let built = async {
        let (spec, _) = case.provider.dockerfile(dockerfile, |_, _| ()).await?;
        case.provider.build(spec).await?.finish(|_| ()).await
    };
    let Err(error) = built.await else { return failed("a stage that does not exist was built") };
    let fits = matches!(error.kind(), Kind::InvalidArgument | Kind::BuildFailed);
    ensure!(fits, "a stage that does not exist led to {}", told(&error));
    Ok(())
}

async fn failed_create(case: Arc<Case>) -> Outcome {
    let (base, mark) = (case.base().await?, fresh_id());
    let image = ImageSpec::dockerfile(format!("FROM {base}\nRUN echo {mark}; exit 3\n"));
    let made = case.try_create(SandboxSpec { image, ..case.spec() }).await;
    refused("`create` with an image whose build fails", made, &Kind::BuildFailed)?;
    Ok(())
}

async fn bad_reference(case: Arc<Case>) -> Outcome {
    let built = case.provider.build(ImageSpec::registry("")).await.map(drop);
    refused("an empty reference of an image", built, &Kind::InvalidArgument)?;
    Ok(())
}

async fn workdir(case: Arc<Case>) -> Outcome {
    let spec = own(&case).0.command("WORKDIR /conformance/work");
    let image = case.provider.build(spec).await?.finish(|_| ()).await?;
    case.made_image(&image.id);
    for (how, image) in [("`read-build`", &image), ("`get-image`", &case.provider.image(&image.id).await?)] {
        let right = image.workdir.as_deref().is_none_or(|workdir| workdir == "/conformance/work");
        ensure!(right, "{how} returned the working directory {:?}", image.workdir);
    }
    let sandbox = case.create(SandboxSpec { image: ImageSpec::id(&image.id), ..case.spec() }).await?;
    let found = case.sh(&sandbox, "pwd").await?;
    ensure!(found == "/conformance/work", "commands run in {found:?}");
    Ok(())
}

async fn on_top(case: Arc<Case>) -> Outcome {
    let (spec, mark) = own(&case);
    let (first, _) = build(&case, spec).await?;
    let next = ImageSpec::id(&first).command("RUN cat /conformance-mark >/conformance-next");
    let (image, _) = build(&case, next).await?;
    ensure!(image != first, "an image with a command on top of {first} has the same id");
    let sandbox = case.create(SandboxSpec { image: ImageSpec::id(image), ..case.spec() }).await?;
    let found = case.sh(&sandbox, "cat /conformance-next").await?;
    ensure!(found == mark, "the file of the second image has the content {found:?} instead of {mark:?}");
    Ok(())
}

async fn failed_build(case: Arc<Case>) -> Outcome {
    let (base, mark) = (case.base().await?, fresh_id());
    let text = format!("FROM {base}\nRUN echo {mark}\nRUN echo the reason; exit 3\nRUN echo never\n");
    let mut build = case.provider.build(ImageSpec::dockerfile(text)).await?;
    let mut log = String::new();
    loop {
        match build.next().await {
            Ok(Some(chunk)) => log.push_str(&chunk.text),
            Ok(None) => return failed("a build whose instruction exits with 3 succeeded"),
            Err(error) => {
                refused::<()>("a build that fails", Err(error), &Kind::BuildFailed)?;
                ensure!(log.contains("the reason"), "the log lacks the output of the failed instruction: {log:?}");
                // The log may name the instruction, but not show its output.
                let later = log.lines().any(|line| line.trim() == "never");
                ensure!(!later, "an instruction after the failed one was executed: {log:?}");
                return Ok(());
            }
        }
    }
}

async fn bad_dockerfile(case: Arc<Case>) -> Outcome {
    for (text, what) in [("RUN true\n", "without FROM"), ("FROM a\0\n", "with NUL")] {
        let built = case.provider.build(ImageSpec::dockerfile(text)).await.map(drop);
        refused(&format!("a Dockerfile {what}"), built, &Kind::InvalidArgument)?;
    }
    Ok(())
}

async fn create_builds(case: Arc<Case>) -> Outcome {
    let (spec, mark) = own(&case);
    is_marked(&case, spec, &mark).await
}

async fn unknown_extra(case: Arc<Case>) -> Outcome {
    let extra = vec![("conformance-unknown".to_owned(), "1".to_owned())];
    let built = case.provider.build(ImageSpec { extra, ..case.image() }).await;
    refused("an image with an unknown name in `extra`", built.map(drop), &Kind::InvalidArgument)?;
    Ok(())
}

async fn delete(case: Arc<Case>) -> Outcome {
    let (image, _) = build(&case, own(&case).0).await?;
    for _ in 0..2 {
        case.provider.delete_image(&image).await?;
    }
    refused("`get-image` of a deleted image", case.provider.image(&image).await, &Kind::NotFound)?;
    Ok(())
}

async fn unknown(case: Arc<Case>) -> Outcome {
    let (image, _) = build(&case, own(&case).0).await?;
    let unknown = altered(&image);
    refused("`get-image` of an unknown image", case.provider.image(&unknown).await, &Kind::NotFound)?;
    let spec = SandboxSpec { image: ImageSpec::id(unknown), ..case.spec() };
    refused("`create` of an unknown image", case.try_create(spec).await.map(drop), &Kind::NotFound)?;
    Ok(())
}

/// Returns the ids of all images by pages of at most `max`, in their order.
async fn listed(case: &Case, max: u32) -> Outcome<Vec<String>> {
    let (mut found, mut cursor) = (Vec::new(), None);
    for _ in 0..10_000 {
        let page = case.provider.images(cursor, max).await?;
        ensure!(page.items.len() <= max as usize, "a page with `max` {max} has {} images", page.items.len());
        found.extend(page.items.into_iter().map(|image| image.id));
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(found),
        }
    }
    failed("the list of images had not ended after 10000 pages")
}

async fn list(case: Arc<Case>) -> Outcome {
    let (image, _) = build(&case, own(&case).0).await?;
    for max in [1000, 100] {
        let count = listed(&case, max).await?.into_iter().filter(|found| *found == image).count();
        ensure!(count == 1, "with pages of {max}, {image} is {count} times among the images");
    }
    Ok(())
}

async fn list_order(case: Arc<Case>) -> Outcome {
    let (first, _) = build(&case, own(&case).0).await?;
    // Services record the time of creation in seconds or finer.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (second, _) = build(&case, own(&case).0).await?;
    let found = listed(&case, 1000).await?;
    let at = |image: &String| found.iter().position(|found| found == image);
    let newest_first = matches!((at(&first), at(&second)), (Some(first), Some(second)) if second < first);
    ensure!(newest_first, "of two images, the older one is at {:?} and the newer one at {:?}", at(&first), at(&second));
    Ok(())
}

async fn list_pages(case: Arc<Case>) -> Outcome {
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(build(&case, own(&case).0).await?.0);
    }
    let found = listed(&case, 2).await?;
    for image in made {
        // Other checks build and delete images at the same time, so only these are counted.
        let count = found.iter().filter(|found| **found == image).count();
        ensure!(count == 1, "{image} stands on {count} pages");
    }
    Ok(())
}

async fn list_deleted(case: Arc<Case>) -> Outcome {
    let (image, _) = build(&case, own(&case).0).await?;
    case.provider.delete_image(&image).await?;
    let found = listed(&case, 1000).await?;
    ensure!(!found.contains(&image), "{image} is listed although it was deleted");
    Ok(())
}

async fn list_max(case: Arc<Case>) -> Outcome {
    refused("`list-images` with `max` 0", case.provider.images(None, 0).await, &Kind::InvalidArgument)?;
    case.provider.images(None, 1).await?;
    case.provider.images(None, 1000).await?;
    Ok(())
}
