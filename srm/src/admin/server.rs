//! Routes, and who may pass: every request is checked before its path is looked at (S36).
#![allow(clippy::result_large_err, reason = "the error is the answer")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use ring::{hmac, rand::SystemRandom};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use xmpp_core::jid::BareJid;

use super::answers::{self, answer, refuse};
use super::group::conflict;
use super::listener::Bounded;
use super::{Daemon, Forced, Logging, Moving, Refusal, ServiceAction, Stop, operator};
use crate::node::{Force, Service};

/// Most events in one answer.
const MOST_EVENTS: usize = 1_000;
/// How long a question for events waits at most: less than a node may take for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(25);
/// Longest body of a request in bytes.
const BODY: usize = 16 * 1024;
/// Longest password in bytes.
const PASSWORD: usize = 1023;
/// What needs no token: it tells one bit, to load balancers and the like.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// The bearer token, kept so that comparing it takes the same time whatever is presented.
pub struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Token {
    /// Keeps this token. Fails only if the system gives no random bytes.
    pub fn new(token: &str) -> io::Result<Token> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let tag = hmac::sign(&key, token.as_bytes());
        Ok(Token { key, tag })
    }

    fn is(&self, presented: &[u8]) -> bool {
        hmac::verify(&self.key, presented, self.tag.as_ref()).is_ok()
    }
}

/// Opens the port, for [`serve`]. An error says what to do.
pub async fn listen(address: SocketAddr, node: &str) -> anyhow::Result<TcpListener> {
    let listener = crate::listen::tcp("admin.listen", address).await?;
    tracing::info!(event = "admin_listening", node, %address);
    Ok(listener)
}

/// Answers requests for ever.
pub async fn serve(
    listener: TcpListener,
    token: Arc<ArcSwap<Token>>,
    daemon: Arc<dyn Daemon>,
) -> io::Result<()> {
    axum::serve(Bounded::new(listener), router(token, daemon)).await
}

/// What all requests share.
pub(super) struct Shared {
    pub(super) daemon: Arc<dyn Daemon>,
    /// Asked for once: neither changes while the node runs.
    group: OnceCell<Group>,
}

struct Group {
    domain: String,
    nodes: Vec<String>,
}

impl Shared {
    async fn group(&self) -> Result<&Group, Response> {
        let ask = async || {
            let status = answers::status(&*self.daemon).await?;
            let nodes = status.nodes.into_iter().map(|node| node.name).collect();
            Ok(Group { domain: status.domain, nodes })
        };
        self.group.get_or_try_init(ask).await
    }

    /// The account that is meant, by its local part or bare JID.
    pub(super) async fn account(&self, user: &str) -> Result<BareJid, Response> {
        let domain = &self.group().await?.domain;
        account(user, domain).map_err(|(error, hint)| refuse(StatusCode::BAD_REQUEST, error, hint))
    }

    /// Refuses the name of a node that is not in the group.
    pub(super) async fn known(&self, node: &str) -> Result<(), Response> {
        let nodes = &self.group().await?.nodes;
        if nodes.iter().any(|known| known == node) {
            return Ok(());
        }
        let hint = match nodes.as_slice() {
            [only] => format!("the only node is {only}"),
            _ => format!("the nodes are {}", nodes.join(" and ")),
        };
        Err(refuse(StatusCode::NOT_FOUND, format!("no node is named {node}"), hint))
    }
}

/// All routes, guarded.
fn router(token: Arc<ArcSwap<Token>>, daemon: Arc<dyn Daemon>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/nodes/{node}/failover", post(failover))
        .route("/v1/nodes/{node}/fallback", post(fallback))
        .route("/v1/nodes/{node}/restart", post(restart))
        .route("/v1/nodes/{node}/stop", post(stop))
        .route("/v1/nodes/{node}/services/{service}", post(service))
        .route("/v1/recover", post(recover))
        .route(
            "/v1/nodes/{node}/force-active",
            get(|shared, node| would_force(shared, node, Force::Active))
                .post(|shared, node, body| force(shared, node, body, Force::Active)),
        )
        .route(
            "/v1/nodes/{node}/force-inactive",
            get(|shared, node| would_force(shared, node, Force::Inactive))
                .post(|shared, node, body| force(shared, node, body, Force::Inactive)),
        )
        .route("/v1/users", get(users).post(user_add))
        .route("/v1/users/{user}", delete(user_remove))
        .route("/v1/users/{user}/password", post(user_passwd))
        .merge(super::group::routes())
        .route("/v1/reload", post(reload))
        .route("/v1/settings", post(set))
        .route("/v1/log", get(log).post(set_log))
        .route("/metrics", get(metrics))
        .route("/v1/events", get(events))
        .route("/v1/sessions", get(sessions))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(async |uri: Uri| {
            refuse(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()), "see the paths under /v1")
        })
        .method_not_allowed_fallback(async |uri: Uri| {
            let error = format!("{} does not take this method", uri.path());
            refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                error,
                "ask with GET, act with POST, change with PATCH, remove with DELETE",
            )
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(token, guard))
        .with_state(Arc::new(Shared { daemon, group: OnceCell::new() }))
}

pub(super) type Node = State<Arc<Shared>>;

async fn guard(State(token): State<Arc<ArcSwap<Token>>>, request: Request, next: Next) -> Response {
    let passes = check(&token.load(), request.uri().path(), request.headers());
    let mut response = match passes.and_then(|()| operator::named(request.headers())) {
        Ok(who) => run(request, who, next).await,
        Err(refused) => refused,
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// In a task of its own, which ends with its connection: a panic costs the request that it comes from.
async fn run(request: Request, who: Option<Arc<str>>, next: Next) -> Response {
    let mut one = tokio::task::JoinSet::new();
    one.spawn(operator::asks(who, next.run(request)));
    one.join_next().await.and_then(Result::ok).unwrap_or_else(|| {
        let hint =
            "whether it was done is not known: ask for the status, and report the lines of the node's log";
        refuse(StatusCode::INTERNAL_SERVER_ERROR, "a bug ended this request", hint)
    })
}

/// A page in a browser must not reach the API: it would come under a name of its own (DNS rebinding), or say where it
/// is from.
fn check(token: &Token, path: &str, headers: &HeaderMap) -> Result<(), Response> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_own) {
        return Err(refuse(
            StatusCode::FORBIDDEN,
            "the request is for another host",
            "reach the API by address or as localhost, not by another name",
        ));
    }
    if headers.contains_key(header::ORIGIN) {
        return Err(refuse(
            StatusCode::FORBIDDEN,
            "requests from web pages are refused",
            "use `tandem` or another program that sends no Origin header",
        ));
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
    });
    if OPEN.contains(&path) || bearer.is_some_and(|presented| token.is(presented)) {
        return Ok(());
    }
    let error = if bearer.is_some() { "the token is wrong" } else { "there is no token" };
    let hint = "send `Authorization: Bearer TOKEN` with the token of the file that [admin] token_file names";
    let mut refused = refuse(StatusCode::UNAUTHORIZED, error, hint);
    refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Err(refused)
}

/// Whether a Host header names this machine by what no page on the web can be called.
fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

async fn status(State(shared): Node) -> Result<Response, Response> {
    Ok(Json(answers::status(&*shared.daemon).await?).into_response())
}

async fn ready(State(shared): Node) -> Response {
    if shared.daemon.ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn failover(State(shared): Node, Path(node): Path<String>) -> Result<Response, Response> {
    shared.known(&node).await?;
    tracing::info!(event = "admin_failover", node);
    moving(answer(shared.daemon.failover(&node)).await?)
}

async fn fallback(State(shared): Node, Path(node): Path<String>) -> Result<Response, Response> {
    shared.known(&node).await?;
    tracing::info!(event = "admin_fallback", node);
    moving(answer(shared.daemon.fallback(&node)).await?)
}

async fn restart(State(shared): Node, Path(node): Path<String>) -> Result<Response, Response> {
    shared.known(&node).await?;
    match answer(shared.daemon.restart(&node)).await? {
        Ok(()) => Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "node": node }))).into_response()),
        Err(refusal) => Err((StatusCode::CONFLICT, Json(refusal)).into_response()),
    }
}

/// Longest text for clients in bytes, and longest time in which they may go on, in seconds.
const LONGEST_TEXT: usize = 1_024;
const LONGEST_DRAIN: u64 = 86_400;

async fn stop(
    State(shared): Node,
    Path(node): Path<String>,
    body: Result<Json<Stop>, JsonRejection>,
) -> Result<Response, Response> {
    shared.known(&node).await?;
    let hint = "send {\"text\"?, \"drain_s\"?} as application/json";
    let Json(stop) = body.map_err(|error| refuse(StatusCode::BAD_REQUEST, error.body_text(), hint))?;
    let wrong = |text: &String| text.len() > LONGEST_TEXT || text.contains(char::is_control);
    if stop.text.as_ref().is_some_and(wrong) {
        let error = format!("the text has one line of at most {LONGEST_TEXT} bytes");
        return Err(refuse(StatusCode::BAD_REQUEST, error, "shorten it"));
    }
    if stop.drain_s.is_some_and(|seconds| seconds > LONGEST_DRAIN) {
        let error = format!("clients are waited for {LONGEST_DRAIN} s at most");
        return Err(refuse(StatusCode::BAD_REQUEST, error, "choose a shorter time"));
    }
    tracing::info!(event = "admin_stop", node);
    match answer(shared.daemon.stop(&node, stop)).await? {
        Ok(stopped) => Ok((StatusCode::ACCEPTED, Json(stopped)).into_response()),
        Err(refusal) => Err((StatusCode::CONFLICT, Json(refusal)).into_response()),
    }
}

/// Longest time that a service can be made to fail, in seconds.
const LONGEST_FAILURE: u64 = 86_400;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    action: String,
    seconds: Option<u64>,
}

impl Wanted {
    fn read(self) -> Option<ServiceAction> {
        Some(match (self.action.as_str(), self.seconds) {
            ("start", None) => ServiceAction::Start,
            ("stop", None) => ServiceAction::Stop,
            ("restart", None) => ServiceAction::Restart,
            ("fail", seconds) => ServiceAction::Fail { seconds: seconds.unwrap_or(0) },
            _ => return None,
        })
    }
}

async fn service(
    State(shared): Node,
    Path((node, name)): Path<(String, String)>,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Result<Response, Response> {
    shared.known(&node).await?;
    let Some(service) = Service::named(&name) else {
        let names: Vec<&str> = Service::ALL.iter().map(|service| service.name()).collect();
        let hint = format!("the services are {}", names.join(", "));
        return Err(refuse(StatusCode::NOT_FOUND, format!("no service is named {name}"), hint));
    };
    let hint =
        "send {\"action\"}, one of start, stop, restart and fail (with \"seconds\"?), as application/json";
    let Json(wanted) = body.map_err(|error| refuse(StatusCode::BAD_REQUEST, error.body_text(), hint))?;
    let Some(action) = wanted.read() else {
        return Err(refuse(StatusCode::BAD_REQUEST, "there is no such action on a service", hint));
    };
    if matches!(action, ServiceAction::Fail { seconds } if seconds > LONGEST_FAILURE) {
        let error = format!("a service is made to fail for {LONGEST_FAILURE} s at most");
        return Err(refuse(StatusCode::BAD_REQUEST, error, "stop it instead"));
    }
    tracing::info!(event = "admin_service", node, service = name, action = action.name());
    match answer(shared.daemon.service(&node, service, action)).await? {
        Ok(()) => {
            let done = serde_json::json!({ "node": node, "service": name, "action": action.name() });
            Ok(Json(done).into_response())
        }
        Err(refusal) => Err((StatusCode::CONFLICT, Json(refusal)).into_response()),
    }
}

async fn recover(State(shared): Node) -> Result<Response, Response> {
    tracing::info!(event = "admin_recover");
    answer(shared.daemon.recover()).await?.map_err(conflict)?;
    Ok(Json(serde_json::json!({})).into_response())
}

pub(super) fn moving(begun: Result<Moving, Refusal>) -> Result<Response, Response> {
    match begun {
        Ok(moving) => Ok((StatusCode::ACCEPTED, Json(moving)).into_response()),
        Err(refusal) => Err((StatusCode::CONFLICT, Json(refusal)).into_response()),
    }
}

async fn would_force(State(shared): Node, Path(node): Path<String>, to: Force) -> Result<Response, Response> {
    shared.known(&node).await?;
    forced(answer(shared.daemon.force(&node, to, false)).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    confirm: String,
    /// The operator was told so: nothing else is wanted.
    #[serde(default)]
    takes_back: bool,
}

async fn force(
    State(shared): Node,
    Path(node): Path<String>,
    body: Result<Json<Confirmation>, JsonRejection>,
    to: Force,
) -> Result<Response, Response> {
    shared.known(&node).await?;
    let fits = |body: &Confirmation| body.confirm == node && (to == Force::Active || !body.takes_back);
    let Some(body) = body.ok().map(|Json(body)| body).filter(fits) else {
        let error = format!("{} of {node} is not confirmed", to.command());
        let hint = "look at GET of the same path, then send {\"confirm\": NODE} as application/json";
        return Err(refuse(StatusCode::BAD_REQUEST, error, hint));
    };
    tracing::warn!(event = "admin_force", node, to = to.command(), takes_back = body.takes_back);
    if body.takes_back {
        return forced(answer(shared.daemon.take_back(&node)).await?);
    }
    forced(answer(shared.daemon.force(&node, to, true)).await?)
}

fn forced(answer: Result<Forced, Refusal>) -> Result<Response, Response> {
    match answer {
        Ok(forced) => Ok(Json(forced).into_response()),
        Err(refusal) => Err((StatusCode::CONFLICT, Json(refusal)).into_response()),
    }
}

async fn users(State(shared): Node) -> Result<Response, Response> {
    Ok(Json(answer(shared.daemon.users()).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    user: String,
    password: String,
    home: Option<String>,
}

async fn user_add(
    State(shared): Node,
    body: Result<Json<NewUser>, JsonRejection>,
) -> Result<Response, Response> {
    let Json(new) = body.map_err(|error| {
        let hint = "send a JSON object {\"user\", \"password\", \"home\"?} as application/json";
        let status = match error.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            other => other,
        };
        refuse(status, error.body_text(), hint)
    })?;
    let user = shared.account(&new.user).await?;
    password_fits(&new.password)?;
    if let Some(home) = &new.home {
        shared.known(home).await?;
    }
    tracing::info!(event = "admin_user_add");
    match answer(shared.daemon.user_add(user.to_string(), new.password, new.home)).await? {
        Ok(()) => {
            let user = serde_json::json!({ "user": user.to_string() });
            Ok((StatusCode::CREATED, Json(user)).into_response())
        }
        Err(refusal) => Err((StatusCode::CONFLICT, Json(refusal)).into_response()),
    }
}

fn password_fits(password: &str) -> Result<(), Response> {
    if !password.is_empty() && password.len() <= PASSWORD && !password.contains('\0') {
        return Ok(());
    }
    let error = format!("the password is empty, longer than {PASSWORD} bytes, or has a NUL in it");
    Err(refuse(StatusCode::BAD_REQUEST, error, "choose another, or let `tandem user` make one"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    password: String,
}

async fn user_passwd(
    State(shared): Node,
    Path(user): Path<String>,
    body: Result<Json<NewPassword>, JsonRejection>,
) -> Result<Response, Response> {
    let user = shared.account(&user).await?;
    let Json(new) = body.map_err(|error| {
        let hint = "send a JSON object {\"password\"} as application/json";
        refuse(StatusCode::BAD_REQUEST, error.body_text(), hint)
    })?;
    password_fits(&new.password)?;
    tracing::info!(event = "admin_user_passwd");
    changed(&user, answer(shared.daemon.user_passwd(user.to_string(), new.password)).await?)
}

async fn user_remove(State(shared): Node, Path(user): Path<String>) -> Result<Response, Response> {
    let user = shared.account(&user).await?;
    tracing::info!(event = "admin_user_remove");
    changed(&user, answer(shared.daemon.user_remove(user.to_string())).await?)
}

pub(super) fn changed(user: &BareJid, done: Result<(), Refusal>) -> Result<Response, Response> {
    match done {
        Ok(()) => Ok(Json(serde_json::json!({ "user": user.to_string() })).into_response()),
        Err(refusal) => Err((StatusCode::CONFLICT, Json(refusal)).into_response()),
    }
}

async fn reload(State(shared): Node) -> Result<Response, Response> {
    tracing::info!(event = "admin_reload");
    Ok(Json(answer(shared.daemon.reload()).await?.map_err(conflict)?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSetting {
    key: String,
    value: Option<String>,
}

async fn set(
    State(shared): Node,
    body: Result<Json<NewSetting>, JsonRejection>,
) -> Result<Response, Response> {
    let Json(new) = body.map_err(|error| {
        let hint = "send a JSON object {\"key\", \"value\"?} as application/json";
        refuse(StatusCode::BAD_REQUEST, error.body_text(), hint)
    })?;
    tracing::info!(event = "admin_set", key = new.key);
    match answer(shared.daemon.set(new.key, new.value)).await? {
        Ok(done) => Ok(Json(done).into_response()),
        Err(refusal) => Err((StatusCode::CONFLICT, Json(refusal)).into_response()),
    }
}

async fn log(State(shared): Node) -> Response {
    Json(Logging { level: shared.daemon.log_level() }).into_response()
}

async fn set_log(
    State(shared): Node,
    body: Result<Json<Logging>, JsonRejection>,
) -> Result<Response, Response> {
    let Json(new) = body.map_err(|error| {
        let hint = "send a JSON object {\"level\"} as application/json";
        refuse(StatusCode::BAD_REQUEST, error.body_text(), hint)
    })?;
    tracing::info!(event = "admin_log", level = new.level);
    match shared.daemon.set_log_level(&new.level) {
        Ok(()) => Ok(Json(new).into_response()),
        Err(refusal) => Err((StatusCode::BAD_REQUEST, Json(refusal)).into_response()),
    }
}

async fn metrics(State(shared): Node) -> Result<Response, Response> {
    const TEXT: HeaderValue =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, TEXT)], answers::metrics(&*shared.daemon).await?).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Which {
    after: u64,
    most: usize,
    wait: u64,
}

impl Default for Which {
    fn default() -> Which {
        Which { after: 0, most: MOST_EVENTS, wait: 0 }
    }
}

async fn events(
    State(shared): Node,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Response> {
    let Query(which) = which.map_err(|error| {
        let hint = "ask for /v1/events?after=NUMBER&most=NUMBER&wait=SECONDS, each of which may be left out";
        refuse(StatusCode::BAD_REQUEST, error.body_text(), hint)
    })?;
    let wait = Duration::from_secs(which.wait).min(LONGEST_WAIT);
    let most = which.most.min(MOST_EVENTS);
    Ok(Json(answer(shared.daemon.events(which.after, most, wait)).await?).into_response())
}

async fn sessions(State(shared): Node) -> Result<Response, Response> {
    Ok(Json(answer(shared.daemon.sessions()).await?).into_response())
}

/// The account that `user`, a local part or a bare JID, means at this domain.
fn account(user: &str, domain: &str) -> Result<BareJid, (String, String)> {
    let bad = || {
        let hint = format!("write a name such as \"anna\", or \"anna@{domain}\"");
        (format!("{user:?} cannot be the name of an account"), hint)
    };
    let jid = match user.contains('@') {
        true => BareJid::parse(user),
        false => BareJid::new(Some(user), domain),
    };
    let jid = jid.map_err(|_| bad())?;
    if jid.local().is_none() {
        return Err(bad());
    }
    if jid.domain() == domain {
        return Ok(jid);
    }
    Err((format!("{user} is not at {domain}"), format!("accounts here are at {domain}")))
}
