//! The subcommands, one file each. Each file has a function that takes the arguments and returns the exit code.

pub mod build;
pub mod cat;
pub mod completions;
pub mod conformance;
pub mod cp;
pub mod create;
pub mod doctor;
pub mod doctor_live;
pub mod emulator;
pub mod exec;
pub mod execs;
pub mod extend;
pub mod forward;
pub mod gateway;
pub mod image;
pub mod images;
pub mod inspect;
pub mod list;
pub mod logs;
pub mod ls;
pub mod man;
pub mod mount;
pub mod network;
pub mod pause;
pub mod plugin_check;
pub mod plugin_inspect;
pub mod plugin_pack;
pub mod plugin_pull;
pub mod restore;
pub mod resume;
pub mod rm;
pub mod run;
pub mod shell;
pub mod sidecar;
pub mod snapshot;
pub mod stats;
pub mod stop;
pub mod sweep;
pub mod tags;
pub mod terminate;
pub mod token;
pub mod tunnels;
pub mod unmount;
pub mod wait;

use anyhow::Result;

use crate::args::{Command, PluginCommand};
use crate::session::Session;

/// Runs a subcommand and returns the exit code.
pub async fn dispatch(session: &Session, command: Command) -> Result<i32> {
    match command {
        Command::Run(args) => run::run(session, args).await,
        Command::Create(args) => create::create(session, args).await,
        Command::Exec(args) => exec::exec(session, args).await,
        Command::Shell(args) => shell::shell(session, args).await,
        Command::Build(args) => build::build(session, args).await,
        Command::Cp(args) => cp::cp(session, args).await,
        Command::Ls(args) => ls::ls(session, args).await,
        Command::Cat(args) => cat::cat(session, args).await,
        Command::Rm(args) => rm::rm(session, args).await,
        Command::List(args) => list::list(session, args).await,
        Command::Inspect(args) => inspect::inspect(session, args).await,
        Command::Logs(args) => logs::logs(session, args).await,
        Command::Wait(args) => wait::wait(session, args).await,
        Command::Terminate(args) => terminate::terminate(session, args).await,
        Command::Pause(args) => pause::pause(session, args).await,
        Command::Stop(args) => stop::stop(session, args).await,
        Command::Resume(args) => resume::resume(session, args).await,
        Command::Extend(args) => extend::extend(session, args).await,
        Command::Execs(args) => execs::execs(session, args).await,
        Command::Tags(args) => tags::tags(session, args).await,
        Command::Snapshot(args) => snapshot::snapshot(session, args).await,
        Command::Restore(args) => restore::restore(session, args).await,
        Command::Mount(args) => mount::mount(session, args).await,
        Command::Unmount(args) => unmount::unmount(session, args).await,
        Command::Network(args) => network::network(session, args).await,
        Command::Token(args) => token::token(session, args).await,
        Command::Stats(args) => stats::stats(session, args).await,
        Command::Sidecar(command) => sidecar::sidecar(session, command).await,
        Command::Images(args) => images::images(session, args).await,
        Command::Image(command) => image::image(session, command).await,
        Command::Tunnels(args) => tunnels::tunnels(session, args).await,
        Command::Sweep(args) => sweep::sweep(session, args).await,
        Command::Forward(args) => forward::forward(session, args).await,
        Command::Conformance(args) => conformance::conformance(session, args).await,
        Command::Gateway(args) => gateway::gateway(session, args).await,
        Command::Doctor(args) if args.live => doctor_live::live(session).await,
        Command::Doctor(_) => doctor::doctor(session).await,
        Command::Plugin(PluginCommand::Inspect(args)) => plugin_inspect::inspect(session, args).await,
        Command::Plugin(PluginCommand::Pull(args)) => plugin_pull::pull(session, args).await,
        Command::Plugin(PluginCommand::Check(args)) => plugin_check::check(session, args).await,
        Command::Plugin(PluginCommand::Pack(args)) => plugin_pack::pack(session, args),
        Command::Emulator(args) => emulator::foreground(args),
        Command::Completions(args) => completions::completions(args),
        Command::Man(args) => man::man(args),
    }
}
