//! An emulator in this process, whose faults a test can order, and the host library in front of it.

use modal_emulator::{Emulator, Options};
use sandbox_host::{
    Error, Plugin, Provider, Result, Sandbox, Secret,
    types::{ExecSpec, ImageSpec, RunResult, SandboxSpec, Verdict},
};

/// See the head of this file. Everything in it ends with it.
pub struct World {
    /// The service.
    pub emulator: Emulator,
    /// The plugin in use.
    pub provider: Provider,
}

impl World {
    /// Starts one.
    ///
    /// # Panics
    ///
    /// When this machine cannot.
    pub async fn start() -> World {
        World::with(Options::default()).await
    }

    /// Starts one whose emulator is set up so.
    ///
    /// # Panics
    ///
    /// When this machine cannot.
    pub async fn with(options: Options) -> World {
        let options = Options { program: Some(crate::program()), ..options };
        let emulator = Emulator::start(options).await.expect("an emulator");
        let provider = World::provider(&emulator.url()).await.expect("a provider");
        World { emulator, provider }
    }

    /// Starts one whose clients reach it through a proxy only.
    ///
    /// # Panics
    ///
    /// When this machine cannot.
    pub async fn behind(proxy: &crate::proxy::Proxy) -> World {
        let program = Some(crate::program());
        let options = Options { program, advertise: Some(proxy.address()), ..Options::default() };
        let emulator = Emulator::start(options).await.expect("an emulator");
        proxy.lead_to(emulator.state().address);
        let provider = World::provider(&emulator.url()).await.expect("a provider");
        World { emulator, provider }
    }

    /// A provider of one's own, with nothing learned yet.
    ///
    /// # Errors
    ///
    /// When the component does not load.
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

    /// A sandbox of the default image.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub async fn sandbox(&self) -> Sandbox {
        self.sandbox_of(ImageSpec::default()).await
    }

    /// A sandbox of this image.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub async fn sandbox_of(&self, image: ImageSpec) -> Sandbox {
        self.provider.create(SandboxSpec::new(image)).await.expect("a sandbox")
    }

    /// Ends the emulator and waits until nothing of it is left.
    pub async fn end(self) {
        self.emulator.shutdown().await;
    }
}

/// Runs a line of shell and gives what it printed, which must be text, and must have gone well.
///
/// # Panics
///
/// When it did not.
pub async fn sh(sandbox: &Sandbox, line: &str) -> String {
    let result = sandbox.run(ExecSpec::shell(line)).await.unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(matches!(result.verdict, Verdict::Exited(0)), "{line}: {}", told(&result));
    String::from_utf8(result.stdout.data).expect("text")
}

/// A result, for the message of a failed assertion.
#[must_use]
pub fn told(result: &RunResult) -> String {
    let text = |data: &[u8]| String::from_utf8_lossy(&data[..data.len().min(2000)]).into_owned();
    format!("{:?}\nstdout: {}\nstderr: {}", result.verdict, text(&result.stdout.data), text(&result.stderr.data))
}

/// The error of a call that must fail, whose line must have these words.
///
/// # Panics
///
/// When there is none, or a word is missing.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T>, words: &[&str]) -> Error {
    let error = match result {
        Ok(value) => panic!("it was not refused: {value:?}"),
        Err(error) => error,
    };
    let line = error.to_string();
    for word in words {
        assert!(line.contains(word), "`{word}` is missing in: {line}");
    }
    error
}
