//! Limits.
use std::path::{Path, PathBuf};
#[derive(Debug)]
pub(super) struct Groups {}
#[derive(Debug)]
pub(super) struct Group {}
impl Groups {
    pub(super) fn new(_state: &Path, _name: &str, _missing: &mut Vec<String>) -> Self {
        Self {}
    }
    pub(super) fn make(&self, _id: &str, _memory: Option<u64>, _cpu: Option<u32>) -> Group {
        Group {}
    }
    pub(super) fn remove(&self) {}
}
impl Group {
    pub(super) fn joins(&self) -> Vec<PathBuf> {
        Vec::new()
    }
    pub(super) fn oom_kills(&self) -> u64 {
        0
    }
    pub(super) fn remove(&self) {}
}
pub(super) fn remove_recorded(_state: &Path) {}
