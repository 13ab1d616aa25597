//! Sandboxes and images: repeated requests, results, lists, logs.

use modal_proto::client as proto;
use modal_proto::client::generic_result::GenericStatus;
use tonic::{Code, Request};

use super::client::{World, code};

#[tokio::test]
async fn the_same_key_makes_one_sandbox() {
    let mut world = World::start().await;
    let mut ids = Vec::new();
    for key in ["k1", "k1", "k2"] {
        let mut request = Request::new(world.request(world.definition()));
        request.metadata_mut().insert("x-idempotency-key", key.parse().unwrap());
        ids.push(world.control.sandbox_create_v2(request).await.unwrap().into_inner().sandbox_id);
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}

#[tokio::test]
async fn results_by_the_way_it_ended() {
    let mut world = World::start().await;
    for (script, status, exitcode) in [
        ("exit 0", GenericStatus::Success, 0),
        ("exit 42", GenericStatus::Failure, 42),
        ("kill -9 $$", GenericStatus::Failure, 137),
    ] {
        let mut definition = world.definition();
        definition.entrypoint_args = ["sh", "-c", script].map(str::to_owned).to_vec();
        let sandbox = world.sandbox_with(definition).await;
        let result = world.wait(&sandbox.id).await.unwrap();
        assert_eq!((result.status(), result.exitcode), (status, exitcode), "{script}");
    }
}

#[tokio::test]
async fn no_result_while_it_runs() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("x", "true").await;
    let poll = proto::SandboxWaitRequest { sandbox_id: sandbox.id.clone(), timeout: 0.0 };
    let answer = world.control.sandbox_wait_v2(poll).await.unwrap().into_inner();
    assert_eq!(answer.result, None);
    assert_eq!(answer.metadata.unwrap().app_id, world.app_id);
}

#[tokio::test]
async fn lists_come_in_pages_newest_first() {
    let mut world = World::start().await;
    let mut definition = world.definition();
    definition.image_id = world.build(&["FROM debian", "CMD [\"sleep\", \"1000\"]"]).await.unwrap();
    let mut made = Vec::new();
    for _ in 0..130 {
        let request = world.request(definition.clone());
        made.push(world.control.sandbox_create_v2(request).await.unwrap().into_inner().sandbox_id);
    }
    let mut seen = Vec::new();
    let mut before = 0.0;
    loop {
        let request = proto::SandboxListRequest {
            app_id: world.app_id.clone(),
            before_timestamp: before,
            include_finished: true,
            ..Default::default()
        };
        let page = world.control.sandbox_list_v2(request).await.unwrap().into_inner().sandboxes;
        let Some(last) = page.last() else { break };
        before = last.created_at;
        seen.extend(page.into_iter().map(|info| info.id));
    }
    made.reverse();
    assert_eq!(seen, made);
    world.emulator.shutdown().await;
}

#[tokio::test]
async fn entry_point_output_is_kept_and_cut_at_characters() {
    let mut world = World::start().await;
    let mut definition = world.definition();
    definition.entrypoint_args =
        ["sh", "-c", "printf 'gr\\303'; printf '\\274ße\\n'; exit 3"].map(str::to_owned).to_vec();
    let request = proto::SandboxCreateRequest {
        app_id: world.app_id.clone(),
        definition: Some(definition),
        ..Default::default()
    };
    let made = world.control.sandbox_create(request).await.unwrap().into_inner();
    assert_eq!(made.sandbox_id.len(), 25);
    let logs = |last_entry_id: &str| proto::SandboxGetLogsRequest {
        sandbox_id: made.sandbox_id.clone(),
        file_descriptor: proto::FileDescriptor::Stdout as i32,
        timeout: 20.0,
        last_entry_id: last_entry_id.to_owned(),
    };
    let mut text = String::new();
    let mut cursors = Vec::new();
    let mut stream = world.control.sandbox_get_logs(logs("0-0")).await.unwrap().into_inner();
    let mut ended = false;
    while let Some(batch) = stream.message().await.unwrap() {
        text.extend(batch.items.iter().map(|item| item.data.as_str()));
        cursors.push((batch.entry_id.clone(), text.clone()));
        ended |= batch.eof;
    }
    assert_eq!(text, "grüße\n");
    assert!(ended);
    // A stream that is resumed at any cursor continues exactly there.
    for (cursor, before) in cursors {
        let mut stream = world.control.sandbox_get_logs(logs(&cursor)).await.unwrap().into_inner();
        let mut all = before;
        while let Some(batch) = stream.message().await.unwrap() {
            all.extend(batch.items.iter().map(|item| item.data.as_str()));
        }
        assert_eq!(all, "grüße\n", "{cursor}");
    }
}

#[tokio::test]
async fn build_logs_come_line_by_line_and_again() {
    let mut world = World::start().await;
    let image_id = world.build(&["FROM debian", "RUN echo one; echo two >&2; printf three"]).await.unwrap();
    let join = proto::ImageJoinStreamingRequest {
        image_id: image_id.clone(),
        timeout: 20.0,
        include_logs_for_finished: true,
        ..Default::default()
    };
    let mut stream = world.control.image_join_streaming(join).await.unwrap().into_inner();
    let (mut lines, mut result) = (Vec::new(), None);
    while let Some(message) = stream.message().await.unwrap() {
        lines.extend(message.task_logs.into_iter().map(|log| (log.file_descriptor, log.data)));
        result = result.or(message.result);
    }
    for wanted in [(1, "one\n"), (2, "two\n"), (1, "three")] {
        assert!(lines.contains(&(wanted.0, wanted.1.to_owned())), "{wanted:?} in {lines:?}");
    }
    assert_eq!(result.unwrap().status(), GenericStatus::Success);
    // The same definition returns the same image without a build.
    assert_eq!(world.build(&["FROM debian", "RUN echo one; echo two >&2; printf three"]).await.unwrap(), image_id);
}

#[tokio::test]
async fn failing_builds_name_line_and_code() {
    let mut world = World::start().await;
    for (lines, says) in [
        (&["FROM debian", "RUN exit 7"][..], "line 2 (RUN exit 7): the command exited with code 7"),
        (&["FROM debian", "BAKE x"], "line 2: unknown instruction: BAKE"),
        (&["RUN true"], "there is no FROM before this line"),
        (&["FROM does-not-exist"], "manifest for does-not-exist not found"),
        (&["FROM a:b:c"], "invalid reference format"),
        (&["FROM debian", "COPY nothing /"], "nothing: not found"),
        (&["FROM debian", "ADD https://example.com/x /x"], "does not download files"),
        (&["# nothing"], "no FROM"),
    ] {
        let error = world.build(lines).await.unwrap_err();
        assert!(error.contains(says), "{lines:?}: {error}");
    }
}

#[tokio::test]
async fn names_are_given_once() {
    let mut world = World::start().await;
    let (one, two) = (world.sandbox().await, world.sandbox().await);
    let name = |id: &str, name: &str| proto::SandboxSetNameRequest { sandbox_id: id.to_owned(), name: name.to_owned() };
    world.control.sandbox_set_name(name(&one.id, "first")).await.unwrap();
    world.control.sandbox_set_name(name(&one.id, "first")).await.unwrap();
    assert_eq!(code(world.control.sandbox_set_name(name(&one.id, "second")).await), Code::FailedPrecondition);
    assert_eq!(code(world.control.sandbox_set_name(name(&two.id, "first")).await), Code::AlreadyExists);
    assert_eq!(code(world.control.sandbox_set_name(name(&two.id, "")).await), Code::InvalidArgument);
}
