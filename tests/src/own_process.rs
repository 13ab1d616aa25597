//! Runs tests in a process of their own, because they change or measure something that belongs to a whole process: its
//! environment, its memory, its children. The test program is started again for the one test.

use std::process::Command;

/// Environment variable that is set in the second process.
const MARK: &str = "TEST_IN_OWN_PROCESS";

/// Runs `test` in a separate process with these variables added to its environment. `test` must be the whole body of
/// the calling test.
///
/// # Panics
///
/// Panics if the test fails, after its output has been printed.
pub fn in_own_process(environment: &[(&str, &str)], test: impl FnOnce()) {
    if std::env::var_os(MARK).is_some() {
        return test();
    }
    let output = this_test_again()
        .env(MARK, "")
        .envs(environment.iter().copied())
        .output()
        .expect("cannot start the test program");
    print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the test failed in its own process ({}); its output is above", output.status);
}

/// Like [`in_own_process`], for an asynchronous test, on a runtime with two threads. Returns `None` in the first
/// process.
///
/// # Panics
///
/// Panics if the test fails, after its output has been printed.
pub fn in_own_process_async<T>(test: impl Future<Output = T>) -> Option<T> {
    let mut result = None;
    in_own_process(&[], || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().expect("cannot create a runtime");
        result = Some(runtime.block_on(test));
    });
    result
}

/// Returns a command that runs only the calling test, in a new process.
///
/// # Panics
///
/// Panics if the caller does not run on a thread with the name of a test.
#[must_use]
pub fn this_test_again() -> Command {
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main").expect("the caller must run on the thread of a test");
    let mut again = Command::new(std::env::current_exe().expect("cannot find the path of the test program"));
    // With `--test-threads=1` the test would run on the main thread, which does not have its name.
    again.args(["--exact", name, "--nocapture", "--test-threads=2"]);
    again
}
