//! Image builds: Dockerfile lines that really run, and the layers they leave behind.
//!
//! A request describes one layer on top of finished images. Its lines are parsed (`dockerfile`) and carried out
//! (`steps`) in the background, in containers of the image so far; what those containers wrote becomes a layer. The same
//! request gets the same image (`request_hash`).

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

/// How the property tests of this module run: the same cases each time, unless the environment says otherwise.
#[cfg(test)]
fn cases() -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(0);
    }
    config
}
