//! What is used of etcd's API (v3, over its JSON gateway, which members serve on their client port): a range, a transaction,
//! a lease. Bytes are base64 there, and 64-bit numbers are text.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::config::EtcdAt;
use crate::notify::authorities;

/// Time for TCP and TLS.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Time for one request as a whole.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// Longest answer, in bytes, and most keys that one may tell of: there are five.
const ANSWER_BYTES: u64 = 64 * 1024;
const MOST_KEYS: u64 = 16;

/// One member of an etcd.
pub(super) struct Api {
    agent: ureq::Agent,
    endpoint: String,
    token: Option<String>,
}

/// A key that must be as it was: of this revision, 0 for one that is not there.
pub(super) struct Guard {
    pub key: String,
    pub revision: u64,
}

/// A value to be written; it ends with the lease, if there is one.
pub(super) struct Put {
    pub key: String,
    pub value: Vec<u8>,
    pub lease: Option<Lease>,
}

/// A key and its value.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    /// Of its last change.
    pub revision: u64,
}

/// What a key may live as long as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lease(i64);

/// What became of a transaction.
pub(super) enum Done {
    /// Everything is written, in this revision.
    Written(u64),
    /// Nothing is: a key was not as it should be. All keys as they are.
    Differs(Vec<Entry>),
}

impl Api {
    /// Nothing is sent yet but a name and a password, where there are any. The error is for the operator.
    pub fn open(at: &EtcdAt, endpoint: &str) -> Result<Api, String> {
        let tls = match endpoint.starts_with("https:") {
            true => Some(tls(&at.ca, at.identity.as_ref())?),
            false => None,
        };
        let config = ureq::Agent::config_builder()
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_global(Some(REQUEST_LIMIT))
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(None);
        let config = match tls {
            Some(tls) => config.tls_config(tls),
            None => config,
        };
        let agent = config.build().into();
        let mut api = Api { agent, endpoint: endpoint.trim_end_matches('/').to_owned(), token: None };
        if let Some(login) = &at.login {
            #[derive(Deserialize)]
            struct Answer {
                token: String,
            }
            let body = json!({ "name": login.user, "password": login.password()? });
            api.token = Some(api.ask::<Answer>("auth/authenticate", &body)?.token);
        }
        Ok(api)
    }

    /// All keys that begin so, as a majority of the members has them.
    pub fn range(&self, prefix: &str) -> Result<Vec<Entry>, String> {
        let answer: Range = self.ask("kv/range", &range(prefix))?;
        entries(answer)
    }

    /// Writes all or, unless every key is as it should be, nothing.
    pub fn write(&self, guards: &[Guard], puts: &[Put], prefix: &str) -> Result<Done, String> {
        let compare = guards.iter().map(|guard| {
            let revision = guard.revision.to_string();
            json!({ "key": text(&guard.key), "target": "MOD", "result": "EQUAL", "mod_revision": revision })
        });
        let success = puts.iter().map(|put| {
            let mut value = json!({ "key": text(&put.key), "value": STANDARD.encode(&put.value) });
            if let Some(Lease(id)) = put.lease {
                value["lease"] = id.to_string().into();
            }
            json!({ "request_put": value })
        });
        let body = json!({
            "compare": compare.collect::<Vec<Value>>(),
            "success": success.collect::<Vec<Value>>(),
            "failure": [{ "request_range": range(prefix) }],
        });
        let answer: Txn = self.ask("kv/txn", &body)?;
        if answer.succeeded {
            return Ok(Done::Written(answer.header.revision));
        }
        let range = answer.responses.into_iter().find_map(|response| response.response_range);
        range.ok_or_else(|| "it leaves out a part of its answer".into()).and_then(entries).map(Done::Differs)
    }

    /// A new lease of so many seconds.
    pub fn grant(&self, seconds: u64) -> Result<Lease, String> {
        let answer: Granted = self.ask("lease/grant", &json!({ "TTL": seconds.to_string() }))?;
        Ok(Lease(answer.id))
    }

    /// Makes it last as long again. `false`: it is over.
    pub fn keep_alive(&self, lease: Lease) -> Result<bool, String> {
        #[derive(Deserialize)]
        struct Answer {
            result: Alive,
        }
        let answer: Answer = self.ask("lease/keepalive", &json!({ "ID": lease.0.to_string() }))?;
        Ok(answer.result.ttl > 0)
    }

    fn ask<T: DeserializeOwned>(&self, what: &str, body: &Value) -> Result<T, String> {
        let mut request = self.agent.post(format!("{}/v3/{what}", self.endpoint));
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        let mut answer = request.send_json(body).map_err(|error| match error {
            ureq::Error::Timeout(_) => format!("it does not answer within {} s", REQUEST_LIMIT.as_secs()),
            ureq::Error::Io(error) if !matches!(error.kind(), io::ErrorKind::ConnectionRefused) => {
                format!(
                    "the connection fails ({error}): does it speak TLS, and trust the authority of etcd.cert?"
                )
            }
            ureq::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        })?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_string();
        let text = text.map_err(|error| error.to_string())?;
        if status.is_success() {
            return serde_json::from_str(&text).map_err(|error| {
                format!("it speaks something else ({error}); is etcd.endpoints right, and its version 3.4 or later?")
            });
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(said) => {
                Err(failure(&said).unwrap_or_else(|| format!("it answers with HTTP status {status}")))
            }
            Err(_) if status == 404 => {
                Err("it has no JSON gateway: etcd 3.4 or later has, unless --enable-grpc-gateway=false"
                    .into())
            }
            Err(_) => Err(format!("it answers with HTTP status {status}: {:.200}", text.trim())),
        }
    }
}

/// What went wrong, by the gateway's first version and its second.
fn failure(said: &Value) -> Option<String> {
    let texts = ["/error/message", "/error", "/message"].iter().filter_map(|at| said.pointer(at)?.as_str());
    texts.map(str::to_owned).next()
}

/// Read anew for each session: certificates are renewed while a node runs.
fn tls(ca: &Path, identity: Option<&(PathBuf, PathBuf)>) -> Result<TlsConfig, String> {
    let roots = authorities(Some(ca))?;
    let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned());
    let shown = identity.map(|(cert, key)| client_cert(cert, key)).transpose()?;
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
        .client_cert(shown)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

fn client_cert(cert: &Path, key: &Path) -> Result<ClientCert, String> {
    let unreadable = |path: &Path, error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| unreadable(cert, &error))?;
    let chain: Vec<_> = chain.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
    let pem = std::fs::read(key).map_err(|error| unreadable(key, &error))?;
    let key = PrivateKey::from_pem(&pem).map_err(|error| unreadable(key, &error))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn text(key: &str) -> String {
    STANDARD.encode(key)
}

/// All keys that begin so: up to the first that is behind all of them.
fn range(prefix: &str) -> Value {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    json!({ "key": text(prefix), "range_end": STANDARD.encode(end), "limit": MOST_KEYS.to_string() })
}

fn entries(range: Range) -> Result<Vec<Entry>, String> {
    let bytes =
        |text: &str| STANDARD.decode(text).map_err(|error| format!("it speaks something else: {error}"));
    let entry = |kv: Kv| {
        let key = String::from_utf8_lossy(&bytes(&kv.key)?).into_owned();
        Ok(Entry { key, value: bytes(&kv.value)?, revision: kv.mod_revision })
    };
    range.kvs.into_iter().map(entry).collect()
}

#[derive(Deserialize)]
struct Header {
    #[serde(deserialize_with = "number")]
    revision: u64,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Kv>,
}

#[derive(Deserialize)]
struct Kv {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(deserialize_with = "number")]
    mod_revision: u64,
}

#[derive(Deserialize)]
struct Txn {
    header: Header,
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<Response>,
}

#[derive(Deserialize)]
struct Response {
    response_range: Option<Range>,
}

#[derive(Deserialize)]
struct Granted {
    #[serde(rename = "ID", deserialize_with = "number")]
    id: i64,
}

#[derive(Deserialize)]
struct Alive {
    /// Left out when it is 0.
    #[serde(default, rename = "TTL", deserialize_with = "number")]
    ttl: i64,
}

fn number<'de, D: Deserializer<'de>, T: std::str::FromStr<Err: fmt::Display>>(
    from: D,
) -> Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}
