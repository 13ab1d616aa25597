//! Group `core`: creating, looking up, listing, waiting for and terminating sandboxes, their tags, names and settings.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sandbox_host::types::{EndReason, ExecSpec, ListFilter, SandboxInfo, SandboxState};
use sandbox_host::{Happened, Kind, RUN_TAG, Sandbox, fresh_id};

use crate::check::{Outcome, Stop, ensure, failed, printed, refused};
use crate::table::checks;
use crate::world::{Case, OTHER_USER, altered, is_first_version};

checks! {
    "core.create" [] "create: returns the id of a sandbox that `get` knows and that runs" => create;
    "core.create-gives-new-ids" [] "sandbox-id: assigned by the provider in `create`, for one sandbox only" => new_ids;
    "core.create-with-one-key" ["create.idempotent"] "create: idempotent if `key` is set, also from another instance" => one_key;
    "core.create-with-another-key" ["create.idempotent"] "create: another key makes another sandbox" => another_key;
    "core.created-time" [] "sandbox-info: `created` is the time of creation in milliseconds since the Unix epoch" => created_time;
    "core.id-characters" [] "sandbox-id: 1 to 256 characters of `[A-Za-z0-9._-]`" => id_characters;
    "core.user" ["create.user", "exec", "program:sh", "program:id"] "sandbox-spec: `user` is the user of all commands" => user;
    "core.get-unknown" [] "get: fails with `not-found` if the provider does not know the sandbox" => get_unknown;
    "core.wait-running" [] "wait: returns none if the sandbox is still running after `wait`" => wait_running;
    "core.wait-reason" [] "wait: returns the reason of the end" => wait_reason;
    "core.wait-again" [] "wait: an ended sandbox can be waited for again, from any instance" => wait_again;
    "core.terminate-again" [] "terminate: idempotent; succeeds if the sandbox has ended already" => terminate_again;
    "core.terminate-unknown" [] "terminate: fails with `not-found` if the provider does not know the sandbox" => terminate_unknown;
    "core.get-ended" [] "get: returns the state of an ended sandbox with its reason" => get_ended;
    "core.list-has-created" [] "list: contains a sandbox that was created" => list_has;
    "core.list-newest-first" [] "list: newest first" => list_order;
    "core.list-pages" [] "list: pages have at most `max` sandboxes, together contain each sandbox once, and end" => list_pages;
    "core.list-without-ended" [] "list-filter: ended sandboxes are listed only with `include-ended`" => list_ended;
    "core.list-by-tags" ["create.tags"] "list-filter: only sandboxes that have all tags of the filter" => list_tags;
    "core.tags" ["create.tags"] "get-tags: returns the tags of `create`; the later of two values of one name is used" => tags;
    "core.tags-in-list" ["create.tags"] "list: sandboxes are listed with their tags" => tags_listed;
    "core.set-tags" ["create.tags", "tags.update"] "set-tags: replaces all tags; idempotent" => set_tags;
    "core.tags-of-unknown" ["create.tags"] "get-tags: fails with `not-found` if the provider does not know the sandbox" => tags_unknown;
    "core.find" ["create.names", "find"] "find: returns the running sandbox with this name" => find;
    "core.find-unknown" ["find"] "find: fails with `not-found` if no running sandbox has the name" => find_unknown;
    "core.name-is-taken" ["create.names"] "create: fails with `already-exists` if the name is taken" => name_taken;
    "core.name-is-free-again" ["create.names"] "sandbox-spec: `name` is unique among running sandboxes only" => name_free;
    "core.env" ["exec", "create.env", "program:sh"] "sandbox-spec: `env` is the environment of every command" => env;
    "core.workdir" ["exec", "create.workdir", "program:sh"] "sandbox-spec: `workdir` is the working directory of commands" => workdir;
    "core.lifetime" ["create.lifetime"] "sandbox-spec: the sandbox ends after `lifetime`, with the reason `lifetime`" => lifetime;
    "core.idle-timeout" ["create.idle-timeout"] "sandbox-spec: the sandbox ends after `idle-timeout` without an exec, with the reason `idle`" => idle;
    "core.set-name" ["create.names", "find"] "set-name: names a sandbox without a name; idempotent" => set_name;
    "core.entry-point" ["create.command", "program:sh"] "end-reason: `finished` with the exit code of the entry point" => entry_point;
    "core.entry-point-killed" ["create.command", "program:sh"] "end-reason: 128 + N as the exit code of an entry point that signal N killed" => entry_point_killed;
    "core.entry-point-missing" ["create.command"] "end-reason: 127, or `failed-to-start`, if the program of the entry point does not exist" => entry_point_missing;
    "core.readiness" ["create.readiness", "exec", "program:sh"] "wait-ready: returns false until the probe succeeds, then true" => readiness;
    "core.readiness-of-port" ["create.readiness", "create.command", "program:sh"] "readiness: `tcp` if the port accepts a connection" => readiness_of_port;
    "core.no-readiness-probe" ["create.readiness"] "wait-ready: fails with `conflict` if the sandbox has no probe" => no_probe;
    "core.sandboxes-are-apart" ["exec", "files"] "create: a file of one sandbox is not in another one" => apart;
}

/// How long one answer of the service may take at most.
const ANSWER: Duration = Duration::from_secs(20);

/// How long the end of a sandbox may take after it was caused.
const END: Duration = Duration::from_secs(60);

async fn create(case: Arc<Case>) -> Outcome {
    let made = case.try_create(case.spec()).await?;
    let (id, info) = (made.sandbox.id().to_owned(), made.info);
    ensure!(!id.is_empty() && info.id == id, "the id is {id:?}");
    ensure!(!matches!(info.state, SandboxState::Ended(_)), "a new sandbox has the state {:?}", info.state);
    let known = made.sandbox.info().await?;
    ensure!(known.id == id, "`get` of {id} returned the sandbox {}", known.id);
    ensure!(!matches!(known.state, SandboxState::Ended(_)), "a running sandbox has the state {:?}", known.state);
    Ok(())
}

async fn new_ids(case: Arc<Case>) -> Outcome {
    let (one, other) = (case.sandbox().await?, case.sandbox().await?);
    ensure!(one.id() != other.id(), "two sandboxes have the id {}", one.id());
    Ok(())
}

async fn one_key(case: Arc<Case>) -> Outcome {
    let key = fresh_id();
    let first = case.create(case.spec().key(&key)).await?;
    let again = case.create(case.spec().key(&key)).await?;
    ensure!(first.id() == again.id(), "two creates with one key made {} and {}", first.id(), again.id());
    let other = case.try_create_by(&case.other().await?, case.spec().key(&key)).await?.sandbox;
    ensure!(first.id() == other.id(), "another instance made {} with the key of {}", other.id(), first.id());
    Ok(())
}

async fn another_key(case: Arc<Case>) -> Outcome {
    let first = case.create(case.spec().key(fresh_id())).await?;
    let other = case.create(case.spec().key(fresh_id())).await?;
    ensure!(first.id() != other.id(), "two creates with different keys both returned {}", first.id());
    Ok(())
}

async fn id_characters(case: Arc<Case>) -> Outcome {
    if is_first_version(&case.provider) {
        return Err(Stop::Skipped("the interface 0.1 does not restrict ids".to_owned()));
    }
    let id = case.shared().await?.id().to_owned();
    let fits = (1..=256).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    ensure!(fits, "the id is {id:?}");
    Ok(())
}

async fn user(case: Arc<Case>) -> Outcome {
    let id = case.other_user().await?;
    let sandbox = case.create(case.spec().user(OTHER_USER)).await?;
    let found = case.sh(&sandbox, "id -u").await?;
    ensure!(found == id, "commands run as {found} instead of {id}");
    Ok(())
}

async fn created_time(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let Some(created) = sandbox.info().await?.created else { return Ok(()) };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis());
    // The clocks of this machine and of the service may differ. A value in seconds or microseconds is far outside.
    let apart = now.abs_diff(u128::from(created));
    ensure!(apart < 24 * 3600 * 1000, "`created` is {created}, and it is {now}");
    Ok(())
}

/// Returns a handle to a sandbox that does not exist.
async fn unknown(case: &Case) -> Outcome<Sandbox> {
    Ok(case.provider.sandbox(altered(case.shared().await?.id())))
}

async fn get_unknown(case: Arc<Case>) -> Outcome {
    let unknown = unknown(&case).await?;
    let error = refused("`get` of an unknown sandbox", unknown.info().await, &Kind::NotFound)?;
    ensure!(error.happened() == Happened::No, "the error says happened: {:?}", error.happened());
    Ok(())
}

async fn wait_running(case: Arc<Case>) -> Outcome {
    for time in [Duration::ZERO, Duration::from_millis(300)] {
        let sandbox = case.shared().await?;
        let Ok(ended) = tokio::time::timeout(time + ANSWER, sandbox.wait_for(time)).await else {
            return failed(format!("`wait` for {time:?} had not returned {ANSWER:?} later"));
        };
        let ended = ended?;
        ensure!(ended.is_none(), "`wait` for {time:?} says that a running sandbox has ended: {ended:?}");
    }
    Ok(())
}

async fn wait_reason(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let waiting = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.wait_for(END).await }
    });
    sandbox.terminate().await?;
    let Ok(ended) = waiting.await else { return failed("the wait ended with a panic") };
    let ended = ended?;
    ensure!(matches!(ended, Some(EndReason::Terminated)), "`wait` for a terminated sandbox returned {ended:?}");
    Ok(())
}

async fn wait_again(case: Arc<Case>) -> Outcome {
    let ended = case.ended().await?;
    for provider in [case.provider.clone(), case.other().await?] {
        let again = provider.sandbox(ended.id()).wait_for(END).await?;
        ensure!(matches!(again, Some(EndReason::Terminated)), "a second `wait` returned {again:?}");
    }
    Ok(())
}

async fn terminate_again(case: Arc<Case>) -> Outcome {
    let ended = case.ended().await?;
    ended.terminate().await?;
    case.other().await?.sandbox(ended.id()).terminate().await?;
    Ok(())
}

async fn terminate_unknown(case: Arc<Case>) -> Outcome {
    let unknown = unknown(&case).await?;
    refused("`terminate` of an unknown sandbox", unknown.terminate().await, &Kind::NotFound)?;
    Ok(())
}

async fn get_ended(case: Arc<Case>) -> Outcome {
    let state = case.ended().await?.info().await?.state;
    ensure!(matches!(state, SandboxState::Ended(EndReason::Terminated)), "the state is {state:?}");
    Ok(())
}

/// Returns all running sandboxes that this run can see, at most 5000.
async fn listed(case: &Case, filter: &ListFilter) -> Outcome<Vec<SandboxInfo>> {
    Ok(case.provider.list(filter, 5000).await?)
}

async fn list_has(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let found = listed(&case, &case.filter()).await?;
    let count = found.iter().filter(|info| info.id == sandbox.id()).count();
    ensure!(count == 1, "the list of {} sandboxes has the new one {count} times", found.len());
    Ok(())
}

async fn list_order(case: Arc<Case>) -> Outcome {
    let first = case.sandbox().await?;
    // Services record the time of creation in seconds or finer.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let second = case.sandbox().await?;
    let found = listed(&case, &case.filter()).await?;
    let at = |sandbox: &Sandbox| found.iter().position(|info| info.id == sandbox.id());
    let (first, second) = (at(&first), at(&second));
    let newest_first = matches!((first, second), (Some(first), Some(second)) if second < first);
    ensure!(newest_first, "of two sandboxes, the older one is at {first:?} and the newer one at {second:?}");
    Ok(())
}

async fn list_pages(case: Arc<Case>) -> Outcome {
    let mut made = HashSet::new();
    for _ in 0..3 {
        made.insert(case.sandbox().await?.id().to_owned());
    }
    let mut orders = Vec::new();
    for max in [2, 1, 1000] {
        let mut found = on_pages(&case, max).await?;
        found.retain(|id| made.contains(id));
        let missing = made.len() - found.len();
        ensure!(missing == 0, "with pages of {max}, {missing} of {} sandboxes are on no page", made.len());
        orders.push(found);
    }
    let same = orders.iter().all(|order| *order == orders[0]);
    ensure!(same, "the order depends on the size of the pages: {orders:?}");
    Ok(())
}

/// Returns the ids of all sandboxes of this run, in the order of pages of this size.
async fn on_pages(case: &Case, max: u32) -> Outcome<Vec<String>> {
    let (mut found, mut seen, mut cursor) = (Vec::new(), HashSet::new(), None);
    // Other checks create sandboxes at the same time, so the number of pages is not known. It is bounded all the same.
    for _ in 0..2000 {
        let page = case.provider.list_page(&case.filter(), cursor, max).await?;
        ensure!(page.items.len() <= max as usize, "a page with `max` {max} has {} sandboxes", page.items.len());
        for info in page.items {
            ensure!(seen.insert(info.id.clone()), "{} stands on two pages", info.id);
            found.push(info.id);
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(found),
        }
    }
    failed("the list had not ended after 2000 pages")
}

async fn list_ended(case: Arc<Case>) -> Outcome {
    let ended = case.ended().await?;
    let found = listed(&case, &case.filter()).await?;
    ensure!(found.iter().all(|info| info.id != ended.id()), "an ended sandbox is listed as running");
    let all = ListFilter { include_ended: true, ..case.filter() };
    for info in listed(&case, &all).await?.iter().filter(|info| info.id == ended.id()) {
        let right = matches!(info.state, SandboxState::Ended(EndReason::Terminated));
        ensure!(right, "a terminated sandbox is listed with {:?}", info.state);
    }
    Ok(())
}

async fn list_tags(case: Arc<Case>) -> Outcome {
    let mark = fresh_id();
    let one = case.create(case.spec().tag("conformance", &mark).tag("part", "one")).await?;
    let two = case.create(case.spec().tag("conformance", &mark).tag("part", "two")).await?;
    let ids = async |filter: ListFilter| {
        let mut ids: Vec<_> = listed(&case, &filter).await?.into_iter().map(|info| info.id).collect();
        ids.sort();
        Outcome::Ok(ids)
    };
    let mark = ListFilter::default().tag("conformance", &mark);
    let mut both = [one.id().to_owned(), two.id().to_owned()];
    both.sort();
    let found = ids(mark.clone()).await?;
    ensure!(found == both, "a filter with one tag found {found:?} instead of {both:?}");
    let found = ids(mark.clone().tag("part", "two")).await?;
    ensure!(found == [two.id()], "a filter with two tags found {found:?} instead of {:?}", two.id());
    let found = ids(mark.tag("part", "three")).await?;
    ensure!(found.is_empty(), "a filter with a value that no sandbox has found {found:?}");
    Ok(())
}

/// Returns the tags without the one that each sandbox of this run has, sorted.
fn own(mut tags: Vec<(String, String)>) -> Vec<(String, String)> {
    tags.retain(|(name, _)| name != RUN_TAG);
    tags.sort();
    tags
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn tags(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().tag("a", "1").tag("b", "first").tag("b", "later")).await?;
    for provider in [case.provider.clone(), case.other().await?] {
        let found = own(provider.sandbox(sandbox.id()).tags().await?);
        ensure!(found == pairs(&[("a", "1"), ("b", "later")]), "the tags are {found:?}");
    }
    Ok(())
}

async fn tags_listed(case: Arc<Case>) -> Outcome {
    let mark = fresh_id();
    let sandbox = case.create(case.spec().tag("conformance", &mark)).await?;
    let found = listed(&case, &case.filter()).await?;
    let Some(info) = found.into_iter().find(|info| info.id == sandbox.id()) else {
        return failed("a new sandbox is not listed");
    };
    ensure!(info.tags.contains(&("conformance".to_owned(), mark)), "the listed tags are {:?}", info.tags);
    Ok(())
}

async fn set_tags(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().tag("before", "1")).await?;
    let run = sandbox.tags().await?.into_iter().filter(|(name, _)| name == RUN_TAG);
    let wanted: Vec<_> = run.chain(pairs(&[("after", "2")])).collect();
    for _ in 0..2 {
        sandbox.set_tags(wanted.clone()).await?;
        let found = own(case.other().await?.sandbox(sandbox.id()).tags().await?);
        ensure!(found == pairs(&[("after", "2")]), "the tags are {found:?} after they were replaced");
    }
    Ok(())
}

async fn tags_unknown(case: Arc<Case>) -> Outcome {
    let unknown = unknown(&case).await?;
    refused("`get-tags` of an unknown sandbox", unknown.tags().await, &Kind::NotFound)?;
    Ok(())
}

/// Returns a name that no sandbox has.
fn free_name() -> String {
    format!("conformance-{}", fresh_id())
}

async fn find(case: Arc<Case>) -> Outcome {
    let name = free_name();
    let sandbox = case.create(case.spec().name(&name)).await?;
    let found = case.other().await?.find(&name).await?;
    ensure!(found.sandbox.id() == sandbox.id(), "`find` returned {} instead of {}", found.sandbox.id(), sandbox.id());
    ensure!(found.info.name.as_deref() == Some(name.as_str()), "its name is {:?}", found.info.name);
    Ok(())
}

async fn find_unknown(case: Arc<Case>) -> Outcome {
    refused("`find` of an unknown name", case.provider.find(&free_name()).await, &Kind::NotFound)?;
    Ok(())
}

async fn name_taken(case: Arc<Case>) -> Outcome {
    let name = free_name();
    case.create(case.spec().name(&name)).await?;
    let again = case.try_create(case.spec().name(&name)).await;
    let error = refused("`create` with the name of a running sandbox", again, &Kind::AlreadyExists)?;
    ensure!(error.happened() == Happened::No, "the error says happened: {:?}", error.happened());
    Ok(())
}

async fn name_free(case: Arc<Case>) -> Outcome {
    let name = free_name();
    let first = case.create(case.spec().name(&name)).await?;
    first.terminate().await?;
    first.wait_for(END).await?;
    let second = case.create(case.spec().name(&name)).await?;
    ensure!(first.id() != second.id(), "the name of an ended sandbox returned it again");
    Ok(())
}

async fn env(case: Arc<Case>) -> Outcome {
    let value = "a=b '\"$x ü\n";
    let sandbox = case.create(case.spec().env("A", value).env("B", "first").env("B", "later")).await?;
    let result = sandbox.run(ExecSpec::shell(r#"printf '%s|%s' "$A" "$B""#)).await?;
    printed("the environment of a command", &result, format!("{value}|later"))?;
    let result = sandbox.run(ExecSpec::shell(r#"printf '%s' "$B""#).env("B", "of the command")).await?;
    printed("a variable of the command and of the sandbox", &result, "of the command")
}

async fn workdir(case: Arc<Case>) -> Outcome {
    case.needs_tmp().await?;
    let sandbox = case.create(case.spec().workdir("/tmp")).await?;
    printed("`pwd`", &sandbox.run(ExecSpec::shell("pwd")).await?, "/tmp\n")?;
    printed("`pwd` with a directory of its own", &sandbox.run(ExecSpec::shell("pwd").cwd("/")).await?, "/\n")
}

async fn lifetime(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().lifetime(Duration::from_secs(2))).await?;
    let ended = sandbox.wait_for(END).await?;
    ensure!(matches!(ended, Some(EndReason::Lifetime)), "a lifetime of 2 s led to {ended:?} within {END:?}");
    Ok(())
}

async fn idle(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().idle_timeout(Duration::from_secs(2))).await?;
    let ended = sandbox.wait_for(END).await?;
    ensure!(matches!(ended, Some(EndReason::Idle)), "an idle time of 2 s led to {ended:?} within {END:?}");
    Ok(())
}

async fn set_name(case: Arc<Case>) -> Outcome {
    let (sandbox, other, name) = (case.sandbox().await?, case.sandbox().await?, free_name());
    for provider in [case.provider.clone(), case.other().await?] {
        match provider.sandbox(sandbox.id()).set_name(&name).await {
            Err(error) if *error.kind() == Kind::Unsupported => {
                return Err(Stop::Skipped("a sandbox can only be named when it is created".to_owned()));
            }
            named => named?,
        }
        let found = provider.find(&name).await?;
        ensure!(
            found.sandbox.id() == sandbox.id(),
            "`find` returned {} instead of {}",
            found.sandbox.id(),
            sandbox.id()
        );
    }
    refused("`set-name` with another name", sandbox.set_name(&free_name()).await, &Kind::Conflict)?;
    refused("`set-name` with a name that is taken", other.set_name(&name).await, &Kind::AlreadyExists)?;
    refused("`set-name` with two words", other.set_name("two words").await, &Kind::InvalidArgument)?;
    refused("`set-name` of an unknown sandbox", unknown(&case).await?.set_name(&free_name()).await, &Kind::NotFound)?;
    Ok(())
}

async fn entry_point_killed(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().command(["/bin/sh", "-c", "kill -9 $$"])).await?;
    let ended = sandbox.wait_for(END).await?;
    ensure!(matches!(ended, Some(EndReason::Finished(137))), "an entry point killed by signal 9 led to {ended:?}");
    Ok(())
}

async fn entry_point_missing(case: Arc<Case>) -> Outcome {
    // The provider may find out before the sandbox exists.
    let made = case.try_create(case.spec().command(["/conformance/no/such/program"])).await;
    let sandbox = match made {
        Err(error) if matches!(error.kind(), Kind::InvalidArgument | Kind::NotFound) => return Ok(()),
        made => made?.sandbox,
    };
    let ended = sandbox.wait_for(END).await?;
    let fits = matches!(ended, Some(EndReason::Finished(127) | EndReason::FailedToStart(_)));
    ensure!(fits, "an entry point that does not exist led to {ended:?}");
    Ok(())
}

async fn entry_point(case: Arc<Case>) -> Outcome {
    let spec = case.spec().command(["/bin/sh", "-c", "exit 7"]);
    let sandbox = case.create(spec).await?;
    let ended = sandbox.wait_for(END).await?;
    ensure!(matches!(ended, Some(EndReason::Finished(7))), "an entry point that exited with 7 led to {ended:?}");
    Ok(())
}

async fn readiness(case: Arc<Case>) -> Outcome {
    case.needs_tmp().await?;
    let sandbox = case.create(case.spec().ready_when(["/bin/sh", "-c", "test -e /tmp/ready"])).await?;
    let early = sandbox.wait_ready(Duration::from_millis(200)).await?;
    ensure!(!early, "the sandbox is ready although its probe cannot succeed yet");
    case.sh(&sandbox, ": >/tmp/ready").await?;
    let ready = sandbox.wait_ready(END).await?;
    ensure!(ready, "the sandbox was not ready {END:?} after its probe could succeed");
    Ok(())
}

async fn readiness_of_port(case: Arc<Case>) -> Outcome {
    let bench = case.bench().await?;
    let server: &[&str] = if bench.has("python3") {
        &["python3", "-m", "http.server", "8080"]
    } else if bench.has("nc") {
        &["/bin/sh", "-c", "while :; do nc -l -p 8080 </dev/null || nc -l 8080 </dev/null; done"]
    } else {
        return Err(Stop::Skipped("the sandbox has neither `python3` nor `nc`".to_owned()));
    };
    let sandbox = case.create(case.spec().ready_when_listening(8080).command(server.iter().copied())).await?;
    let ready = sandbox.wait_ready(END).await?;
    ensure!(ready, "the sandbox was not ready {END:?} after a program could listen");
    Ok(())
}

async fn no_probe(case: Arc<Case>) -> Outcome {
    let waited = case.shared().await?.wait_ready(Duration::from_secs(1)).await;
    refused("`wait-ready` without a probe", waited, &Kind::Conflict)?;
    Ok(())
}

async fn apart(case: Arc<Case>) -> Outcome {
    let (one, other) = (case.sandbox().await?, case.sandbox().await?);
    let path = case.path("file");
    one.write_file(&path, "x", Default::default()).await?;
    let found = other.read_file(&path, 10).await;
    crate::check::fault("a file of another sandbox", found, sandbox_host::FileFault::NotFound)?;
    Ok(())
}
