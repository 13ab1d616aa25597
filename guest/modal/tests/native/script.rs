//! Modal on a scripted transport, shared by the tests.

use std::{rc::Rc, time::Duration};

use modal_proto::client::{
    AppGetOrCreateResponse, AuthTokenGetResponse, SandboxGetCommandRouterAccessResponse, SandboxGetTaskIdResponse,
};
use modal_provider::Provider;
pub use sandbox_provider_kit::platform::scripted::{Answer, Script, Seen, framed, headers, jwt, ok, run};
use sandbox_provider_kit::{api::wit::ListFilter, platform::Transport as _};

pub const SANDBOX: &str = "sb-01JABCDEFGHJKMNPQRSTVWXYZ0";

/// Makes a service that accepts the sign-in and knows the app and one sandbox. Tests add the other responses.
pub fn modal() -> Script {
    let script = Script::new();
    script.0.env.borrow_mut().insert("MODAL_SERVER_URL", "http://control.test".to_string());
    for _ in 0..20 {
        script.will("AuthTokenGet", ok(&AuthTokenGetResponse { token: jwt(script.now() + Duration::from_secs(1000)) }));
        script.will("AppGetOrCreate", ok(&AppGetOrCreateResponse { app_id: "ap-1".into(), handle_metadata: None }));
        script.will(
            "SandboxGetTaskIdV2",
            ok(&SandboxGetTaskIdResponse { task_id: Some("ta-1".into()), task_result: None }),
        );
        script.will(
            "SandboxGetCommandRouterAccess",
            ok(&SandboxGetCommandRouterAccessResponse {
                jwt: jwt(Duration::from_secs(100_000)),
                url: "http://router.test".into(),
                worker_ipv4_address: String::new(),
            }),
        );
    }
    script
}

/// Makes providers on a scripted transport.
pub trait Provide {
    /// Makes a provider with empty caches, like another instance of the component.
    fn provider(&self) -> Provider;
}

impl Provide for Script {
    fn provider(&self) -> Provider {
        Provider::new(Rc::new(self.clone()))
    }
}

pub fn filter() -> ListFilter {
    ListFilter { tags: Vec::new(), include_ended: false, extra: Vec::new() }
}

pub fn text(seen: &Seen, name: &str) -> String {
    seen.header(name)
}
