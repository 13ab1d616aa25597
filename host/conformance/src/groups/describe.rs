//! Group `describe`: the description of the provider.

use std::collections::HashSet;
use std::sync::Arc;

use crate::check::{Outcome, ensure};
use crate::table::checks;
use crate::world::Case;

checks! {
    "describe.without-requests" [] "describe: sends no request" => without_requests;
    "describe.same-answer" [] "describe: returns the same answer each time, in every instance" => same_answer;
    "describe.names" [] "description: has a short name and a version" => names;
    "describe.capability-names" [] "capability: a name of the interface or one that begins with x-, and each at most once" => capability_names;
    "describe.options-schema" [] "description: options-schema is a JSON Schema object" => options_schema;
    "describe.environment" [] "env-var: each variable has a name and a purpose" => environment;
    "describe.check" [] "check: succeeds with the settings of this run, and again" => check;
}

/// The capability names of the interface. A test compares them with `wit/types.wit`.
pub(super) const NAMES: [&str; 79] = [
    "create.idempotent",
    "create.tags",
    "create.env",
    "create.secrets",
    "create.user",
    "create.command",
    "create.workdir",
    "create.cpu",
    "create.memory",
    "create.disk",
    "create.gpu",
    "create.lifetime",
    "create.idle-timeout",
    "create.regions",
    "create.volumes",
    "create.buckets",
    "create.proxy",
    "create.pty",
    "create.platform",
    "network.blocked",
    "network.cidrs",
    "network.domains",
    "network.inbound",
    "tags.update",
    "create.names",
    "find",
    "create.readiness",
    "wait-running",
    "pause",
    "stop",
    "lifetime.extend",
    "exec.idempotent",
    "exec.user",
    "exec.deadline",
    "exec.merge-stderr",
    "exec.long-argv",
    "exec.secrets",
    "exec.signal",
    "exec.pty",
    "exec.resize",
    "main.output",
    "main.input",
    "files.mode",
    "files.append",
    "files.create-new",
    "files.atomic",
    "files.rename",
    "files.symlinks",
    "files.user",
    "files.trees",
    "files.watch",
    "image.registry",
    "image.registry-credentials",
    "image.dockerfile",
    "image.context",
    "image.commands",
    "image.secrets",
    "image.gpu",
    "image.delete",
    "snapshot.filesystem",
    "snapshot.directory",
    "snapshot.exit",
    "mount",
    "snapshot.memory",
    "volumes.reload",
    "volumes.delete",
    "image.list",
    "exec.list",
    "snapshot.memory.delete",
    "network.update",
    "ports.tls",
    "ports.h2",
    "ports.tcp",
    "connect-token",
    "sidecars",
    "logs",
    "stats",
    "stats.cost",
    "cache",
];

async fn without_requests(case: Arc<Case>) -> Outcome {
    let provider = case.fresh().await?;
    provider.describe().await?;
    let sent = provider.metrics().requests;
    ensure!(sent == 0, "`describe` sent {sent} requests");
    Ok(())
}

async fn same_answer(case: Arc<Case>) -> Outcome {
    let told = |provider: sandbox_host::Provider| async move {
        let described = provider.describe().await?;
        Outcome::Ok(format!("{described:?}"))
    };
    let (first, again) = (told(case.provider.clone()).await?, told(case.provider.clone()).await?);
    ensure!(first == again, "two calls of `describe` differ");
    ensure!(first == told(case.fresh().await?).await?, "another instance describes itself differently");
    Ok(())
}

async fn names(case: Arc<Case>) -> Outcome {
    let (name, version) = (&case.description.name, &case.description.version);
    ensure!(!name.is_empty() && name.len() <= 64, "the name is {name:?}");
    ensure!(!name.contains(char::is_whitespace), "the name {name:?} contains white space");
    ensure!(!version.is_empty(), "the version is empty");
    Ok(())
}

async fn capability_names(case: Arc<Case>) -> Outcome {
    let mut seen = HashSet::new();
    for capability in &case.description.capabilities {
        let name = capability.name.as_str();
        ensure!(seen.insert(name), "`{name}` stands twice");
        // Later versions of the interface have more names, which this program does not know.
        let known = NAMES.contains(&name) || name.starts_with("x-");
        let newer = !crate::world::is_first_version(&case.provider);
        ensure!(known || newer, "`{name}` is no capability of the interface");
    }
    Ok(())
}

async fn options_schema(case: Arc<Case>) -> Outcome {
    let schema = case.description.options_schema.trim();
    ensure!(schema.starts_with('{') && schema.ends_with('}'), "the schema is {schema:.60?}");
    Ok(())
}

async fn environment(case: Arc<Case>) -> Outcome {
    let mut seen = HashSet::new();
    for variable in &case.description.environment {
        let name = &variable.name;
        ensure!(!name.is_empty() && !name.contains(['=', '\0']), "{name:?} is no name of a variable");
        ensure!(seen.insert(name), "`{name}` stands twice");
        ensure!(!variable.purpose.is_empty(), "`{name}` has no purpose");
    }
    Ok(())
}

async fn check(case: Arc<Case>) -> Outcome {
    case.provider.check().await?;
    case.fresh().await?.check().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::NAMES;

    /// The text of the interface lists the names after the interfaces to which they belong.
    #[test]
    fn the_names_are_those_of_the_interface() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/types.wit");
        let text = std::fs::read_to_string(path).expect("wit/types.wit is missing");
        let list = text.split_once("Names in use:").and_then(|(_, rest)| rest.split_once("record capability"));
        let parts: Vec<_> = list.expect("the list of the names is missing").0.split('`').collect();
        // Every second part stands between backticks. A colon follows the name of an interface.
        let names = parts.chunks(2).zip(parts.chunks(2).skip(1));
        let names: Vec<_> =
            names.filter_map(|(name, after)| name.get(1).filter(|_| !after[0].starts_with(':'))).collect();
        assert_eq!(names, NAMES.iter().collect::<Vec<_>>());
    }
}
