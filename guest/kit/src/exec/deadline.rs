//! Time limits of commands that are kept by the caller's clock. When a command has outlived its limit, a provider ends it with
//! all that it has started, once; what goes on all the same is given up.

use std::{cell::RefCell, time::Duration};

use crate::{api::wit::ExecRef, memo::Memo};

/// Time for ending a command whose time is up.
pub const SWEEP_TIME: Duration = Duration::from_secs(30);

/// Time in which it must then be over: what is not is given up.
pub const SWEPT_WAIT: Duration = Duration::from_secs(5);

/// Commands that have outlived their time limit.
#[derive(Default)]
pub struct Deadlines {
    swept: RefCell<Memo<(String, String), Swept>>,
}

/// A command whose time is up.
#[derive(Debug, Clone, Copy)]
struct Swept {
    /// When it was ended, or will have been.
    at: Duration,
    /// It had come to its end by itself before that; what it left behind was ended.
    over: bool,
}

impl Deadlines {
    /// When something is to be done about a command that has not ended by then: it is to be ended, or given up if that was
    /// done before. None without a time limit, and when all has been done.
    pub fn due_at(&self, exec: &ExecRef) -> Option<Duration> {
        let deadline = Duration::from_millis(exec.deadline?);
        match self.swept(exec) {
            None => Some(deadline),
            Some(swept) => (!swept.over).then(|| swept.at + SWEPT_WAIT),
        }
    }

    /// Whether a command has been ended, or is being ended.
    pub fn is_swept(&self, exec: &ExecRef) -> bool {
        self.swept(exec).is_some()
    }

    /// Whether it is us who has ended the command.
    pub fn was_ended(&self, exec: &ExecRef) -> bool {
        self.swept(exec).is_some_and(|swept| !swept.over)
    }

    /// Notes that a command was ended, or will have been by then. `over` if it had come to its end by itself before.
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
        // It had ended by itself: only what it left behind was ended.
        deadlines.note(&exec, Duration::from_secs(3), true);
        assert_eq!(deadlines.due_at(&exec), None);
        assert!(deadlines.is_swept(&exec) && !deadlines.was_ended(&exec));
    }
}
