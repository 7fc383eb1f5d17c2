//! Temporary.
#![allow(missing_docs)]
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct Refusal {
    pub error: String,
    pub state: String,
    pub reason: String,
    pub hint: String,
}
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct CountersStatus {
    #[serde(rename = "JsmSessionsClient")]
    pub jsm_sessions_client: u64,
    #[serde(rename = "JsmSessionsClientInactive")]
    pub jsm_sessions_client_inactive: u64,
    #[serde(rename = "JsmSessionsComposed")]
    pub jsm_sessions_composed: u64,
    #[serde(rename = "ActiveJsmSessions")]
    pub active_jsm_sessions: u64,
    #[serde(rename = "InactiveJsmSessions")]
    pub inactive_jsm_sessions: u64,
}
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct LogStatus {
    pub own_end: u64,
    pub acked_by_peer: u64,
    pub received: u64,
}
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct NodeStatus {
    pub name: String,
    pub state: String,
    pub reason: String,
    pub local: bool,
    pub heard_ms: Option<u64>,
    pub counters: CountersStatus,
    pub log: LogStatus,
    pub users: u64,
    pub homed: u64,
}
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct GroupStatus {
    pub home: String,
    pub primary: String,
    pub mode: String,
    pub role: String,
    pub term: u64,
    pub release: String,
}
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct Moving {
    pub what: String,
    pub left: u64,
    pub done: u64,
}
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct UserStatus {
    pub user: String,
    pub home: String,
    pub owner: String,
    pub epoch: String,
    pub sessions: u64,
}
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct Status {
    pub version: String,
    pub domain: String,
    pub nodes: Vec<NodeStatus>,
    pub groups: Vec<GroupStatus>,
    pub row: Option<u32>,
    pub cause: String,
    pub action: String,
    pub alarms: Vec<String>,
    pub moving: Option<Moving>,
}
pub trait Daemon: Send + Sync + 'static {
    fn status(&self) -> BoxFuture<'_, Status>;
    fn failover<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Moving, Refusal>>;
    fn fallback<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Moving, Refusal>>;
    fn user_add(
        &self,
        user: String,
        password: String,
        home: Option<String>,
    ) -> BoxFuture<'_, Result<(), Refusal>>;
    fn users(&self) -> BoxFuture<'_, Vec<UserStatus>>;
    fn ready(&self) -> bool;
}
#[derive(Deserialize)]
struct Add {
    user: String,
    password: String,
    home: Option<String>,
}
fn out<T: Serialize>(r: Result<T, Refusal>) -> Response {
    match r {
        Ok(v) => Json(v).into_response(),
        Err(e) => (StatusCode::CONFLICT, Json(e)).into_response(),
    }
}
pub async fn listen(a: &crate::config::Admin, _n: &str, d: Arc<dyn Daemon>) -> anyhow::Result<()> {
    let r = Router::new()
        .route("/v1/status", get(async |State(d): State<Arc<dyn Daemon>>| Json(d.status().await)))
        .route(
            "/v1/users",
            get(async |State(d): State<Arc<dyn Daemon>>| Json(d.users().await)).post(
                async |State(d): State<Arc<dyn Daemon>>, Json(a): Json<Add>| {
                    out(d.user_add(a.user, a.password, a.home).await.map(|()| serde_json::json!({})))
                },
            ),
        )
        .route(
            "/v1/nodes/{n}/{a}",
            post(async |State(d): State<Arc<dyn Daemon>>, Path((n, a)): Path<(String, String)>| {
                out(if a == "failover" { d.failover(&n).await } else { d.fallback(&n).await })
            }),
        )
        .with_state(d);
    let l = tokio::net::TcpListener::bind(a.listen).await?;
    tokio::spawn(async move { axum::serve(l, r).await });
    Ok(())
}
