//! Group `images`: building, finding and deleting images.

use std::sync::Arc;

use sandbox_host::types::{ImageSpec, SandboxSpec};
use sandbox_host::{Kind, fresh_id};

use crate::check::{Outcome, ensure, failed, refused};
use crate::table::checks;
use crate::world::{Case, altered};

checks! {
    "images.commands" ["images", "image.commands", "exec", "program:sh"] "image-spec: `commands` are executed on top of the source" => commands;
    "images.same-definition" ["images", "image.commands"] "image-spec: an identical definition returns the same id" => same_definition;
    "images.other-definition" ["images", "image.commands"] "image-spec: another definition is another image" => other_definition;
    "images.force" ["images", "image.commands"] "image-spec: `force` builds again" => force;
    "images.find" ["images", "image.commands"] "get-image: returns an image by its id" => find;
    "images.by-id" ["images", "image.commands"] "image-source: an image by its id needs no build and has no log" => by_id;
    "images.dockerfile" ["images", "image.dockerfile", "exec", "program:sh"] "dockerfile: its instructions are executed" => dockerfile;
    "images.failed-build" ["images", "image.dockerfile"] "read-build: fails with `build-failed` after the whole log has been read" => failed_build;
    "images.bad-dockerfile" ["images", "image.dockerfile"] "dockerfile: text without FROM is `invalid-argument`" => bad_dockerfile;
    "images.create-builds" ["images", "image.commands", "exec", "program:sh"] "create: builds an image that is not built yet" => create_builds;
    "images.unknown-extra" ["images"] "image-spec: an unknown name in `extra` is `invalid-argument`" => unknown_extra;
    "images.delete" ["images", "image.commands", "image.delete"] "delete-image: deletes an image; idempotent" => delete;
    "images.list" ["images", "image.commands", "image.list"] "list-images: contains an image that was built" => list;
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

async fn dockerfile(case: Arc<Case>) -> Outcome {
    let mark = fresh_id();
    let text = format!("FROM debian\nRUN echo about to write\nRUN echo {mark} >/conformance-mark\n");
    let (image, log) = build(&case, ImageSpec::dockerfile(text)).await?;
    ensure!(log.contains("about to write"), "the log has no output of the instruction: {log:?}");
    is_marked(&case, ImageSpec::id(image), &mark).await
}

async fn failed_build(case: Arc<Case>) -> Outcome {
    let text = format!("FROM debian\nRUN echo {}\nRUN echo the reason; exit 3\nRUN echo never\n", fresh_id());
    let mut build = case.provider.build(ImageSpec::dockerfile(text)).await?;
    let mut log = String::new();
    loop {
        match build.next().await {
            Ok(Some(chunk)) => log.push_str(&chunk.text),
            Ok(None) => return failed("a build whose instruction exits with 3 succeeded"),
            Err(error) => {
                refused::<()>("a build that fails", Err(error), &Kind::BuildFailed)?;
                ensure!(log.contains("the reason"), "the log lacks the output of the failed instruction: {log:?}");
                return Ok(());
            }
        }
    }
}

async fn bad_dockerfile(case: Arc<Case>) -> Outcome {
    let built = case.provider.build(ImageSpec::dockerfile("RUN true\n")).await;
    refused("a Dockerfile without FROM", built.map(drop), &Kind::InvalidArgument)?;
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

async fn list(case: Arc<Case>) -> Outcome {
    let (image, _) = build(&case, own(&case).0).await?;
    let mut cursor = None;
    for _ in 0..1000 {
        let page = case.provider.images(cursor, 100).await?;
        if page.items.iter().any(|found| found.id == image) {
            return Ok(());
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    failed(format!("{image} is not among the images"))
}
