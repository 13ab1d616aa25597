//! How a sandbox's command router is reached: the task that the sandbox runs as, the router's address, the token for it (fact
//! sheet, section 7.2), and what a failure there says about the sandbox.

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

/// Get a new token when the old one has less than this left, so that no call starts with one that ends on the way.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// Between two looks whether a sandbox has a machine (docs/modal-protocol.md, section 6.2), and how many looks: five minutes, as long as
/// the official clients wait.
const TASK_ID_PAUSE: Duration = Duration::from_millis(500);
const TASK_ID_LOOKS: u32 = 600;

/// How long the control plane is given to learn of an end that the worker knows of.
const SETTLE: Duration = Duration::from_secs(2);

/// How a sandbox is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// The task that the sandbox runs as.
    pub task_id: String,
    /// Address of the router.
    pub origin: Url,
    /// Bearer token.
    pub jwt: String,
    /// When the token ends; none if it does not say.
    pub expires: Option<Duration>,
}

impl Access {
    fn new(task_id: String, url: &str, jwt: String) -> Result<Access> {
        let expires = expiry(&jwt);
        let origin = Url::parse(url)
            .ok_or_else(|| Error::internal(format!("Modal answered with a router address that is none: `{url}`.")))?;
        Ok(Access { task_id, origin, jwt, expires })
    }

    /// A request with this access's token. `deadline` travels with it.
    pub(super) fn dress(&self, body: Bytes, deadline: Option<Duration>) -> Result<Call, Status> {
        let mut call = Call::new(body, deadline);
        call.header("authorization", format!("Bearer {}", self.jwt))?;
        Ok(call)
    }
}

/// The accesses of sandboxes. Clones share what is known.
#[derive(Clone)]
pub struct Accesses {
    control: Control,
    known: Rc<RefCell<Memo<String, Access>>>,
}

impl Accesses {
    /// Knows none yet.
    #[must_use]
    pub fn new(control: Control) -> Accesses {
        Accesses { control, known: Rc::default() }
    }

    /// What they are asked from.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// All that are known, oldest first.
    pub(crate) fn known(&self) -> Vec<(String, Access)> {
        self.known.borrow().iter().map(|(sandbox, access)| (sandbox.clone(), access.clone())).collect()
    }

    /// Takes over one that another instance has asked for.
    pub(crate) fn learn(&self, sandbox: String, access: Access) {
        self.known.borrow_mut().insert(sandbox, access);
    }

    /// Remembers the access that a create answered with.
    pub(crate) fn remember(&self, sandbox: &str, task_id: &str, access: Option<CommandRouterAccess>) {
        if let Some(access) = access.filter(|access| !task_id.is_empty() && !access.url.is_empty()) {
            // One that cannot be used is asked for again, and told then.
            if let Ok(access) = Access::new(task_id.to_string(), &access.url, access.jwt) {
                self.known.borrow_mut().insert(sandbox.to_string(), access);
            }
        }
    }

    /// How a sandbox is reached, asked for when unknown or about to end.
    ///
    /// # Errors
    ///
    /// `sandbox-ended`, `not-found`, or what the service answered.
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

    /// The task that a sandbox runs as, or ran.
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
        let message = format!("The sandbox {sandbox} got no machine within five minutes. Try again, or ask for less.");
        Err(Error::new(ErrorKind::TimedOut, message).about(sandbox))
    }

    /// Makes the next call ask for a new token; the task stays.
    pub(crate) fn expire(&self, sandbox: &str) {
        let mut known = self.known.borrow_mut();
        if let Some(mut access) = known.remove(&sandbox.to_string()) {
            access.expires = Some(Duration::ZERO);
            known.insert(sandbox.to_string(), access);
        }
    }

    /// What a failure means: a router that does not answer, or does not know the task, may be one whose sandbox is over.
    pub(crate) async fn explain(&self, sandbox: &str, status: &Status, what: &str) -> Error {
        let error = status_error(status, what);
        let ambiguous =
            status.is_retryable() || matches!(status.code(), Code::NotFound | Code::FailedPrecondition | Code::Aborted);
        if ambiguous {
            // A worker may know of an end before the control plane does.
            let settle = if status.code() == Code::NotFound { SETTLE } else { Duration::ZERO };
            match ended::wait(&self.control, sandbox, settle).await {
                Ok(Some(reason)) => {
                    self.known.borrow_mut().remove(&sandbox.to_string());
                    return ended::error(sandbox, &reason).with_happened(error.happened);
                }
                // When the control plane is away too, that is the better explanation.
                Err(better) if matches!(better.kind, ErrorKind::NotFound | ErrorKind::Unavailable) => {
                    return better.with_happened(error.happened);
                }
                Ok(None) | Err(_) => {}
            }
        }
        error.about(sandbox)
    }
}
