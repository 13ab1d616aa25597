//! Time limits of commands by the clock of the provider, for services that do not enforce them reliably. When the time
//! limit of a command has passed, the provider ends the command with all its processes once ("sweeps" it). If the
//! command still runs after that, the provider reports its end without waiting any longer ("gives it up").

use std::{cell::RefCell, time::Duration};

use crate::{api::wit::ExecRef, memo::Memo};

/// Time limit of a sweep.
pub const SWEEP_TIME: Duration = Duration::from_secs(30);

/// Time within which a command must end after a sweep. A command that takes longer is given up.
pub const SWEPT_WAIT: Duration = Duration::from_secs(5);

/// The commands whose time limit has passed.
#[derive(Default)]
pub struct Deadlines {
    swept: RefCell<Memo<(String, String), Swept>>,
}

/// A command that was swept.
#[derive(Debug, Clone, Copy)]
struct Swept {
    /// The time at which the sweep was or will be complete.
    at: Duration,
    /// The command had ended by itself before the sweep, which ended only the processes that it left behind.
    over: bool,
}

impl Deadlines {
    /// Returns the time, since the Unix epoch, of the next action on a command that has not ended by then: sweep it, or
    /// give it up if it was swept before. Returns `None` if the command has no time limit, or if no action is left.
    pub fn due_at(&self, exec: &ExecRef) -> Option<Duration> {
        let deadline = Duration::from_millis(exec.deadline?);
        match self.swept(exec) {
            None => Some(deadline),
            Some(swept) => (!swept.over).then(|| swept.at + SWEPT_WAIT),
        }
    }

    /// Returns whether a command was swept or is being swept.
    pub fn is_swept(&self, exec: &ExecRef) -> bool {
        self.swept(exec).is_some()
    }

    /// Returns whether the provider ended the command, which did not end by itself.
    pub fn was_ended(&self, exec: &ExecRef) -> bool {
        self.swept(exec).is_some_and(|swept| !swept.over)
    }

    /// Records a sweep that was or will be complete at `at`. `over` says that the command had ended by itself before.
    pub fn note(&self, exec: &ExecRef, at: Duration, over: bool) {
        self.swept.borrow_mut().insert((exec.sandbox.clone(), exec.exec.clone()), Swept { at, over });
    }

    fn swept(&self, exec: &ExecRef) -> Option<Swept> {
        self.swept.borrow().get(&(exec.sandbox.clone(), exec.exec.clone())).copied()
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
        assert!(!deadlines.is_swept(&exec) && !deadlines.was_ended(&exec));
        deadlines.note(&exec, Duration::from_secs(3), false);
        assert_eq!(deadlines.due_at(&exec), Some(Duration::from_secs(3) + SWEPT_WAIT));
        assert!(deadlines.is_swept(&exec) && deadlines.was_ended(&exec));
        // It had ended by itself: the sweep ended only the processes that it left behind.
        deadlines.note(&exec, Duration::from_secs(3), true);
        assert_eq!(deadlines.due_at(&exec), None);
        assert!(deadlines.is_swept(&exec) && !deadlines.was_ended(&exec));
    }
}
