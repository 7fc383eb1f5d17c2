//! The presence redundancy group in the API: its words, high availability, and who is assigned where.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::answers::{self, answer, refuse};
use super::server::{Node, Shared, changed, moving};
use crate::node::GroupOp;

/// The presence redundancy group.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupShown {
    /// Its name; empty: the nodes are in no group.
    pub name: String,
    /// What operators say of it.
    pub description: String,
    /// Whether high availability is enabled.
    pub high_availability: bool,
    /// How users are assigned: `balanced`, `active-standby` or `none`.
    pub assignment: String,
    /// The nodes.
    pub nodes: Vec<Member>,
    /// Accounts that are assigned to no node.
    pub unassigned: u64,
    /// What is looked at before high availability is enabled.
    pub checks: Vec<CheckShown>,
}

/// A node of the group.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its state, such as `Normal`.
    pub state: String,
    /// The reason of its state.
    pub reason: String,
    /// Accounts that are assigned to it.
    pub users: u64,
    /// Version of its software; empty where it is not known.
    pub version: String,
}

/// One thing that is looked at.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckShown {
    /// What.
    pub what: String,
    /// Whether it is well.
    pub well: bool,
    /// Whether high availability is not enabled unless it is.
    pub needed: bool,
    /// What is wrong; empty if it is well.
    pub error: String,
    /// What to do about it.
    pub hint: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edited {
    name: Option<String>,
    description: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ha {
    enabled: bool,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Home {
    home: Option<String>,
}

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/group", get(show).post(create).patch(edit).delete(remove))
        .route("/v1/ha", post(switch))
        .route("/v1/rebalance", post(rebalance))
        .route("/v1/check", post(check))
        .route("/v1/users/{user}/home", post(assign))
}

async fn show(State(shared): Node) -> Result<Response, Response> {
    Ok(Json(answers::group(&*shared.daemon).await?).into_response())
}

async fn create(State(shared): Node, body: Result<Json<New>, JsonRejection>) -> Result<Response, Response> {
    let New { name, description } = body.map_err(unread("{\"name\", \"description\"?}"))?.0;
    if name.is_empty() {
        let hint = "1 to 128 of the letters A to Z and a to z, digits, _ and -";
        return Err(refuse(StatusCode::BAD_REQUEST, "a group needs a name", hint));
    }
    change(&shared, GroupOp::Create { name, description }).await
}

async fn edit(State(shared): Node, body: Result<Json<Edited>, JsonRejection>) -> Result<Response, Response> {
    let Edited { name, description } = body.map_err(unread("{\"name\"?, \"description\"?}"))?.0;
    if name.as_deref() == Some("") {
        let hint = "to have none, delete it";
        return Err(refuse(StatusCode::BAD_REQUEST, "a group needs a name", hint));
    }
    change(&shared, GroupOp::Edit { name, description }).await
}

async fn remove(State(shared): Node) -> Result<Response, Response> {
    change(&shared, GroupOp::Delete).await
}

async fn switch(State(shared): Node, body: Result<Json<Ha>, JsonRejection>) -> Result<Response, Response> {
    let Ha { enabled: on, force } = body.map_err(unread("{\"enabled\", \"force\"?}"))?.0;
    tracing::info!(event = "admin_ha", on);
    change(&shared, GroupOp::Ha { on, force }).await
}

/// Answers with the group as it is from now on.
async fn change(shared: &Shared, op: GroupOp) -> Result<Response, Response> {
    match answer(shared.daemon.change_group(op)).await? {
        Ok(()) => Ok(Json(answers::group(&*shared.daemon).await?).into_response()),
        Err(refusal) => Err(conflict(refusal)),
    }
}

async fn check(State(shared): Node) -> Result<Response, Response> {
    tracing::info!(event = "admin_check");
    let nodes = answer(shared.daemon.check()).await?.map_err(conflict)?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "nodes": nodes }))).into_response())
}

async fn rebalance(State(shared): Node) -> Result<Response, Response> {
    tracing::info!(event = "admin_rebalance");
    moving(answer(shared.daemon.rebalance()).await?)
}

async fn assign(
    State(shared): Node,
    Path(user): Path<String>,
    body: Result<Json<Home>, JsonRejection>,
) -> Result<Response, Response> {
    let user = shared.account(&user).await?;
    let Home { home } = body.map_err(unread("{\"home\"}, the name of a node or null,"))?.0;
    if let Some(home) = &home {
        shared.known(home).await?;
    }
    tracing::info!(event = "admin_assign");
    changed(&user, answer(shared.daemon.assign(user.to_string(), home)).await?)
}

/// What to send instead of what cannot be read.
fn unread(form: &str) -> impl Fn(JsonRejection) -> Response {
    let hint = format!("send a JSON object {form} as application/json");
    move |error| refuse(StatusCode::BAD_REQUEST, error.body_text(), hint.clone())
}

pub(super) fn conflict(refusal: Refusal) -> Response {
    (StatusCode::CONFLICT, Json(refusal)).into_response()
}
