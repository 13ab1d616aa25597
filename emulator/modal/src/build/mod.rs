//! Image builds: executes the lines of Dockerfiles in containers, and keeps the layers that they write.
//!
//! A request describes one layer on top of finished images. Its lines are parsed (`dockerfile`) and executed (`steps`) in the
//! background, in containers of the image so far; the files that a container wrote become a layer. Equal requests get the same
//! image (`request_hash`).

mod context;
mod copy;
mod directories;
mod dockerfile;
mod expand;
mod glob;
mod mount_options;
mod offline_stand_ins;
mod run_mounts;
mod stage;
mod start;
mod steps;

pub use context::mount_layer;
pub use directories::{remove, remove_in_background};
pub use start::get_or_start;

/// Returns the configuration of this module's property tests. It runs the same cases each time, unless the environment sets a
/// seed.
#[cfg(test)]
fn cases() -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(0);
    }
    config
}
