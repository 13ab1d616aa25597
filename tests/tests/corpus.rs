//! Builds the corpus of Dockerfiles with the emulator and compares the image contents with those that Docker produces.

use futures_util::{StreamExt as _, stream};
use sandbox_host::{
    LocalDockerfile, Result,
    types::{ExecSpec, ImageSpec, SandboxSpec, Verdict},
};
use system_tests::World;

#[path = "../corpus/dockerfiles.rs"]
mod dockerfiles;

use dockerfiles::Case;

/// Number of images that are built at the same time.
const MAX_CONCURRENT_BUILDS: usize = 4;

/// Shell script that lists the tree below `/out` in the format of the corpus.
const LIST: &str = r#"cd /out && find . -mindepth 1 | while IFS= read -r path; do
    name=${path#./}
    if [ -L "$path" ]; then printf '%s -> %s\n' "$name" "$(readlink "$path")"
    elif [ -d "$path" ]; then printf '%s/\t%s\n' "$name" "$(stat -c '%a	%u:%g' "$path")"
    else printf '%s\t%s\t%s\n' "$name" "$(stat -c '%a	%u:%g' "$path")" "$(tr '\n' ' ' < "$path" | sed 's/ *$//')"
    fi
done"#;

async fn listed(world: &World, case: &Case) -> Result<Vec<String>> {
    let directory = tempfile::tempdir().expect("cannot create a directory");
    let (path, context) = case.write(directory.path());
    let mut dockerfile = LocalDockerfile::read(&path).await?.context(&context);
    for (name, value) in &case.args {
        dockerfile = dockerfile.build_arg(name, value);
    }
    if let Some(target) = &case.target {
        dockerfile = dockerfile.target(target);
    }
    let (spec, _) = world.provider.dockerfile(dockerfile, |_, _| {}).await?;
    let image = world.provider.build(spec).await?.finish(|_| {}).await?;
    let sandbox = world.provider.create(SandboxSpec::new(ImageSpec::id(image.id))).await?;
    let result = sandbox.run(ExecSpec::shell(LIST)).await?;
    sandbox.terminate().await?;
    let mut lines: Vec<_> = String::from_utf8_lossy(&result.stdout.data).lines().map(str::to_owned).collect();
    if !matches!(result.verdict, Verdict::Exited(0)) {
        lines.push(String::from_utf8_lossy(&result.stderr.data).into_owned());
    }
    // The content of the Dockerfile is the case itself, which the corpus does not repeat.
    for line in &mut lines {
        if line.starts_with("Dockerfile\t") {
            *line = "Dockerfile\t644\t0:0\tDockerfile".to_owned();
        }
    }
    lines.sort();
    Ok(lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_corpus_of_dockerfiles_gives_the_trees_of_docker() {
    let world = World::start().await;
    let cases: Vec<_> = dockerfiles::all().into_iter().filter(|case| case.not_built.is_none()).collect();
    let cases: Vec<_> = cases.iter().filter(|case| case.tree.is_some()).collect();
    assert!(cases.len() >= 80, "{}", cases.len());
    let looked_at = stream::iter(cases.iter().map(|case| async {
        let found = listed(&world, case).await.unwrap_or_else(|error| vec![error.to_string()]);
        let wanted = case.tree.as_ref().expect("a case without a tree");
        (found != *wanted).then(|| format!("{}: {found:#?} instead of {wanted:#?}", case.name))
    }));
    let wrong: Vec<_> =
        looked_at.buffer_unordered(MAX_CONCURRENT_BUILDS).filter_map(|wrong| async { wrong }).collect().await;
    world.end().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
