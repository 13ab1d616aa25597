//! The configuration, from environment variables, which every host supports (docs/modal-protocol.md, section 1.4).

use std::time::Duration;

use sandbox_provider_kit::{
    Error, Result,
    api::wit::EnvVar,
    call::{grpc::Wire, json},
    platform::{Transport, Url, is_header_text},
};

/// The default address of the service.
pub const DEFAULT_SERVER_URL: &str = "https://api.modal.com";

/// The default app of the sandboxes. Each Modal sandbox belongs to an app.
pub const DEFAULT_APP_NAME: &str = "sandbox-provider";

/// The configuration.
#[derive(Clone)]
pub struct Config {
    /// The address of the control plane.
    pub server: Url,
    /// The name of the environment; empty for the workspace's default.
    pub environment: String,
    /// The name of the app.
    pub app: String,
    /// The version of the image builder; `None` to ask the service.
    pub builder_version: Option<String>,
    /// Longest total wait that the service can ask for; `None` for no limit, zero to never wait.
    pub max_throttle_wait: Option<Duration>,
    /// Whether sandboxes use the V2 backend unless they need V1.
    pub v2: bool,
    /// Whether to build images again although they exist.
    pub force_build: bool,
    /// The encoding of gRPC.
    pub wire: Wire,
    /// Token id and secret, for hosts that do not add the credentials themselves.
    pub token: Option<(String, String)>,
}

impl Config {
    /// Reads the environment variables.
    ///
    /// # Errors
    ///
    /// `invalid-argument` with the name of the variable that is not valid as its subject.
    pub fn read(transport: &dyn Transport) -> Result<Config> {
        let text = transport.env("MODAL_SERVER_URL").unwrap_or_else(|| DEFAULT_SERVER_URL.to_string());
        // The official client tries a list of addresses in parallel. Here the first one suffices, because the host
        // pools connections.
        let first = text.split(',').next().unwrap_or_default().trim().trim_end_matches('/');
        let server = server_url(first)?;
        let max_throttle_wait = match transport.env("MODAL_MAX_THROTTLE_WAIT") {
            Some(text) => Some(json::thousandths(text.trim()).map(Duration::from_millis).ok_or_else(|| {
                bad("MODAL_MAX_THROTTLE_WAIT", &text, "give a number of seconds such as 60, or 0 to never wait")
            })?),
            None => None,
        };
        let wire = match transport.env("MODAL_GRPC_WIRE").as_deref() {
            None | Some("grpc") => Wire::Grpc,
            Some("grpc-web") => Wire::GrpcWeb,
            Some(other) => return Err(bad("MODAL_GRPC_WIRE", other, "give grpc or grpc-web")),
        };
        let token = match (transport.env("MODAL_TOKEN_ID"), transport.env("MODAL_TOKEN_SECRET")) {
            (Some(id), Some(secret)) => Some((header("MODAL_TOKEN_ID", &id)?, header("MODAL_TOKEN_SECRET", &secret)?)),
            _ => None,
        };
        Ok(Config {
            server,
            environment: transport.env("MODAL_ENVIRONMENT").unwrap_or_default(),
            app: transport.env("MODAL_APP_NAME").unwrap_or_else(|| DEFAULT_APP_NAME.to_string()),
            builder_version: transport.env("MODAL_IMAGE_BUILDER_VERSION"),
            max_throttle_wait,
            v2: !matches!(transport.env("MODAL_SANDBOX_V2").as_deref(), Some("0" | "false" | "False")),
            force_build: matches!(transport.env("MODAL_FORCE_BUILD").as_deref(), Some("1" | "true" | "True")),
            wire,
            token,
        })
    }
}

fn bad(variable: &str, text: &str, help: &str) -> Error {
    Error::invalid(format!("{variable} is `{text}`, which is invalid: {help}.")).about(variable)
}

fn server_url(text: &str) -> Result<Url> {
    let help = "give http://HOST:PORT or https://HOST, such as https://api.modal.com";
    Url::parse(text).ok_or_else(|| bad("MODAL_SERVER_URL", text, help))
}

fn header(variable: &str, value: &str) -> Result<String> {
    let value = value.trim();
    if !is_header_text(value) {
        let why = format!(
            "{variable} contains characters that are invalid in a token: copy it again from the service's page."
        );
        return Err(Error::invalid(why).about(variable));
    }
    Ok(value.to_string())
}

/// Returns the variables that [`Config::read`] reads, for `describe`.
#[must_use]
pub fn variables() -> Vec<EnvVar> {
    let variable = |name: &str, purpose: &str, default: Option<&str>, secret: bool| EnvVar {
        name: name.to_string(),
        purpose: purpose.to_string(),
        default: default.map(str::to_string),
        secret,
    };
    vec![
        variable("MODAL_SERVER_URL", "URL of the control plane.", Some(DEFAULT_SERVER_URL), false),
        variable("MODAL_ENVIRONMENT", "Environment that apps, secrets and volumes are looked up in.", Some(""), false),
        variable(
            "MODAL_APP_NAME",
            "App that sandboxes belong to; created if it does not exist.",
            Some(DEFAULT_APP_NAME),
            false,
        ),
        variable(
            "MODAL_IMAGE_BUILDER_VERSION",
            "Version of the image builder; requested from the service if not set.",
            None,
            false,
        ),
        variable(
            "MODAL_MAX_THROTTLE_WAIT",
            "Maximum time in seconds to wait when the service asks to; 0 to never wait, no limit if not set.",
            None,
            false,
        ),
        variable("MODAL_SANDBOX_V2", "0 to always use the older backend.", Some("1"), false),
        variable("MODAL_FORCE_BUILD", "1 to build images even if Modal has them.", Some("0"), false),
        variable(
            "MODAL_GRPC_WIRE",
            "grpc, or grpc-web for a host that supports only HTTP/1.1, with the URL of a gateway in MODAL_SERVER_URL.",
            Some("grpc"),
            false,
        ),
        variable("MODAL_TOKEN_ID", "Token id, if the host does not add credentials itself.", None, true),
        variable("MODAL_TOKEN_SECRET", "Token secret, if the host does not add credentials itself.", None, true),
    ]
}
