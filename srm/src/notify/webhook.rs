//! Webhooks: one HTTP POST for each event, with the event as JSON, signed where there is a secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use rustls::pki_types::CertificateDer;
use tokio::sync::oneshot;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::task::{CONNECT_LIMIT, DELIVERY_LIMIT, Deliver, Failure};
use crate::events::Record;

/// Header with the HMAC of the body under the shared secret: `sha256=` and 64 hexadecimal digits.
pub const SIGNATURE: &str = "X-Tandem-Signature";
/// Answers that mean that the receiver understood and does not want this event: RFC 9110 sections 15.5.1 (bad request),
/// 15.5.14 (too large), 15.5.16 (not this type) and 15.5.21 (not to be processed).
const REFUSALS: [u16; 4] = [400, 413, 415, 422];
/// How much earlier the request ends than the delivery as a whole, so that its own reason is told.
const EARLIER: Duration = Duration::from_millis(500);

/// Where events are posted. Its path and its query may hold a secret: they are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hook(Uri);

impl Hook {
    /// Reads an URL. The error says what is wrong with it and what to write, and repeats no secret.
    pub fn parse(text: &str) -> Result<Hook, (String, String)> {
        const LIKE: &str = "write it such as \"https://hooks.example.org/tandem\"";
        let wrong = |problem: &str| Err((problem.to_owned(), LIKE.to_owned()));
        let Ok(uri) = text.parse::<Uri>() else { return wrong("this is not an URL") };
        if !matches!(uri.scheme_str(), Some("https" | "http")) {
            return wrong("this does not begin with https:// or http://");
        }
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
            return wrong("this URL names no host");
        };
        if authority.as_str().contains('@') {
            let hint = "remove it; with secret_file the receiver can tell who sends";
            return Err(("a user or password cannot stand in the URL".into(), hint.into()));
        }
        if authority.port_u16() == Some(0) || text.contains('#') {
            return wrong("this URL has a port or a part that no server has");
        }
        Ok(Hook(uri))
    }

    /// The text without what may be a secret in this URL.
    fn hide(&self, text: &str) -> String {
        let path = self.path();
        if path == "/" { text.to_owned() } else { text.replace(path, "/..") }
    }

    /// What may be a secret in it: never to be shown.
    pub fn path(&self) -> &str {
        self.0.path_and_query().map_or("/", |path| path.as_str())
    }

    /// Whether it is reached over TLS.
    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        write!(f, "{}://{authority}", self.0.scheme_str().unwrap_or_default())?;
        if self.0.path_and_query().is_some_and(|path| path.as_str() != "/") {
            f.write_str("/..")
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hook({self})")
    }
}

/// A receiver of HTTP requests.
pub(super) struct Webhook {
    at: Hook,
    key: Option<hmac::Key>,
    agent: ureq::Agent,
}

impl Webhook {
    /// With these authorities for https, and the secret that the receiver knows too.
    pub fn new(at: Hook, secret: Option<&str>, roots: &[CertificateDer<'static>]) -> Webhook {
        let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_global(Some(DELIVERY_LIMIT - EARLIER))
            // An answer that sends us elsewhere is no delivery, and neither a proxy nor an old connection is guessed.
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(None)
            .max_idle_connections(0)
            .build();
        let key = secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        Webhook { at, key, agent: config.into() }
    }
}

impl Deliver for Webhook {
    async fn deliver(&mut self, record: &Record) -> Result<(), Failure> {
        let body = body(record).map_err(Failure::refused)?;
        let mut request = self.agent.post(&self.at.0).header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.header(SIGNATURE, signature(key, &body));
        }
        // The client blocks. A thread of its own ends within its time limit and keeps nobody waiting, not even a node
        // that stops.
        let (tell, told) = oneshot::channel();
        let post = move || {
            _ = tell.send(request.send(body).map(|answer| answer.status().as_u16()));
        };
        std::thread::Builder::new().name("webhook".into()).spawn(post).map_err(Failure::again)?;
        match told.await {
            Ok(Ok(200..=299)) => Ok(()),
            Ok(Ok(status)) if REFUSALS.contains(&status) => {
                Err(Failure::refused(format!("it refuses an event with the status {status}")))
            }
            Ok(Ok(status)) => Err(Failure::again(format!("it answers with the status {status}"))),
            Ok(Err(error)) => Err(Failure::again(self.at.hide(&error.to_string()))),
            Err(_) => Err(Failure::again("the request ended without an answer")),
        }
    }
}

/// The event as it is kept, and its name among those of both nodes.
fn body(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let mut event = serde_json::to_value(record)?;
    event["id"] = record.id().into();
    serde_json::to_vec(&event)
}

fn signature(key: &hmac::Key, body: &[u8]) -> String {
    let tag = hmac::sign(key, body);
    let digits = tag.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256={}", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn the_signature_is_the_hmac_of_rfc_4231() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature(&key, b"what do ya want for nothing?"), expected);
    }

    #[test]
    fn the_body_is_the_event_with_its_id() {
        let event: serde_json::Value = serde_json::from_slice(&body(&record()).unwrap()).unwrap();
        assert_eq!(event["id"], "a-17");
        assert_eq!(serde_json::from_value::<Record>(event).unwrap(), record());
    }

    #[test]
    fn an_url_is_refused_with_its_reason_and_shown_without_its_secrets() {
        let hook = Hook::parse("https://hooks.example.org:8443/T0/secret?token=secret").unwrap();
        assert_eq!(hook.to_string(), "https://hooks.example.org:8443/..");
        assert_eq!(format!("{hook:?}"), "Hook(https://hooks.example.org:8443/..)");
        assert_eq!(hook.hide("bad: /T0/secret?token=secret!"), "bad: /..!");
        assert_eq!(Hook::parse("http://[::1]:80").unwrap().to_string(), "http://[::1]:80");
        for (bad, why) in [
            ("hooks.example.org", "does not begin with https://"),
            ("ftp://secret.example.org/", "does not begin with https://"),
            ("https://", "not an URL"),
            ("https://user:secret@example.org/", "cannot stand in the URL"),
            ("https://example.org:0/", "a port"),
            ("https://example.org/#secret", "a part"),
        ] {
            let (problem, hint) = Hook::parse(bad).unwrap_err();
            assert!(problem.contains(why) && !hint.contains("secret."), "{bad}: {problem}; {hint}");
        }
    }
}
