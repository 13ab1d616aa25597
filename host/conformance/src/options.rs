//! What a run of the checks consists of.

use sandbox_host::types::ImageSpec;

/// What a run consists of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The image of the sandboxes. Default: the default image of the provider.
    pub image: ImageSpec,
    /// The groups and the checks to run, by name. Empty for all. Names of neither select nothing.
    pub only: Vec<String>,
    /// Number of checks that run at a time, at least 1. Default 4.
    pub jobs: usize,
    /// Seed for the damage to connections. Default 1.
    pub seed: u64,
    /// Whether the sandboxes exist in the memory of the provider alone, so that another provider does not know them. The
    /// checks of several callers then use one provider. Default false.
    pub alone: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { image: ImageSpec::default(), only: Vec::new(), jobs: 4, seed: 1, alone: false }
    }
}
