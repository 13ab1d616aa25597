//! Output streams of commands. They are kept open between calls (docs/modal-protocol.md, sections 7.3 and 7.4).

use std::{cell::RefCell, rc::Rc, time::Duration};

use futures_util::StreamExt as _;
use modal_proto::{
    rpc,
    task_command_router::{SandboxStdioReadV2Request, TaskExecStdioReadRequest},
};
use sandbox_provider_kit::{
    Error, Result,
    api::{ids, wit::ExecRef},
    call::{
        Endpoint,
        grpc::Status,
        retry::{Policy, Throttle},
    },
    exec::{self, Opening, Source},
    memo::Memo,
    platform::Transport,
};

use crate::service::{Service, access::Access, policy, router::SandboxRouter};

/// An output stream that resumes.
pub(crate) type Follow = exec::Follow<Output>;

/// One output stream of a command.
#[derive(Clone)]
pub struct Output {
    router: SandboxRouter,
    /// The exec's id at Modal; `None` for the entry-point command.
    exec: Option<String>,
    /// 0 for stdout, 1 for stderr (docs/modal-protocol.md, section 7.3).
    descriptor: i32,
}

impl Endpoint for Output {
    type Failure = Status;
    type Access = Access;

    fn transport(&self) -> &Rc<dyn Transport> {
        self.router.transport()
    }

    fn throttle(&self) -> Result<Throttle<Status>> {
        self.router.throttle()
    }

    fn access(&self) -> impl Future<Output = Result<Access>> {
        self.router.access()
    }

    fn expire(&self) {
        self.router.expire();
    }

    fn comes_up(&self, status: &Status, since: Duration) -> impl Future<Output = Result<bool>> {
        self.router.comes_up(status, since)
    }
}

impl Source for Output {
    const POLICY: Policy = policy::ROUTER;

    fn open(&self, offset: u64) -> Opening<Status> {
        let Output { router, exec, descriptor } = self.clone();
        Box::pin(async move {
            let (sandbox, router) = (router.sandbox(), router.router());
            match exec {
                Some(exec_id) => {
                    let make = |task_id: String| TaskExecStdioReadRequest {
                        task_id,
                        exec_id,
                        offset,
                        file_descriptor: descriptor,
                    };
                    let stream = router.stream(sandbox, rpc::TASK_EXEC_STDIO_READ, make).await?;
                    Ok(stream.map(|stream| stream.map(|item| item.map(|piece| (None, piece.data))).boxed_local()))
                }
                None => {
                    let make =
                        |task_id: String| SandboxStdioReadV2Request { task_id, offset, file_descriptor: descriptor };
                    let stream = router.stream(sandbox, rpc::SANDBOX_STDIO_READ_V2, make).await?;
                    Ok(stream.map(|stream| {
                        stream.map(|item| item.map(|piece| (Some(piece.starting_offset), piece.data))).boxed_local()
                    }))
                }
            }
        })
    }

    async fn explain(&self, status: &Status) -> Error {
        self.router.router().explain(self.router.sandbox(), status, "read the output").await
    }
}

/// The streams that are open between calls, by sandbox, exec and descriptor.
pub struct Outputs {
    service: Service,
    kept: RefCell<Memo<(String, String, i32), Follow>>,
}

impl Outputs {
    /// Makes an empty set of streams.
    #[must_use]
    pub fn new(service: Service) -> Outputs {
        Outputs { service, kept: RefCell::default() }
    }

    /// Returns the service that the streams are read from.
    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    /// Takes the open stream whose next byte is at `offset`, or makes a new one.
    pub(crate) fn take(&self, exec: &ExecRef, descriptor: i32, offset: u64) -> Follow {
        let key = (exec.sandbox.clone(), exec.exec.clone(), descriptor);
        let kept = self.kept.borrow_mut().remove(&key);
        kept.filter(|follow| follow.offset() == offset).unwrap_or_else(|| {
            let output = Output {
                router: self.service.router.of(&exec.sandbox),
                exec: (exec.exec != ids::MAIN).then(|| ids::wire_uuid(&exec.exec)),
                descriptor,
            };
            Follow::new(output, offset)
        })
    }

    /// Keeps a stream open for the next call.
    pub(crate) fn keep(&self, exec: &ExecRef, descriptor: i32, follow: Follow) {
        let key = (exec.sandbox.clone(), exec.exec.clone(), descriptor);
        self.kept.borrow_mut().insert(key, follow);
    }
}
