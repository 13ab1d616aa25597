//! What a check is, and the macro that defines the checks of a group.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::check::Outcome;
use crate::world::Case;

/// Time limit of a check. Most take less than a second; a few wait for time limits of some seconds, or start several
/// sandboxes. It grows with the time that commands of the provider take.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Time limit of a check that damages connections. Such a check consists of several operations, and each of them may use
/// all retries of the provider.
const FAULT_TIME_LIMIT: Duration = Duration::from_secs(600);

/// A check of a provider.
#[derive(Clone, Copy)]
pub struct Check {
    /// The stable name: the group, a dot, and what is checked, such as `exec.exit-codes`.
    pub id: &'static str,
    /// What the check needs. A name with the prefix `program:` is a program of the sandbox. All others are capabilities,
    /// or one of the parts of the interface in [`PARTS`](crate::PARTS).
    pub needs: &'static [&'static str],
    /// The part of the interface that the check tests: the name of a function or a type of `wit/`, a colon, and what is
    /// documented there.
    pub clause: &'static str,
    pub(crate) run: fn(Arc<Case>) -> BoxFuture<'static, Outcome>,
}

impl Check {
    /// Returns the group, which is the first part of the id.
    #[must_use]
    pub fn group(&self) -> &'static str {
        self.id.split_once('.').map_or(self.id, |(group, _)| group)
    }

    /// Returns whether one of these names is that of the check or of its group, or there are none.
    #[must_use]
    pub fn is_among(&self, names: &[String]) -> bool {
        names.is_empty() || names.iter().any(|name| name == self.id || name == self.group())
    }

    pub(crate) fn time_limit(&self) -> Duration {
        if self.group() == "faults" { FAULT_TIME_LIMIT } else { TIME_LIMIT }
    }
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check").field("id", &self.id).field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// Defines the checks of a group: the id, the needs, the clause, and the function.
macro_rules! checks {
    ($($id:literal [$($need:literal),*] $clause:literal => $run:path;)*) => {
        /// The checks of this group.
        pub(crate) const CHECKS: &[$crate::table::Check] = &[$($crate::table::Check {
            id: $id,
            needs: &[$($need),*],
            clause: $clause,
            run: |case| Box::pin($run(case)),
        }),*];
    };
}
pub(crate) use checks;
