//! `sandbox terminate`: terminates sandboxes.

use anyhow::Result;

use crate::args::Terminate;
use crate::output::results::Terminated;
use crate::output::{self, FAILED};
use crate::session::Session;

/// Runs `sandbox terminate`. Returns the exit code.
pub async fn terminate(session: &Session, args: Terminate) -> Result<i32> {
    let provider = session.provider().await?;
    let _step = session.voice.step("terminating");
    let ended = args.ids.iter().map(|id| {
        let sandbox = provider.sandbox(id);
        async move {
            sandbox.terminate().await?;
            if args.wait {
                sandbox.wait().await?;
            }
            Ok::<_, sandbox_host::Error>(())
        }
    });
    let results = futures_util::future::join_all(ended).await;
    drop(_step);
    let mut code = 0;
    for (id, result) in args.ids.iter().zip(results) {
        match result {
            Ok(()) if session.voice.json => output::print_json(&Terminated { sandbox: id, terminated: true })?,
            Ok(()) => output::print(id)?,
            // The other sandboxes are terminated nevertheless.
            Err(error) => {
                session.voice.fail(&error.into());
                code = FAILED;
            }
        }
    }
    Ok(code)
}
