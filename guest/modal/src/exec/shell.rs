//! The shell of a container: its path, the directories that scripts may trust, and the variables that make it load
//! code.

use sandbox_provider_kit::{
    Error,
    api::wit::{ErrorKind, FileFault, FileInfo, FileKind, Location},
    inside::{
        Script,
        script::{OTHER_SHELL, SHELL, is_loader},
    },
    platform::LocalFuture,
};

use super::helper::{Helper, tool_argv};

/// Defines `safe DIRECTORY` for [`Script::argv`] with Modal's helper, which is linked statically and therefore loads no
/// libraries.
const SAFE: &str = r#"safe() {
  while [ -n "$1" ]; do
    said=$(/__modal/.bin/modal-sandbox-fs-tools "{\"Stat\":{\"path\":\"$1\"}}" 2>/dev/null) || return 1
    case $said in *'"type":"directory"'*|*'"type": "directory"'*) ;; *) return 1;; esac
    case $said in *'"owner":"root"'*|*'"owner": "root"'*|*'"owner":"0"'*|*'"owner": "0"'*) ;; *) return 1;; esac
    case $said in *'"permissions":"'?[0-7][0145][0145]'"'*|*'"permissions": "'?[0-7][0145][0145]'"'*) ;; *) return 1;; esac
    set -- "${1%/*}"
  done
}
"#;

/// Returns the argv that runs a script.
pub(crate) fn argv(script: &Script) -> Vec<String> {
    script.argv(SAFE)
}

/// Returns whether a script failed because the container has its shell at another path, so that it can be repeated
/// there.
pub(crate) fn is_elsewhere<'a>(
    helper: &'a Helper,
    at: &'a Location,
    error: Option<&'a Error>,
) -> LocalFuture<'a, bool> {
    Box::pin(async move {
        error.is_some_and(|error| matches!(error.kind, ErrorKind::Unsupported))
            && find(helper, &at.sandbox, at.container.as_deref()).await
    })
}

/// Looks for a shell at the other path if there is none at [`SHELL`]. Returns `false` if nothing new was found.
pub(crate) fn find<'a>(helper: &'a Helper, sandbox: &'a str, container: Option<&'a str>) -> LocalFuture<'a, bool> {
    Box::pin(async move {
        if helper.places().is_other(sandbox, container) {
            return false;
        }
        for (path, good) in [(SHELL, false), (OTHER_SHELL.0, true), (OTHER_SHELL.1, true)] {
            let at = Location {
                sandbox: sandbox.to_string(),
                container: container.map(str::to_string),
                path: path.to_string(),
                user: None,
            };
            let as_hoped = match helper.stat(&at, true).await {
                Ok(found) => good && (path != OTHER_SHELL.0 || is_roots(&found)),
                Err(error) => !good && matches!(error.kind, ErrorKind::File(FileFault::NotFound)),
            };
            if !as_hoped {
                return false;
            }
        }
        helper.places().note_other(sandbox, container);
        true
    })
}

/// Returns the variables in the environment of a container that make programs load code. Modal's helper, which loads no
/// libraries, reads them.
pub(crate) async fn loader_variables(helper: &Helper, sandbox: &str, container: Option<&str>) -> Vec<(String, String)> {
    let at = Location {
        sandbox: sandbox.to_string(),
        container: container.map(str::to_string),
        path: "/proc/self/environ".to_string(),
        user: None,
    };
    let found = helper.answer_in(&at, tool_argv("ReadFile", &at.path), false).await.unwrap_or_default();
    let pairs = found.split(|byte| *byte == 0).filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='));
    let wanted = pairs.filter(|(name, value)| is_loader(name) && !value.is_empty());
    wanted.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Returns whether only root can write to a directory.
fn is_roots(found: &FileInfo) -> bool {
    matches!(found.kind, FileKind::Directory) && matches!(&*found.owner, "root" | "0") && found.mode & 0o022 == 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_helper_says_what_is_safe() {
        assert!(super::SAFE.contains(&format!("$({} ", crate::exec::helper::TOOL)));
    }
}
