//! Tests that need a process of their own, because they change or measure something that belongs to a whole process: its
//! environment, its memory, its children. The test program is run again for the one test.

use std::process::Command;

/// Set in the second process.
const MARK: &str = "TEST_IN_OWN_PROCESS";

/// Runs `test` in a process of its own, with these variables in its environment. `test` has to be the whole of the calling
/// test.
///
/// # Panics
///
/// If the test fails, with its output.
pub fn in_own_process(environment: &[(&str, &str)], test: impl FnOnce()) {
    if std::env::var_os(MARK).is_some() {
        return test();
    }
    let output = this_test_again().env(MARK, "").envs(environment.iter().copied()).output().expect("the test program");
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "it failed in its own process ({}); its output is above", output.status);
}

/// The same for an asynchronous test, on a runtime with two threads.
///
/// # Panics
///
/// If the test fails, with its output.
pub fn in_own_process_async<T>(test: impl Future<Output = T>) -> Option<T> {
    let mut result = None;
    in_own_process(&[], || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
        result = Some(runtime.block_on(test));
    });
    result
}

/// The command that runs the calling test once more and no other.
///
/// # Panics
///
/// If the caller is not a test that has a thread of its own.
#[must_use]
pub fn this_test_again() -> Command {
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main").expect("a test has a thread with its name");
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    // With one thread, tests would run on the main thread, which has not their name.
    again.args(["--exact", name, "--nocapture", "--test-threads=2"]);
    again
}
