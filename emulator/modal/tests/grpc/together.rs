//! Many callers that request the same object at the same time get one object, not one each.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use modal_proto::client as proto;
use modal_proto::task_command_router as tcr;
use proto::ObjectCreationType::CreateIfMissing;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};

use super::client::{Control, LIMIT, Running, World};

/// Number of callers of one round: more than there are threads.
const CALLERS: usize = 16;

/// Number of rounds of tests whose failure depends on chance.
const ROUNDS: usize = 25;

/// Makes the same call for all callers at the same time, and returns their results.
async fn together<T, F>(control: &Control, call: impl Fn(Control) -> F) -> Vec<Result<T, Status>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Status>> + Send + 'static,
{
    let start = Arc::new(Barrier::new(CALLERS));
    let mut calls = JoinSet::new();
    for _ in 0..CALLERS {
        let (start, call) = (start.clone(), call(control.clone()));
        calls.spawn(async move {
            start.wait().await;
            call.await
        });
    }
    calls.join_all().await
}

/// Checks that all callers got the same id, and returns it.
fn one(name: &str, ids: Vec<Result<String, Status>>) -> String {
    let ids: HashSet<String> =
        ids.into_iter().map(|id| id.unwrap_or_else(|status| panic!("{name}: {status}"))).collect();
    assert_eq!(ids.len(), 1, "{name}: {ids:?}");
    ids.into_iter().next().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_that_ask_together_for_a_new_name_get_one_object() {
    let world = World::start().await;
    let kind = CreateIfMissing as i32;
    let app_id = world.app_id.clone();
    for round in 0..ROUNDS {
        let name = format!("new-{round}");
        let named = name.clone();
        one(
            "volume",
            together(&world.control, move |mut control| {
                let request = proto::VolumeGetOrCreateRequest {
                    deployment_name: named.clone(),
                    object_creation_type: kind,
                    ..Default::default()
                };
                async move { Ok(control.volume_get_or_create(request).await?.into_inner().volume_id) }
            })
            .await,
        );
        let named = name.clone();
        one(
            "secret",
            together(&world.control, move |mut control| {
                let request = proto::SecretGetOrCreateRequest {
                    deployment_name: named.clone(),
                    object_creation_type: kind,
                    ..Default::default()
                };
                async move { Ok(control.secret_get_or_create(request).await?.into_inner().secret_id) }
            })
            .await,
        );
        let named = name.clone();
        one(
            "app",
            together(&world.control, move |mut control| {
                let request = proto::AppGetOrCreateRequest {
                    app_name: named.clone(),
                    object_creation_type: kind,
                    ..Default::default()
                };
                async move { Ok(control.app_get_or_create(request).await?.into_inner().app_id) }
            })
            .await,
        );
        let named = name.clone();
        one(
            "environment",
            together(&world.control, move |mut control| {
                let request =
                    proto::EnvironmentGetOrCreateRequest { deployment_name: named.clone(), object_creation_type: kind };
                async move { Ok(control.environment_get_or_create(request).await?.into_inner().environment_id) }
            })
            .await,
        );
        let (named, app) = (name.clone(), app_id.clone());
        one(
            "image",
            together(&world.control, move |mut control| {
                let request = proto::ImageGetOrCreateRequest {
                    app_id: app.clone(),
                    image: Some(proto::Image {
                        dockerfile_commands: vec!["FROM debian".into(), format!("ENV N={named}")],
                        ..Default::default()
                    }),
                    ..Default::default()
                };
                async move { Ok(control.image_get_or_create(request).await?.into_inner().image_id) }
            })
            .await,
        );
        let named = format!("python-build-standalone.{name}");
        one(
            "mount",
            together(&world.control, move |mut control| {
                let request = proto::MountGetOrCreateRequest { deployment_name: named.clone(), ..Default::default() };
                async move { Ok(control.mount_get_or_create(request).await?.into_inner().mount_id) }
            })
            .await,
        );
    }
    // Volumes that lost the race leave no directory behind.
    let directories = std::fs::read_dir(world.emulator.state().dir.join("volumes")).unwrap().count();
    assert_eq!(directories, ROUNDS);
}

/// Of many callers that require a new object, one creates it, and the others get ALREADY_EXISTS.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_creators_makes_the_object() {
    let world = World::start().await;
    let kind = proto::ObjectCreationType::CreateFailIfExists as i32;
    for round in 0..ROUNDS {
        let name = format!("mine-{round}");
        let named = name.clone();
        let volumes = together(&world.control, move |mut control| {
            let request = proto::VolumeGetOrCreateRequest {
                deployment_name: named.clone(),
                object_creation_type: kind,
                ..Default::default()
            };
            async move { control.volume_get_or_create(request).await.map(drop) }
        })
        .await;
        let named = name.clone();
        let environments = together(&world.control, move |mut control| {
            let request =
                proto::EnvironmentGetOrCreateRequest { deployment_name: named.clone(), object_creation_type: kind };
            async move { control.environment_get_or_create(request).await.map(drop) }
        })
        .await;
        for made in [volumes, environments] {
            assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
            assert!(made.iter().flat_map(|made| made.as_ref().err()).all(|s| s.code() == Code::AlreadyExists));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attempts_of_one_call_make_one_thing() {
    let world = World::start().await;
    let (app_id, definition) = (world.app_id.clone(), world.definition());
    for round in 0..ROUNDS {
        let key = format!("key-{round}");
        let app = app_id.clone();
        one(
            "app",
            together(&world.control, move |mut control| {
                let mut request =
                    Request::new(proto::AppCreateRequest { description: "x".into(), ..Default::default() });
                request.metadata_mut().insert("x-idempotency-key", key.parse().unwrap());
                async move { Ok(control.app_create(request).await?.into_inner().app_id) }
            })
            .await,
        );
        if round > 0 {
            continue;
        }
        let definition = definition.clone();
        one(
            "sandbox",
            together(&world.control, move |mut control| {
                let mut request = Request::new(proto::SandboxCreateV2Request {
                    app_id: app.clone(),
                    definition: Some(definition.clone()),
                    ..Default::default()
                });
                request.metadata_mut().insert("x-idempotency-key", "one-sandbox".parse().unwrap());
                async move { Ok(control.sandbox_create_v2(request).await?.into_inner().sandbox_id) }
            })
            .await,
        );
        assert_eq!(world.emulator.state().tables.lock().sandboxes.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_sandboxes_gets_the_name() {
    let world = World::start().await;
    let request = world.request(proto::Sandbox { name: Some("taken".into()), ..world.definition() });
    let made = together(&world.control, move |mut control| {
        let request = request.clone();
        async move { control.sandbox_create_v2(request).await.map(drop) }
    })
    .await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
    assert!(made.iter().flat_map(|made| made.as_ref().err()).all(|s| s.code() == Code::AlreadyExists));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_persistent_sandbox_is_resumed_once() {
    let mut world = World::start().await;
    let definition = proto::Sandbox { entrypoint_args: vec!["sleep".into(), "600".into()], ..world.definition() };
    let request = proto::PersistentSandboxCreateRequest { app_id: world.app_id.clone(), definition: Some(definition) };
    let made = world.control.persistent_sandbox_create(request).await.unwrap().into_inner();
    let (id, mut session) = (made.persistent_sandbox_id, made.sandbox_id);
    for _ in 0..3 {
        let request =
            proto::SandboxGetTaskIdRequest { sandbox_id: session.clone(), wait_until_ready: true, timeout: Some(30.0) };
        world.control.sandbox_get_task_id_v2(request).await.unwrap();
        world
            .control
            .sandbox_terminate_v2(proto::SandboxTerminateRequest { sandbox_id: session.clone() })
            .await
            .unwrap();
        world.wait(&session).await.expect("the session ends");
        let chain = id.clone();
        let next = one(
            "session",
            together(&world.control, move |mut control| {
                let request = proto::PersistentSandboxResumeRequest { persistent_sandbox_id: chain.clone() };
                async move { Ok(control.persistent_sandbox_resume(request).await?.into_inner().sandbox_id) }
            })
            .await,
        );
        assert_ne!(next, session);
        session = next;
    }
    assert_eq!(world.emulator.state().tables.lock().sandboxes.len(), 4);
}

/// Concurrent callers each got a container of the same name, and all but one kept running without being in the sandbox's list.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_sidecars_gets_the_name_and_the_memory() {
    let mut world = World::start().await;
    let mut definition = world.definition();
    definition.experimental_options_v2.insert("vm_sidecar_memory_reserve_mib".into(), "64".into());
    let sandbox = world.sandbox_with(definition).await;
    let image_id = world.image_id.clone();
    let create = |name: fn(usize) -> String, memory: Option<u32>| {
        let start = Arc::new(Barrier::new(CALLERS));
        let mut calls = JoinSet::new();
        for number in 0..CALLERS {
            let (mut router, start) = (sandbox.router.clone(), start.clone());
            let request = tcr::TaskContainerCreateRequest {
                task_id: sandbox.task_id.clone(),
                container_name: name(number),
                image_id: image_id.clone(),
                memory_reserve_consume_mib: memory,
                ..Default::default()
            };
            calls.spawn(async move {
                start.wait().await;
                router.task_container_create(request).await.map(|made| made.into_inner().container_id)
            });
        }
        calls.join_all()
    };
    let made = create(|_| "same".into(), Some(16)).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
    assert!(made.iter().flat_map(|made| made.as_ref().err()).all(|s| s.code() == Code::AlreadyExists));
    let made = create(|number| format!("other-{number}"), Some(16)).await;
    // Of 64 MiB, the first sidecar has taken 16.
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 3);
    assert!(made.iter().flat_map(|made| made.as_ref().err()).all(|s| s.code() == Code::ResourceExhausted));
    assert_eq!(containers(&world), 5);
    end(&mut world, &sandbox).await;
    let deadline = tokio::time::Instant::now() + LIMIT;
    while containers(&world) > 0 {
        assert!(tokio::time::Instant::now() < deadline, "{} containers are left", containers(&world));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn end(world: &mut World, sandbox: &Running) {
    let request = proto::SandboxTerminateRequest { sandbox_id: sandbox.id.clone() };
    world.control.sandbox_terminate_v2(request).await.unwrap();
    world.wait(&sandbox.id).await.expect("the sandbox ends");
}

/// Returns the number of containers that have a directory.
fn containers(world: &World) -> usize {
    std::fs::read_dir(world.emulator.state().dir.join("containers")).unwrap().count()
}

/// A request that is repeated while its first attempt waits for the pipe is written once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attempts_of_one_stdin_write_are_written_once() {
    let mut world = World::start().await;
    let definition = proto::Sandbox {
        entrypoint_args: ["sh", "-c", "read go; wc -c"].map(str::to_owned).to_vec(),
        ..world.definition()
    };
    let request = proto::SandboxCreateRequest {
        app_id: world.app_id.clone(),
        definition: Some(definition),
        ..Default::default()
    };
    let sandbox_id = world.control.sandbox_create(request).await.unwrap().into_inner().sandbox_id;
    let write = |index: u32, input: Vec<u8>, eof: bool| proto::SandboxStdinWriteRequest {
        sandbox_id: sandbox_id.clone(),
        index,
        input: input.into(),
        eof,
    };
    // More than the pipe holds: the attempts wait until the program has read the first line and continues.
    let input = [b"go\n".to_vec(), vec![b'x'; 1 << 20]].concat();
    let request = write(1, input, false);
    let done = together(&world.control, move |mut control| {
        let request = request.clone();
        async move { control.sandbox_stdin_write(request).await.map(drop) }
    })
    .await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    world.control.sandbox_stdin_write(write(2, Vec::new(), true)).await.unwrap();
    world.wait(&sandbox_id).await.expect("the sandbox ends");
    let logs = proto::SandboxGetLogsRequest {
        sandbox_id,
        file_descriptor: proto::FileDescriptor::Stdout as i32,
        timeout: 10.0,
        ..Default::default()
    };
    let mut stream = world.control.sandbox_get_logs(logs).await.unwrap().into_inner();
    let mut text = String::new();
    while let Some(batch) = stream.message().await.unwrap() {
        text.extend(batch.items.into_iter().map(|item| item.data));
    }
    assert_eq!(text.trim(), (1 << 20).to_string());
}
