//! Signals that [`Process::signal`](crate::Process::signal) and [`Sandbox::signal`](crate::Sandbox::signal) send.

use std::fmt;

/// A Linux signal, by its number from 1 to 64.
///
/// ```
/// use sandbox_host::Signal;
///
/// assert_eq!(Signal::TERM.number(), 15);
/// assert_eq!(Signal::new(9), Some(Signal::KILL));
/// assert_eq!(Signal::new(65), None);
/// assert_eq!(Signal::KILL.to_string(), "signal 9");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(u32);

impl Signal {
    /// SIGHUP: the terminal is gone.
    pub const HUP: Signal = Signal(1);
    /// SIGINT: interrupt, as Ctrl-C sends it.
    pub const INT: Signal = Signal(2);
    /// SIGQUIT: quit, with a core dump.
    pub const QUIT: Signal = Signal(3);
    /// SIGKILL: ends a process, which cannot catch it.
    pub const KILL: Signal = Signal(9);
    /// SIGUSR1: its meaning depends on the program.
    pub const USR1: Signal = Signal(10);
    /// SIGUSR2: its meaning depends on the program.
    pub const USR2: Signal = Signal(12);
    /// SIGTERM: asks a process to end.
    pub const TERM: Signal = Signal(15);
    /// SIGCONT: continues a stopped process.
    pub const CONT: Signal = Signal(18);
    /// SIGSTOP: stops a process, which cannot catch it.
    pub const STOP: Signal = Signal(19);

    /// Returns the signal with this number, or `None` if the number is not from 1 to 64.
    #[must_use]
    pub const fn new(number: u32) -> Option<Signal> {
        if number >= 1 && number <= 64 { Some(Signal(number)) } else { None }
    }

    /// Returns the number of the signal.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "signal {}", self.0)
    }
}
