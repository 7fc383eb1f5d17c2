//! What every request waits for, and how one is refused.
#![allow(clippy::result_large_err, reason = "the error is the answer")]

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{BoxFuture, Daemon, GroupShown, Refusal, Status};

/// How long the node may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);

pub(super) fn refuse(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Response {
    let refusal = Refusal { error: error.into(), hint: hint.into(), ..Refusal::default() };
    (status, Json(refusal)).into_response()
}

/// Waits for the node, but not for ever.
pub(super) async fn answer<T>(future: BoxFuture<'_, T>) -> Result<T, Response> {
    tokio::time::timeout(ANSWER, future).await.map_err(|_| {
        let error = format!("the node did not answer within {} s", ANSWER.as_secs());
        refuse(StatusCode::SERVICE_UNAVAILABLE, error, "whether it was done is not known: ask for the status")
    })
}

/// The state of both nodes. A node that does not know its own says nothing.
pub(super) async fn status(daemon: &dyn Daemon) -> Result<Status, Response> {
    let status = answer(daemon.status()).await?;
    if status.nodes.is_empty() { Err(silent()) } else { Ok(status) }
}

/// The group. A node that does not know its own state does not say that there is none.
pub(super) async fn group(daemon: &dyn Daemon) -> Result<GroupShown, Response> {
    answer(daemon.group()).await?.ok_or_else(silent)
}

/// The metrics of this node. One that does not know its own state gives none: an empty list would be an answer.
pub(super) async fn metrics(daemon: &dyn Daemon) -> Result<String, Response> {
    let text = answer(daemon.metrics()).await?;
    if text.is_empty() { Err(silent()) } else { Ok(text) }
}

fn silent() -> Response {
    let hint =
        "it stops, or waits for its disk: see its log, and ask the other node, or this one again in a moment";
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the node does not answer", hint)
}
