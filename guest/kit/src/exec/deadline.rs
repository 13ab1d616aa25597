//! Time limits of commands by the clock of the provider, for services that do not enforce them reliably. When the time
//! limit of a command has passed, the provider kills the command with all its processes, once. If the command still runs
//! after that, the provider reports its end without waiting any longer ("gives it up").

use std::{cell::RefCell, time::Duration};

use crate::{api::wit::ExecRef, memo::Memo};

/// Time limit for killing a command with all its processes, or a program that was given up.
pub const KILL_TIME: Duration = Duration::from_secs(30);

/// Time within which a command must end after it was killed. A command that takes longer is given up.
pub const KILLED_WAIT: Duration = Duration::from_secs(5);

/// The commands whose time limit has passed.
#[derive(Default)]
pub struct Deadlines {
    killed: RefCell<Memo<(String, String), Killed>>,
}

/// A command that was killed.
#[derive(Debug, Clone, Copy)]
struct Killed {
    /// The time at which killing it was or will be complete.
    at: Duration,
    /// The command had ended by itself before. Only the processes that it left behind were killed.
    over: bool,
}

impl Deadlines {
    /// Returns the time, since the Unix epoch, of the next action on a command that has not ended by then: kill it, or
    /// give it up if it was killed before. Returns `None` if the command has no time limit, or if no action is left.
    pub fn due_at(&self, exec: &ExecRef) -> Option<Duration> {
        let deadline = Duration::from_millis(exec.deadline?);
        match self.killed(exec) {
            None => Some(deadline),
            Some(killed) => (!killed.over).then(|| killed.at + KILLED_WAIT),
        }
    }

    /// Returns whether a command was killed or is being killed.
    pub fn is_killed(&self, exec: &ExecRef) -> bool {
        self.killed(exec).is_some()
    }

    /// Returns whether the provider ended the command, which did not end by itself.
    pub fn was_ended(&self, exec: &ExecRef) -> bool {
        self.killed(exec).is_some_and(|killed| !killed.over)
    }

    /// Records that killing a command was or will be complete at `at`. `over` says that the command had ended by itself
    /// before.
    pub fn note(&self, exec: &ExecRef, at: Duration, over: bool) {
        self.killed.borrow_mut().insert((exec.sandbox.clone(), exec.exec.clone()), Killed { at, over });
    }

    fn killed(&self, exec: &ExecRef) -> Option<Killed> {
        self.killed.borrow().get(&(exec.sandbox.clone(), exec.exec.clone())).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_ended_once_and_then_given_up() {
        let exec = ExecRef { sandbox: "s".into(), exec: "e".into(), deadline: Some(2000), container: None };
        let deadlines = Deadlines::default();
        assert_eq!(deadlines.due_at(&ExecRef { deadline: None, ..exec.clone() }), None);
        assert_eq!(deadlines.due_at(&exec), Some(Duration::from_secs(2)));
        assert!(!deadlines.is_killed(&exec) && !deadlines.was_ended(&exec));
        deadlines.note(&exec, Duration::from_secs(3), false);
        assert_eq!(deadlines.due_at(&exec), Some(Duration::from_secs(3) + KILLED_WAIT));
        assert!(deadlines.is_killed(&exec) && deadlines.was_ended(&exec));
        // It had ended by itself: only the processes that it left behind were killed.
        deadlines.note(&exec, Duration::from_secs(3), true);
        assert_eq!(deadlines.due_at(&exec), None);
        assert!(deadlines.is_killed(&exec) && !deadlines.was_ended(&exec));
    }
}
