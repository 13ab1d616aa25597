//! The emulator's administration endpoint, plain HTTP with JSON: orders faults, and reports the emulator's state.
//!
//! ```text
//! POST   /emulator/faults        order faults: the body is a rule, or a list of rules
//! GET    /emulator/faults        list the rules, each with the number of calls that it was applied to
//! DELETE /emulator/faults        remove all rules
//! POST   /emulator/lose-worker   end sandboxes as if their worker was lost: {"sandbox_id": "sb-…"}, or {} for all
//! GET    /emulator/state         list sandboxes, images and apps
//! ```

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tonic::body::Body;

use crate::http::plain::plain;
use crate::model::faults::Rule;
use crate::model::sandbox::{Phase, Sandbox};
use crate::model::state::State;

/// Path prefix of the endpoint.
pub const PREFIX: &str = "/emulator/";

/// Largest request body in bytes.
const MAX_BODY: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(untagged)]
enum Rules {
    One(Rule),
    Many(Vec<Rule>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lose {
    #[serde(default)]
    sandbox_id: Option<String>,
}

/// Responds to a request of the endpoint. `path` is the part after [`PREFIX`].
pub async fn serve(state: &Arc<State>, path: &str, request: Request<Incoming>) -> Response<Body> {
    let method = request.method().clone();
    // Web pages can send simple requests to any address. This content type requires a preflight request, which fails.
    let kind = request.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let json_type = kind.is_some_and(|kind| kind.starts_with("application/json"));
    if method == Method::POST && !json_type {
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type must be application/json\n");
    }
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    match (&method, path) {
        (&Method::POST, "faults") => match serde_json::from_slice::<Rules>(&body) {
            Ok(Rules::One(rule)) => order(state, vec![rule]),
            Ok(Rules::Many(rules)) => order(state, rules),
            Err(error) => plain(StatusCode::BAD_REQUEST, format!("not a rule: {error}\n")),
        },
        (&Method::GET, "faults") => {
            let rules: Vec<_> = state.chaos.rules();
            let rules: Vec<_> = rules.iter().map(|(rule, applied)| json!({"rule": rule, "applied": applied})).collect();
            answer(&json!(rules))
        }
        (&Method::DELETE, "faults") => {
            state.chaos.clear();
            answer(&json!({}))
        }
        (&Method::POST, "lose-worker") => match serde_json::from_slice::<Lose>(&body) {
            Ok(lose) => lose_worker(state, lose.sandbox_id.as_deref()),
            Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        (&Method::GET, "state") => answer(&overview(state)),
        _ => plain(StatusCode::NOT_FOUND, "unknown path; see docs/emulator.md\n"),
    }
}

fn order(state: &State, rules: Vec<Rule>) -> Response<Body> {
    let count = rules.len();
    if let Some(error) = rules.iter().find_map(|rule| rule.check().err()) {
        return plain(StatusCode::BAD_REQUEST, format!("not a rule: {error}\n"));
    }
    for rule in rules {
        state.chaos.add(rule);
    }
    answer(&json!({ "ordered": count }))
}

fn lose_worker(state: &State, only: Option<&str>) -> Response<Body> {
    let sandboxes: Vec<_> = state.tables.lock().sandboxes.values().cloned().collect();
    let fits = |sandbox: &&Arc<Sandbox>| sandbox.lives() && only.is_none_or(|id| id == sandbox.id);
    let lost: Vec<_> = sandboxes.iter().filter(fits).collect();
    for sandbox in &lost {
        tracing::info!(sandbox = sandbox.id, "worker lost by an ordered fault");
        sandbox.lose();
    }
    answer(&json!({ "lost": lost.len() }))
}

fn overview(state: &State) -> serde_json::Value {
    let tables = state.tables.lock();
    let sandbox = |sandbox: &Arc<Sandbox>| {
        let phase = match &*sandbox.phase.borrow() {
            Phase::Starting => "starting",
            Phase::Running(_) => "running",
            Phase::Ending => "ending",
            Phase::Ended(_) => "ended",
        };
        json!({
            "id": sandbox.id,
            "task_id": sandbox.task_id,
            "app_id": sandbox.app_id,
            "image_id": sandbox.definition.image_id,
            "phase": phase,
            "execs": sandbox.execs.lock().len(),
        })
    };
    let mut sandboxes: Vec<_> = tables.sandboxes.values().collect();
    sandboxes.sort_by(|a, b| a.created_at.total_cmp(&b.created_at));
    json!({
        "sandboxes": sandboxes.into_iter().map(sandbox).collect::<Vec<_>>(),
        "images": tables.images.keys().collect::<Vec<_>>(),
        "apps": tables.apps.values().map(|app| json!({"id": app.id, "name": app.name})).collect::<Vec<_>>(),
    })
}

fn answer(value: &serde_json::Value) -> Response<Body> {
    let mut response = plain(StatusCode::OK, format!("{value:#}\n"));
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}
