//! Asks the admin API of a node.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::output::{Exit, Failure};
use super::{ClientArgs, operator};
use crate::admin::operator::HEADER;
use crate::admin::{
    Forced, GroupShown, Logging, Moving, Refusal, Reloaded, ServiceAction, SessionStatus, Status, Stop,
    Stopped, UserStatus,
};
use crate::config;
use crate::events::Record;
use crate::node::Force;
use crate::setup::from_here;

/// How long a node may take to answer. Above the time after which the API itself gives up.
const TIMEOUT: Duration = Duration::from_secs(40);
/// How long the connection to it may take, where nothing else is asked.
const CONNECT: Duration = Duration::from_secs(2);

/// A node's admin API, as seen by a command.
pub struct Client {
    agent: ureq::Agent,
    address: SocketAddr,
    token: String,
    /// Who asks.
    operator: String,
    token_file: PathBuf,
    /// The configuration that named it; `None` if the command line did.
    config: Option<PathBuf>,
}

impl Client {
    /// Finds the node by the command line, else by its configuration file.
    pub(super) fn find(args: &ClientArgs) -> Result<Client, Failure> {
        let (address, token_file, config) = match (args.admin, &args.token_file) {
            (Some(address), Some(file)) => (address, file.clone(), None),
            (address, file) => {
                let path = config::find(args.config.as_deref()).map_err(|error| {
                    let mut failure = Failure::environment(&error);
                    if args.admin.is_some() {
                        failure.refusal.hint = "with --admin, --token-file is enough".into();
                    }
                    failure
                })?;
                let access = config::admin_access(&path).map_err(|error| Failure::environment(&error))?;
                let named = address.is_none().then_some(path);
                (address.unwrap_or(access.address), file.clone().unwrap_or(access.token_file), named)
            }
        };
        Client::new(address, &token_file, args.operator.as_deref(), config)
    }

    /// The node whose admin API listens at `address`, and whose token is in that file.
    pub fn at(address: SocketAddr, token_file: &Path) -> Result<Client, Failure> {
        Client::new(address, token_file, None, None)
    }

    fn new(
        address: SocketAddr,
        token_file: &Path,
        operator: Option<&str>,
        config: Option<PathBuf>,
    ) -> Result<Client, Failure> {
        let operator = operator::name(operator)?;
        let token = config::read_token(token_file).map_err(|problem| Failure::environment(&problem))?;
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            // A proxy meant for the web must not see the token.
            .proxy(None)
            .build()
            .new_agent();
        let address = from_here(address);
        Ok(Client { agent, address, token, operator, token_file: token_file.into(), config })
    }

    /// State of both nodes.
    pub fn status(&self) -> Result<Status, Failure> {
        self.get("/v1/status")
    }

    /// Begins `failover` or `fallback`.
    pub fn begin(&self, action: &str, node: &str) -> Result<Moving, Failure> {
        self.post(&format!("/v1/nodes/{}/{action}", escape(node)), &Value::Null)
    }

    /// Has a node restarted.
    pub fn restart(&self, node: &str) -> Result<(), Failure> {
        self.post(&format!("/v1/nodes/{}/restart", escape(node)), &Value::Null).map(|_: Value| ())
    }

    /// Metrics, in the text format of Prometheus.
    pub fn metrics(&self) -> Result<String, Failure> {
        let request = self.known(self.agent.get(self.url("/metrics")));
        let mut answer = request.call().map_err(|error| self.unreachable(error))?;
        let text = answer.body_mut().read_to_string().map_err(|error| self.unreachable(error))?;
        if answer.status().is_success() { Ok(text) } else { Err(self.stranger()) }
    }

    /// Has a node stopped.
    pub fn stop(&self, node: &str, stop: &Stop) -> Result<Stopped, Failure> {
        let body = serde_json::to_value(stop).unwrap_or(Value::Null);
        self.post(&format!("/v1/nodes/{}/stop", escape(node)), &body)
    }

    /// Starts or stops a service of a node, or lets it fail.
    pub fn service(&self, node: &str, service: &str, action: ServiceAction) -> Result<(), Failure> {
        let body = serde_json::to_value(action).unwrap_or(Value::Null);
        let path = format!("/v1/nodes/{}/services/{}", escape(node), escape(service));
        self.post(&path, &body).map(|_: Value| ())
    }

    /// Ends the failed mode of both nodes.
    pub fn recover(&self) -> Result<(), Failure> {
        self.post("/v1/recover", &Value::Null).map(|_: Value| ())
    }

    /// What may be missing on a node if it is made active by force, or who is not served if it is made inactive.
    pub fn would_force(&self, node: &str, to: Force) -> Result<Forced, Failure> {
        self.get(&format!("/v1/nodes/{}/{}", escape(node), to.command()))
    }

    /// Makes a node active or inactive by force. `takes_back`: its operator was told that it only takes its word back.
    pub fn force(&self, node: &str, to: Force, takes_back: bool) -> Result<Forced, Failure> {
        let confirm = if takes_back {
            serde_json::json!({ "confirm": node, "takes_back": true })
        } else {
            serde_json::json!({ "confirm": node })
        };
        self.post(&format!("/v1/nodes/{}/{}", escape(node), to.command()), &confirm)
    }

    /// Adds an account; gives its address.
    pub fn user_add(&self, user: &str, password: &str, home: Option<&str>) -> Result<String, Failure> {
        let new = serde_json::json!({ "user": user, "password": password, "home": home });
        self.post("/v1/users", &new).map(|Account { user }| user)
    }

    /// Gives an account another password; gives its address.
    pub fn user_passwd(&self, user: &str, password: &str) -> Result<String, Failure> {
        let new = serde_json::json!({ "password": password });
        self.post(&format!("/v1/users/{}/password", escape(user)), &new).map(|Account { user }| user)
    }

    /// Removes an account; gives its address.
    pub fn user_remove(&self, user: &str) -> Result<String, Failure> {
        let path = format!("/v1/users/{}", escape(user));
        let request = self.known(self.agent.delete(self.url(&path)));
        self.read(request.call()).map(|Account { user }| user)
    }

    /// The presence redundancy group.
    pub fn group(&self) -> Result<GroupShown, Failure> {
        self.get("/v1/group")
    }

    /// Makes one.
    pub fn group_create(&self, name: &str, description: &str) -> Result<GroupShown, Failure> {
        self.post("/v1/group", &serde_json::json!({ "name": name, "description": description }))
    }

    /// Describes it anew.
    pub fn group_edit(&self, name: Option<&str>, description: Option<&str>) -> Result<GroupShown, Failure> {
        let request = self.known(self.agent.patch(self.url("/v1/group")));
        self.read(request.send_json(serde_json::json!({ "name": name, "description": description })))
    }

    /// Deletes it.
    pub fn group_delete(&self) -> Result<GroupShown, Failure> {
        let request = self.known(self.agent.delete(self.url("/v1/group")));
        self.read(request.call())
    }

    /// Switches high availability.
    pub fn ha(&self, enabled: bool, force: bool) -> Result<GroupShown, Failure> {
        self.post("/v1/ha", &serde_json::json!({ "enabled": enabled, "force": force }))
    }

    /// Assigns an account to a node, or to none; gives its address.
    pub fn assign(&self, user: &str, home: Option<&str>) -> Result<String, Failure> {
        let path = format!("/v1/users/{}/home", escape(user));
        self.post(&path, &serde_json::json!({ "home": home })).map(|Account { user }| user)
    }

    /// Begins to spread users over both nodes.
    pub fn rebalance(&self) -> Result<Moving, Failure> {
        self.post("/v1/rebalance", &Value::Null)
    }

    /// Begins a check; gives the names of the nodes that do it.
    pub fn check(&self) -> Result<Vec<String>, Failure> {
        #[derive(serde::Deserialize)]
        struct Checking {
            nodes: Vec<String>,
        }
        self.post("/v1/check", &Value::Null).map(|Checking { nodes }| nodes)
    }

    /// Lets the node read its configuration again.
    pub fn reload(&self) -> Result<Reloaded, Failure> {
        self.post("/v1/reload", &Value::Null)
    }

    /// Changes one setting, on both nodes where it is clusterwide; `None`: its default.
    pub fn set(&self, key: &str, value: Option<&str>) -> Result<Reloaded, Failure> {
        self.post("/v1/settings", &serde_json::json!({ "key": key, "value": value }))
    }

    /// The level of the node's log.
    pub fn log_level(&self) -> Result<String, Failure> {
        self.get("/v1/log").map(|Logging { level }| level)
    }

    /// Sets it until the node ends; gives it back.
    pub fn set_log_level(&self, level: &str) -> Result<String, Failure> {
        self.post("/v1/log", &serde_json::json!({ "level": level })).map(|Logging { level }| level)
    }

    /// Events after number `after`, the newest `most` of them; if there is none, the node waits for one for so many seconds.
    pub fn events(&self, after: u64, most: u64, wait_s: u64) -> Result<Vec<Record>, Failure> {
        self.get(&format!("/v1/events?after={after}&most={most}&wait={wait_s}"))
    }

    /// All sessions.
    pub fn sessions(&self) -> Result<Vec<SessionStatus>, Failure> {
        self.get("/v1/sessions")
    }

    /// All accounts.
    pub fn users(&self) -> Result<Vec<UserStatus>, Failure> {
        self.get("/v1/users")
    }

    /// Whether nothing listens there any more.
    pub(super) fn is_refused(&self) -> bool {
        let tried = TcpStream::connect_timeout(&self.address, CONNECT);
        tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let request = self.known(self.agent.get(self.url(path)));
        self.read(request.call())
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        let request = self.known(self.agent.post(self.url(path)));
        self.read(request.send_json(body))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// With the token, and who asks.
    fn known<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let bearer = format!("Bearer {}", self.token);
        request.header("Authorization", bearer).header(HEADER, self.operator.as_bytes())
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, Failure> {
        let mut answer = answer.map_err(|error| self.unreachable(error))?;
        let text = answer.body_mut().read_to_string().map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        if status.is_success() {
            return serde_json::from_str(&text).map_err(|_| self.stranger());
        }
        let refusal: Refusal = serde_json::from_str(&text).map_err(|_| self.stranger())?;
        let exit = match status.as_u16() {
            409 => Exit::Refused,
            400 | 404 | 413 => Exit::Usage,
            401 => {
                let file = self.token_file.display();
                let error = format!("the node at {} does not know the token of {file}", self.address);
                let hint = "name its own file with --token-file FILE or -c FILE; a node takes a changed \
                            token up within seconds";
                return Err(Failure::new(Exit::Environment, error, hint));
            }
            _ => Exit::Environment,
        };
        Err(Failure { exit, refusal, more: Value::Null })
    }

    fn unreachable(&self, error: ureq::Error) -> Failure {
        let at = self.address;
        let refused =
            matches!(&error, ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused);
        let (error, hint) = match (&self.config, refused || matches!(error, ureq::Error::ConnectionFailed)) {
            (Some(config), true) => {
                let config = config.display();
                let error = format!("no tandem is running at {at} (config {config})");
                (error, format!("start it with `tandem serve -c {config}`"))
            }
            (None, true) => (
                format!("no tandem is running at {at}"),
                "start it, or name another with --admin ADDR".to_owned(),
            ),
            (_, false) => {
                let hint = "see its log; if it hangs, its peer takes over: ask that one".to_owned();
                (format!("the node at {at} does not answer: {error}"), hint)
            }
        };
        Failure::new(Exit::Environment, error, hint)
    }

    fn stranger(&self) -> Failure {
        let error = format!("what answers at {} is not a tandem of this version", self.address);
        Failure::new(Exit::Environment, error, "compare the address with [admin] listen, and the versions")
    }
}

/// The account that was changed.
#[derive(serde::Deserialize)]
struct Account {
    user: String,
}

/// A name as a part of a path.
fn escape(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
