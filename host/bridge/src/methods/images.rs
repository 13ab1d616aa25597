//! Images and builds.

use std::sync::OnceLock;

use serde_json::json;
use tokio::sync::Mutex;

use super::base::{Answer, Context};
use crate::fault::Fault;
use crate::objects::{BuildObject, ProviderObject, Use};
use crate::reply::Reply;
use crate::shapes::basic::Shape;
use crate::shapes::image::Image;
use crate::shapes::results::{BuiltImage, LogChunk};

methods! {
    "image.build" => build,
    "build.next" => next,
    "build.image" => image,
    "image.get" => get,
    "image.delete" => delete,
    "image.list" => list,
}

arguments! {
    Build { provider: u64, image: Image }
    OfBuild { build: u64 }
    ById { provider: u64, image: String }
    List { provider: u64, #[serde(default = "thousand")] max: usize }
}

fn thousand() -> usize {
    1000
}

fn provider(context: &Context, number: u64) -> Result<Use<ProviderObject>, Fault> {
    context.objects.get(number)
}

async fn build(context: Context, arguments: Build) -> Answer {
    let provider = provider(&context, arguments.provider)?;
    let host = &provider.object.provider;
    let started = async {
        let (spec, skipped) = arguments.image.resolve(host).await?;
        Ok::<_, sandbox_host::Error>((host.build(spec).await?, skipped))
    };
    let (build, skipped) = provider.run(started).await?;
    let number = context.objects.add(&provider, BuildObject { build: Mutex::new(build), image: OnceLock::new() })?;
    Reply::json(json!({ "build": number, "skipped": skipped }))
}

async fn next(context: Context, arguments: OfBuild) -> Answer {
    let build: Use<BuildObject> = context.objects.get(arguments.build)?;
    let object = &build.object;
    let chunk = async {
        let mut build = object.build.lock().await;
        let chunk = build.next().await?;
        if chunk.is_none()
            && let Some(image) = build.image()
        {
            let _ = object.image.set(BuiltImage::from_wit(image.clone()));
        }
        Ok::<_, sandbox_host::Error>(chunk)
    };
    Reply::json(Option::<LogChunk>::from_wit(build.run(chunk).await?))
}

async fn image(context: Context, arguments: OfBuild) -> Answer {
    let build: Use<BuildObject> = context.objects.get(arguments.build)?;
    Reply::json(build.object.image.get())
}

async fn get(context: Context, arguments: ById) -> Answer {
    let provider = provider(&context, arguments.provider)?;
    provider.shaped::<BuiltImage>(provider.object.provider.image(&arguments.image)).await
}

async fn delete(context: Context, arguments: ById) -> Answer {
    let provider = provider(&context, arguments.provider)?;
    provider.done(provider.object.provider.delete_image(&arguments.image)).await
}

async fn list(context: Context, arguments: List) -> Answer {
    let provider = provider(&context, arguments.provider)?;
    let (mut found, mut cursor) = (Vec::new(), None);
    while found.len() < arguments.max {
        let left = (arguments.max - found.len()).min(1000) as u32;
        let page = provider.run(provider.object.provider.images(cursor, left)).await?;
        let stuck = page.items.is_empty();
        found.extend(page.items);
        cursor = page.next;
        if cursor.is_none() || stuck {
            break;
        }
    }
    found.truncate(arguments.max);
    Reply::json(Vec::<BuiltImage>::from_wit(found))
}
