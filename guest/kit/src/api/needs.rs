//! The capabilities that a request needs. A provider compares them with its own description, so that it refuses
//! everything that it does not declare, before it sends any request.

use super::{
    error::{Error, Result, shown},
    wit::{
        Description, EntryPoint, ExecSpec, ImageSource, ImageSpec, Location, Outbound, PortKind, SandboxSpec, Support,
        WriteMode, WriteOptions,
    },
};

/// Returns the capabilities that [`create`](crate::export::SandboxProvider::create) needs for this specification. A
/// command of the entry point counts as `create.command`, and a working directory as `create.workdir`. An image id and
/// the name of a published image need none.
#[must_use]
pub fn of_sandbox(spec: &SandboxSpec) -> Vec<&'static str> {
    let resources = &spec.resources;
    let wanted = [
        ("create.idempotent", spec.key.is_some()),
        ("create.names", spec.name.is_some()),
        ("create.tags", !spec.tags.is_empty()),
        ("create.command", matches!(spec.entry_point, EntryPoint::Command(_))),
        ("create.user", spec.user.is_some()),
        ("create.workdir", spec.workdir.is_some()),
        ("create.env", !spec.env.is_empty()),
        ("create.secrets", !spec.secrets.is_empty()),
        ("create.cpu", resources.cpu_request_millicores.or(resources.cpu_limit_millicores).is_some()),
        ("create.memory", resources.memory_request_mib.or(resources.memory_limit_mib).is_some()),
        ("create.disk", resources.disk_mib.is_some()),
        ("create.gpu", resources.gpu.is_some()),
        ("create.lifetime", spec.lifetime.is_some()),
        ("create.idle-timeout", spec.idle_timeout.is_some()),
        ("create.regions", !spec.regions.is_empty()),
        ("create.volumes", !spec.volumes.is_empty()),
        ("create.buckets", !spec.buckets.is_empty()),
        ("create.proxy", spec.proxy.is_some()),
        ("create.pty", spec.pty.is_some()),
        ("create.readiness", spec.readiness.is_some()),
        ("network.blocked", matches!(spec.network.outbound, Outbound::Blocked)),
        ("network.cidrs", matches!(&spec.network.outbound, Outbound::Allowed(list) if !list.cidrs.is_empty())),
        ("network.domains", matches!(&spec.network.outbound, Outbound::Allowed(list) if !list.domains.is_empty())),
        ("network.inbound", !spec.network.inbound_cidrs.is_empty()),
        ("ports.tls", spec.ports.iter().any(|port| port.kind == PortKind::Tls)),
        ("ports.h2", spec.ports.iter().any(|port| port.kind == PortKind::H2)),
        ("ports.tcp", spec.ports.iter().any(|port| port.kind == PortKind::Tcp)),
        ("sidecars", !spec.sidecars.is_empty()),
    ];
    chosen(&wanted).chain(of_image(&spec.image)).collect()
}

/// Returns the capabilities that an image needs.
#[must_use]
pub fn of_image(spec: &ImageSpec) -> Vec<&'static str> {
    let (registry, dockerfile) = match &spec.source {
        ImageSource::Registry(image) => (Some(image), None),
        ImageSource::Dockerfile(dockerfile) => (None, Some(dockerfile)),
        ImageSource::ProviderDefault | ImageSource::Id(_) | ImageSource::Named(_) | ImageSource::Other(_) => {
            (None, None)
        }
    };
    let login = registry.is_some_and(|image| image.login.is_some())
        || dockerfile.is_some_and(|dockerfile| dockerfile.login.is_some());
    let wanted = [
        ("image.registry", registry.is_some()),
        ("image.registry-credentials", login),
        ("image.dockerfile", dockerfile.is_some()),
        ("image.context", dockerfile.is_some_and(|dockerfile| !dockerfile.context.is_empty())),
        ("image.commands", !spec.commands.is_empty()),
        ("image.secrets", !spec.secrets.is_empty()),
        ("image.gpu", spec.gpu.is_some()),
        ("create.platform", spec.platform.is_some()),
    ];
    chosen(&wanted).collect()
}

/// Returns the capabilities that a command needs. A long command line is not among them, because the limit differs
/// between providers.
#[must_use]
pub fn of_exec(spec: &ExecSpec) -> Vec<&'static str> {
    let wanted = [
        ("exec.user", spec.user.is_some()),
        ("exec.deadline", spec.timeout.is_some()),
        ("exec.pty", spec.pty.is_some()),
        ("exec.merge-stderr", spec.merge_stderr),
        ("exec.secrets", !spec.secrets.is_empty()),
        ("sidecars", spec.container.is_some()),
    ];
    chosen(&wanted).collect()
}

/// Returns the capabilities that a file operation at this place needs.
#[must_use]
pub fn of_location(at: &Location) -> Vec<&'static str> {
    chosen(&[("sidecars", at.container.is_some()), ("files.user", at.user.is_some())]).collect()
}

/// Returns the capabilities that these options of a write need. Every provider with files can replace a file.
#[must_use]
pub fn of_write(at: &Location, options: &WriteOptions) -> Vec<&'static str> {
    let wanted = [
        ("files.append", options.mode == WriteMode::Append),
        ("files.create-new", options.mode == WriteMode::CreateNew),
        ("files.mode", options.permissions.is_some()),
    ];
    of_location(at).into_iter().chain(chosen(&wanted)).collect()
}

fn chosen<'a>(wanted: &'a [(&'static str, bool)]) -> impl Iterator<Item = &'static str> + use<'a> {
    wanted.iter().filter(|(_, wanted)| *wanted).map(|(capability, _)| *capability)
}

/// Checks that a provider declares these capabilities.
///
/// # Errors
///
/// `unsupported` with the first capability that is absent as its subject.
pub fn check(description: &Description, needs: &[&str]) -> Result<()> {
    let declared = |name: &str| {
        description.capabilities.iter().any(|found| found.name == name && found.support != Support::Absent)
    };
    match needs.iter().find(|name| !declared(name)) {
        Some(name) => {
            Err(Error::unsupported(name, format!("The provider {} does not have `{name}`.", shown(&description.name))))
        }
        None => Ok(()),
    }
}

/// Checks that a provider without options of its own declares everything that a specification needs, and that the
/// specification is valid.
///
/// # Errors
///
/// Those of [`check_request`], and `invalid-argument` for an option.
pub fn check_sandbox(description: &Description, spec: &SandboxSpec) -> Result<()> {
    check_request(description, spec)?;
    no_options(&spec.options)
}

/// Checks that a provider declares everything that a specification needs, except its options. If it declares no capability
/// of images (`image.…`), only its default image is accepted. Also checks the key, the name, the environment and the working
/// directory.
///
/// # Errors
///
/// `unsupported` like [`check`]; `invalid-argument` for an extra field or another invalid field.
pub fn check_request(description: &Description, spec: &SandboxSpec) -> Result<()> {
    spec.key.iter().try_for_each(|key| super::ids::check_chosen("a key", key))?;
    spec.name.iter().try_for_each(|name| super::check::name(name))?;
    spec.workdir.iter().try_for_each(|workdir| super::check::path(workdir))?;
    super::check::env(&spec.env)?;
    let images = description.capabilities.iter().any(|capability| capability.name.starts_with("image."));
    let mut needs = of_sandbox(spec);
    if !images && !matches!(spec.image.source, ImageSource::ProviderDefault) {
        needs.push("image");
    }
    check(description, &needs)?;
    super::check::extra(&spec.image.extra)?;
    super::check::extra(&spec.extra)
}

/// Checks that a provider declares everything that a command needs, and that the command is valid.
///
/// # Errors
///
/// Those of [`check::exec_spec`](super::check::exec_spec), and `unsupported` like [`check`].
pub fn check_exec(description: &Description, spec: &ExecSpec) -> Result<()> {
    super::check::exec_spec(spec)?;
    check(description, &of_exec(spec))
}

/// Checks the place of a file operation.
///
/// # Errors
///
/// `invalid-argument` for an invalid path; `unsupported` like [`check`].
pub fn check_location(description: &Description, at: &Location) -> Result<()> {
    super::check::path(&at.path)?;
    check(description, &of_location(at))
}

/// Checks the path and the options of a write.
///
/// # Errors
///
/// `invalid-argument` for an invalid path or an extra field; `unsupported` like [`check`].
pub fn check_write(description: &Description, at: &Location, options: &WriteOptions) -> Result<()> {
    super::check::path(&at.path)?;
    super::check::extra(&options.extra)?;
    check(description, &of_write(at, options))
}

/// Checks that there are no options, for providers that define none.
///
/// # Errors
///
/// `invalid-argument` with the name of the first option as its subject.
pub fn no_options(options: &[(String, String)]) -> Result<()> {
    match options.first() {
        None => Ok(()),
        Some((name, _)) => {
            Err(Error::invalid(format!("There is no option `{}`: this provider has none.", shown(name))).about(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        records::{description, exec_spec, sandbox_spec},
        wit::{AllowList, Pty, RegistryImage},
    };

    /// Returns the subject of the error of a check, or an empty text if there is no error.
    fn subject(checked: Result<()>) -> String {
        checked.err().map(|error| error.subject.clone().unwrap_or_default()).unwrap_or_default()
    }

    #[test]
    fn a_sandbox_needs_what_its_specification_names() {
        let none = description("x", "1", &[]);
        let refused = |change: &dyn Fn(&mut SandboxSpec)| {
            let mut spec = sandbox_spec();
            change(&mut spec);
            subject(check_sandbox(&none, &spec))
        };
        assert_eq!(refused(&|_| {}), "");
        assert_eq!(refused(&|spec| spec.key = Some("k".into())), "create.idempotent");
        assert_eq!(refused(&|spec| spec.tags.push(("a".into(), "b".into()))), "create.tags");
        assert_eq!(refused(&|spec| spec.resources.cpu_limit_millicores = Some(1)), "create.cpu");
        assert_eq!(refused(&|spec| spec.network.outbound = Outbound::Blocked), "network.blocked");
        let list = AllowList { cidrs: Vec::new(), domains: vec!["a.org".into()] };
        assert_eq!(refused(&|spec| spec.network.outbound = Outbound::Allowed(list.clone())), "network.domains");
        assert_eq!(refused(&|spec| spec.image.source = ImageSource::Id("i".into())), "image");
        let image = RegistryImage { reference: "debian".into(), login: None };
        assert_eq!(refused(&|spec| spec.image.source = ImageSource::Registry(image.clone())), "image.registry");
        assert_eq!(refused(&|spec| spec.options.push(("o".into(), "1".into()))), "o");
        assert_eq!(refused(&|spec| spec.image.extra.push(("e".into(), "1".into()))), "e");
        assert_eq!(refused(&|spec| spec.workdir = Some("not/absolute".into())), "not/absolute");
        let tags = description("x", "1", &[("create.tags", "")]);
        let spec = SandboxSpec { tags: vec![("a".into(), "b".into())], ..sandbox_spec() };
        assert_eq!(subject(check_sandbox(&tags, &spec)), "");
    }

    #[test]
    fn a_command_needs_what_its_specification_names() {
        let none = description("x", "1", &[]);
        assert_eq!(subject(check_exec(&none, &exec_spec("e", &["a"]))), "");
        let pty = Pty { rows: 1, columns: 1, term: String::new() };
        let spec = ExecSpec { pty: Some(pty), ..exec_spec("e", &["a"]) };
        assert_eq!(subject(check_exec(&none, &spec)), "exec.pty");
        let spec = ExecSpec { timeout: Some(5), ..exec_spec("e", &["a"]) };
        assert_eq!(subject(check_exec(&none, &spec)), "exec.deadline");
        let mut absent = description("x", "1", &[("exec.deadline", "")]);
        assert_eq!(subject(check_exec(&absent, &spec)), "");
        absent.capabilities[0].support = Support::Absent;
        assert_eq!(subject(check_exec(&absent, &spec)), "exec.deadline");
    }
}
