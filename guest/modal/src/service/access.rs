//! Access to the command router of a sandbox: the task that the sandbox runs as, the address of the router and its
//! token (docs/modal-protocol.md, section 7.2), and the meaning of a failure there.

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use modal_proto::{
    client::{
        CommandRouterAccess, SandboxGetCommandRouterAccessRequest, SandboxGetTaskIdRequest,
        TaskGetCommandRouterAccessRequest, sandbox_get_command_router_access_request::Target,
    },
    rpc,
};
use sandbox_provider_kit::{
    Error, Result,
    api::wit::ErrorKind,
    call::{
        Failure as _,
        grpc::{Call, Code, Status},
        token::expiry,
    },
    memo::Memo,
    platform::Url,
};

use super::{control::Control, ended, error::status_error, id};

/// A token that expires within this time is renewed, so that no call starts with a token that expires on the way.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// Pause between two checks whether a sandbox has a machine (docs/modal-protocol.md, section 6.2), and the number of
/// checks: five minutes, as long as the official clients wait.
const TASK_ID_PAUSE: Duration = Duration::from_millis(500);
const TASK_ID_LOOKS: u32 = 600;

/// How long the control plane is asked about an end that the worker has reported. It learns of the end later.
const END_DELAY: Duration = Duration::from_secs(2);

/// The access to a sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// The task that the sandbox runs as.
    pub task_id: String,
    /// Address of the router.
    pub origin: Url,
    /// Bearer token.
    pub jwt: String,
    /// When the token expires, since the Unix epoch; `None` if it does not say.
    pub expires: Option<Duration>,
}

impl Access {
    fn new(task_id: String, url: &str, jwt: String) -> Result<Access> {
        let expires = expiry(&jwt);
        let origin = Url::parse(url)
            .ok_or_else(|| Error::internal(format!("Modal returned an invalid router address: `{url}`.")))?;
        Ok(Access { task_id, origin, jwt, expires })
    }

    /// Makes a call with this access's token and an optional deadline, which is sent with the call.
    pub(super) fn dress(&self, body: Bytes, deadline: Option<Duration>) -> Result<Call, Status> {
        let mut call = Call::new(body, deadline);
        call.header("authorization", format!("Bearer {}", self.jwt))?;
        Ok(call)
    }
}

/// The accesses of sandboxes. Clones share them.
#[derive(Clone)]
pub struct Accesses {
    control: Control,
    known: Rc<RefCell<Memo<String, Access>>>,
}

impl Accesses {
    /// Makes an empty set of accesses.
    #[must_use]
    pub fn new(control: Control) -> Accesses {
        Accesses { control, known: Rc::default() }
    }

    /// Returns the control plane that accesses are requested from.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Returns all known accesses, the oldest first.
    pub(crate) fn known(&self) -> Vec<(String, Access)> {
        self.known.borrow().iter().map(|(sandbox, access)| (sandbox.clone(), access.clone())).collect()
    }

    /// Adds an access that another instance requested.
    pub(crate) fn learn(&self, sandbox: String, access: Access) {
        self.known.borrow_mut().insert(sandbox, access);
    }

    /// Adds the access from the answer to a create request.
    pub(crate) fn remember(&self, sandbox: &str, task_id: &str, access: Option<CommandRouterAccess>) {
        if let Some(access) = access.filter(|access| !task_id.is_empty() && !access.url.is_empty()) {
            // An unusable access is requested again later, which reports the error.
            if let Ok(access) = Access::new(task_id.to_string(), &access.url, access.jwt) {
                self.known.borrow_mut().insert(sandbox.to_string(), access);
            }
        }
    }

    /// Returns the access to a sandbox. Requests it if it is unknown or about to expire.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for an invalid id, `sandbox-ended` if the sandbox has ended, `not-found` if it is unknown,
    /// `timed-out` if it has no machine after five minutes; otherwise the error of the failed request.
    pub(crate) async fn get(&self, sandbox: &str) -> Result<Access> {
        id::check_sandbox(sandbox)?;
        let cached = self.known.borrow().get(&sandbox.to_string()).cloned();
        if let Some(access) = &cached
            && access.expires.is_none_or(|expires| self.control.setup().now() + RENEW_BEFORE < expires)
        {
            return Ok(access.clone());
        }
        let task_id = match cached {
            Some(access) => access.task_id,
            None => self.task_id(sandbox).await?,
        };
        let answer = if id::is_v1(sandbox) {
            let request = TaskGetCommandRouterAccessRequest { task_id: task_id.clone() };
            self.control
                .keyed(&self.control.setup().new_uuid(), rpc::TASK_GET_COMMAND_ROUTER_ACCESS, &request)
                .await?
                .map(|answer| (answer.url, answer.jwt))
        } else {
            let request = SandboxGetCommandRouterAccessRequest { target: Some(Target::SandboxId(sandbox.to_string())) };
            self.control
                .keyed(&self.control.setup().new_uuid(), rpc::SANDBOX_GET_COMMAND_ROUTER_ACCESS, &request)
                .await?
                .map(|answer| (answer.url, answer.jwt))
        };
        let (url, jwt) = match answer {
            Ok(answer) => answer,
            Err(status) => return Err(self.explain(sandbox, &status, "reach the sandbox").await),
        };
        let access = Access::new(task_id, &url, jwt)?;
        self.known.borrow_mut().insert(sandbox.to_string(), access.clone());
        Ok(access)
    }

    /// Returns the id of the task that a sandbox runs or ran as. Waits up to five minutes for it.
    pub(crate) async fn task_id(&self, sandbox: &str) -> Result<String> {
        for look in 0..TASK_ID_LOOKS {
            if look > 0 {
                self.control.setup().transport().sleep(TASK_ID_PAUSE).await;
            }
            let request = SandboxGetTaskIdRequest { sandbox_id: sandbox.to_string(), ..Default::default() };
            let v1 = id::is_v1(sandbox);
            let answer = self
                .control
                .keyed(
                    &self.control.setup().new_uuid(),
                    if v1 { rpc::SANDBOX_GET_TASK_ID } else { rpc::SANDBOX_GET_TASK_ID_V2 },
                    &request,
                )
                .await?;
            let answer = match answer {
                Ok(answer) => answer,
                Err(status) => return Err(self.explain(sandbox, &status, "find the sandbox's machine").await),
            };
            if let Some(task_id) = answer.task_id.filter(|id| !id.is_empty()) {
                return Ok(task_id);
            }
            if let Some(reason) = answer.task_result.as_ref().and_then(ended::reason) {
                return Err(ended::error(sandbox, &reason));
            }
        }
        let message =
            format!("The sandbox {sandbox} got no machine within five minutes. Try again, or request fewer resources.");
        Err(Error::new(ErrorKind::TimedOut, message).about(sandbox))
    }

    /// Makes the next call request a new token. The task is kept.
    pub(crate) fn expire(&self, sandbox: &str) {
        let mut known = self.known.borrow_mut();
        if let Some(mut access) = known.remove(&sandbox.to_string()) {
            access.expires = Some(Duration::ZERO);
            known.insert(sandbox.to_string(), access);
        }
    }

    /// Converts a failed call to an error. A router that does not respond, or does not know the task, can mean that the
    /// sandbox has ended, so this function asks the control plane.
    pub(crate) async fn explain(&self, sandbox: &str, status: &Status, what: &str) -> Error {
        let error = status_error(status, what);
        let ambiguous =
            status.is_retryable() || matches!(status.code(), Code::NotFound | Code::FailedPrecondition | Code::Aborted);
        if ambiguous {
            // A worker can know of an end before the control plane does.
            let delay = if status.code() == Code::NotFound { END_DELAY } else { Duration::ZERO };
            match ended::wait(&self.control, sandbox, delay).await {
                Ok(Some(reason)) => {
                    self.known.borrow_mut().remove(&sandbox.to_string());
                    return ended::error(sandbox, &reason).with_happened(error.happened);
                }
                // If the control plane is not available either, its error is the better explanation.
                Err(better) if matches!(better.kind, ErrorKind::NotFound | ErrorKind::Unavailable) => {
                    return better.with_happened(error.happened);
                }
                Ok(None) | Err(_) => {}
            }
        }
        error.about(sandbox)
    }
}
