//! Builds of images: the calls for one build, and builds that the provider loses.

use crate::common::{Server, provider};
use sandbox_host::Kind;
use sandbox_host::types::ImageSpec;

/// Builds an image. Returns its log and the number of times that the build was started.
async fn build(reference: &str) -> (sandbox_host::Result<String>, String, usize) {
    let server = Server::echo().await;
    let provider = provider(&server.url).await;
    let mut log = String::new();
    let build = provider.build(ImageSpec::registry(reference)).await.unwrap();
    let image = build.finish(|chunk| log.push_str(&chunk.text)).await;
    let started = server.seen().iter().filter(|seen| seen.uri.path().starts_with("/report/build/")).count();
    (image.map(|image| image.id), log, started)
}

#[tokio::test]
async fn a_lost_build_is_started_again_in_the_same_instance() {
    for (reference, log) in [("lost-0", "build 1\n"), ("lost-3", "build 1\nbuild 2\nbuild 3\nbuild 4\n")] {
        let (image, printed, started) = build(reference).await;
        assert_eq!((image.unwrap().as_str(), printed.as_str()), ("im-puppet", log), "{reference}");
        assert_eq!(started, log.lines().count(), "{reference}");
    }
}

#[tokio::test]
async fn a_build_is_started_again_three_times_at_most_and_only_if_it_can_help() {
    for (reference, wanted) in [("lost-9", 4), ("lost-1_final", 1), ("lost-1_unclear", 1)] {
        let (image, _, started) = build(reference).await;
        assert_eq!((image.unwrap_err().kind(), started), (&Kind::Unavailable, wanted), "{reference}");
    }
}
