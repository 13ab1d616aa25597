//! An emulator within the test process, in which a test can inject faults, and a provider of the host library that uses
//! it.

use std::time::Duration;

use modal_emulator::{Emulator, Options};
use sandbox_host::{
    Error, Plugin, Provider, Result, Sandbox, Secret,
    types::{ExecSpec, ImageSpec, RunResult, SandboxSpec, Verdict},
};

/// Lifetime of the sandboxes of tests: longer than a test takes on a loaded machine.
const LIFETIME: Duration = Duration::from_secs(3600);

/// An emulator and a provider. Dropping it ends both.
pub struct World {
    /// The emulator.
    pub emulator: Emulator,
    /// A provider whose service is the emulator.
    pub provider: Provider,
}

impl World {
    /// Starts an emulator with default options.
    ///
    /// # Panics
    ///
    /// Panics if the emulator does not start or the component does not load.
    pub async fn start() -> World {
        World::with(Options::default()).await
    }

    /// Starts an emulator with these options.
    ///
    /// # Panics
    ///
    /// Panics if the emulator does not start or the component does not load.
    pub async fn with(options: Options) -> World {
        let options = Options { program: Some(crate::program()), ..options };
        let emulator = Emulator::start(options).await.expect("the emulator does not start");
        let provider = World::provider(&emulator.url()).await.expect("the component does not load");
        World { emulator, provider }
    }

    /// Starts an emulator whose clients can reach it only through `proxy`.
    ///
    /// # Panics
    ///
    /// Panics if the emulator does not start or the component does not load.
    pub async fn behind(proxy: &crate::proxy::Proxy) -> World {
        let program = Some(crate::program());
        let options = Options { program, advertise: Some(proxy.address()), ..Options::default() };
        let emulator = Emulator::start(options).await.expect("the emulator does not start");
        proxy.lead_to(emulator.state().address);
        let provider = World::provider(&emulator.url()).await.expect("the component does not load");
        World { emulator, provider }
    }

    /// Returns a new provider for the service at `url`, with empty caches.
    ///
    /// # Errors
    ///
    /// Fails if the component does not load.
    pub async fn provider(url: &str) -> Result<Provider> {
        let plugin = Plugin::load(crate::component()).await?;
        Provider::builder(&plugin)
            .inherit_env(false)
            .env("MODAL_SERVER_URL", url)
            .credential("token-id", Secret::new("ak-test"))
            .credential("token-secret", Secret::new("as-test"))
            .build()
            .await
    }

    /// Creates a sandbox of the default image.
    ///
    /// # Panics
    ///
    /// Panics if the sandbox cannot be created.
    pub async fn sandbox(&self) -> Sandbox {
        self.sandbox_of(ImageSpec::default()).await
    }

    /// Creates a sandbox of `image`.
    ///
    /// # Panics
    ///
    /// Panics if the sandbox cannot be created.
    pub async fn sandbox_of(&self, image: ImageSpec) -> Sandbox {
        let spec = SandboxSpec::new(image).lifetime(LIFETIME);
        self.provider.create(spec).await.expect("cannot create a sandbox")
    }

    /// Shuts the emulator down and waits until all its processes have ended.
    pub async fn end(self) {
        self.emulator.shutdown().await;
    }
}

/// Runs a shell command line and returns its standard output.
///
/// # Panics
///
/// Panics if the command does not exit with 0 or its output is not UTF-8.
pub async fn sh(sandbox: &Sandbox, line: &str) -> String {
    let result = sandbox.run(ExecSpec::shell(line)).await.unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(matches!(result.verdict, Verdict::Exited(0)), "{line}: {}", told(&result));
    String::from_utf8(result.stdout.data).expect("not UTF-8")
}

/// Describes a result for the message of a failed assertion, with at most 2000 bytes of each stream.
#[must_use]
pub fn told(result: &RunResult) -> String {
    let text = |data: &[u8]| String::from_utf8_lossy(&data[..data.len().min(2000)]).into_owned();
    format!("{:?}\nstdout: {}\nstderr: {}", result.verdict, text(&result.stdout.data), text(&result.stderr.data))
}

/// Returns the error of a call that must fail. Its message must contain all of `words`.
///
/// # Panics
///
/// Panics if the call succeeded or a word is missing.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T>, words: &[&str]) -> Error {
    let error = match result {
        Ok(value) => panic!("the call should have failed: {value:?}"),
        Err(error) => error,
    };
    let line = error.to_string();
    for word in words {
        assert!(line.contains(word), "`{word}` is missing in: {line}");
    }
    error
}
