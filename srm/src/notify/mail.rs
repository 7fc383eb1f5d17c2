//! E-mail by SMTP (RFC 5321), in the clear, with STARTTLS (RFC 3207) or with TLS from the first byte (RFC 8314).

use std::sync::Arc;
use std::time::Duration;

use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters, TlsParametersBuilder,
};
use lettre::transport::smtp::extension::ClientId;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::capped::Capped;
use super::task::{CONNECT_LIMIT, Deliver, Failure};
use super::template::{Sender, Template};
use super::text::{clean, cut, moment};
use crate::config::{HostPort, SmtpTls};
use crate::events::Record;

/// Longest subject in bytes.
const SUBJECT_BYTES: usize = 250;
/// Longest text in bytes.
const BODY_BYTES: usize = 65_536;
/// Most bytes that a server says in one delivery, its TLS included. It says less than ten lines, each of at most 512 (RFC 5321 section
/// 4.5.3.1.5), and a chain of certificates.
const SERVER_BYTES: usize = 256 * 1024;
/// How long the server may take to say goodbye once it has the message.
const GOODBYE: Duration = Duration::from_secs(1);

/// Whether this is an address of mail, such as `ops@example.org` or `Tandem <tandem@example.org>`.
pub(crate) fn is_mailbox(text: &str) -> bool {
    text.parse::<Mailbox>().is_ok() && clean(text) == text
}

/// One recipient of mail, and the server that takes it.
pub(super) struct Mail {
    pub server: HostPort,
    pub security: Security,
    pub login: Option<Credentials>,
    pub from: Mailbox,
    pub to: Mailbox,
    pub subject: Template,
    pub body: Template,
    pub sender: Sender,
}

/// What protects the connection to the server.
pub(super) enum Security {
    /// Nothing.
    None,
    /// STARTTLS; a server that has none gets no mail.
    StartTls(TlsParameters),
    /// TLS from the first byte, with who is to be at its other end.
    Implicit(TlsConnector, ServerName<'static>),
}

impl Security {
    /// Where there is TLS, one of these authorities must have signed the server's certificate.
    pub fn new(tls: SmtpTls, host: &str, roots: &[CertificateDer<'static>]) -> anyhow::Result<Security> {
        Ok(match tls {
            SmtpTls::None => Security::None,
            SmtpTls::Starttls => {
                let mut builder =
                    TlsParametersBuilder::new(host.to_owned()).certificate_store(CertificateStore::None);
                for root in roots {
                    builder = builder.add_root_certificate(Certificate::from_der(root.to_vec())?);
                }
                Security::StartTls(builder.build()?)
            }
            SmtpTls::Implicit => {
                let mut trusted = RootCertStore::empty();
                trusted.add_parsable_certificates(roots.iter().cloned());
                let provider = rustls::crypto::ring::default_provider();
                let config = ClientConfig::builder_with_provider(provider.into())
                    .with_safe_default_protocol_versions()?
                    .with_root_certificates(trusted)
                    .with_no_client_auth();
                Security::Implicit(Arc::new(config).into(), ServerName::try_from(host.to_owned())?)
            }
        })
    }
}

impl Deliver for Mail {
    async fn deliver(&mut self, record: &Record) -> Result<(), Failure> {
        let message = self.message(record).map_err(Failure::refused)?;
        let mut connection = self.connect().await?;
        // A reply of the form 5yz is for good: the same message is not to be sent again (RFC 5321 section 4.2.1).
        let sent = connection.send(message.envelope(), &message.formatted()).await;
        sent.map_err(|error| match error.is_permanent() {
            true => Failure::refused(error),
            false => Failure::again(error),
        })?;
        // It is delivered, whatever comes now.
        let _ = timeout(GOODBYE, connection.quit()).await;
        Ok(())
    }
}

impl Mail {
    async fn connect(&self) -> Result<AsyncSmtpConnection, Failure> {
        let (server, hello) = ((self.server.host.as_str(), self.server.port), self.hello());
        let reached = timeout(CONNECT_LIMIT, TcpStream::connect(server)).await;
        let tcp = reached.map_err(|_| Failure::again("it does not answer"))?.map_err(Failure::again)?;
        let at = tcp.peer_addr().map_err(Failure::again)?;
        let tcp = Capped::new(tcp, at, SERVER_BYTES);
        let greeted = match &self.security {
            Security::None | Security::StartTls(_) => {
                AsyncSmtpConnection::connect_with_transport(Box::new(tcp), &hello).await
            }
            Security::Implicit(tls, name) => {
                let stream = tls.connect(name.clone(), tcp).await.map_err(Failure::again)?;
                let stream = Capped::new(stream, at, SERVER_BYTES);
                AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello).await
            }
        };
        let mut connection = greeted.map_err(Failure::again)?;
        if let Security::StartTls(parameters) = &self.security {
            connection.starttls(parameters.clone(), &hello).await.map_err(Failure::again)?;
        }
        if let Some(login) = &self.login {
            connection.auth(DEFAULT_MECHANISMS, login).await.map_err(Failure::again)?;
        }
        Ok(connection)
    }

    /// What this node is called towards servers: its domain where that can stand there.
    fn hello(&self) -> ClientId {
        match self.sender.domain.is_ascii() {
            true => ClientId::Domain(self.sender.domain.clone()),
            false => ClientId::default(),
        }
    }

    /// The same event gives the same message with the same Message-ID, so that a mail system may drop the second of two.
    fn message(&self, record: &Record) -> Result<Message, lettre::error::Error> {
        let subject = clean(&self.subject.fill(record, &self.sender));
        let body = self.body.fill(record, &self.sender);
        let word = |text: &str| -> String {
            text.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(100).collect()
        };
        let domain = self.from.email.domain();
        let id = format!("<tandem.{}.{}@{domain}>", word(&record.id()), record.at_ms);
        Message::builder()
            .from(self.from.clone())
            .to(self.to.clone())
            .subject(cut(&subject, SUBJECT_BYTES))
            .date(moment(record.at_ms))
            .message_id(Some(id))
            // Nobody's holiday answers this (RFC 3834 section 5).
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".into(),
            ))
            .header(ContentType::TEXT_PLAIN)
            .body(cut(&body, BODY_BYTES).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{record, sender};
    use super::*;

    fn mail(subject: &str, body: &str) -> Mail {
        Mail {
            server: HostPort { host: "127.0.0.1".into(), port: 25 },
            security: Security::None,
            login: None,
            from: "Tandem <tandem@example.org>".parse().unwrap(),
            to: "ops@example.org".parse().unwrap(),
            subject: Template::parse(subject).unwrap(),
            body: Template::parse(body).unwrap(),
            sender: sender(),
        }
    }

    fn formatted(record: &Record) -> (String, String) {
        let message = mail("{severity}: {event} {cause}", "{text}\nid: {id}\n").message(record).unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn a_message_has_the_headers_that_people_and_machines_need() {
        let (head, body) = formatted(&record());
        for line in [
            "From: Tandem <tandem@example.org>",
            "To: ops@example.org",
            "Subject: critical: failover-complete node crashed",
            "Date: Thu, 26 Nov 2026 21:04:09 +0000",
            "Message-ID: <tandem.a-17.1795727049120@example.org>",
            "Auto-Submitted: auto-generated",
        ] {
            assert!(head.lines().any(|there| there == line), "{line} is not in {head}");
        }
        assert_eq!(body, "The users of a are served by b.\r\nid: a-17\r\n");
        assert_eq!(formatted(&record()), formatted(&record()));
    }

    #[test]
    fn no_event_adds_a_header_a_recipient_or_a_command() {
        let (plain, _) = formatted(&record());
        let sly = "x\r\nBcc: evil@example.org\r\n\r\n.\r\nMAIL FROM:<evil@example.org>\n\u{2028}To: evil@example.org";
        let sly = Record {
            node: sly.into(),
            event: sly.into(),
            cause: sly.into(),
            text: sly.into(),
            at_ms: u64::MAX,
            ..record()
        };
        let (head, body) = formatted(&sly);
        // Lines that begin with a space go on with the header before (RFC 5322 section 2.2.3).
        let names = |head: &str| -> Vec<String> {
            let lines = head.lines().filter(|line| !line.starts_with([' ', '\t']));
            lines.map(|line| line.split(':').next().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&head), names(&plain), "{head}");
        assert!(!body.contains("\n.") && !body.contains("\nMAIL") && !body.contains("\nBcc"), "{body}");
        let message = mail("{text}", "{text}").message(&sly).unwrap();
        assert_eq!(message.envelope().to(), ["ops@example.org".parse().unwrap()]);
    }

    #[test]
    fn addresses_are_one_address() {
        for good in ["ops@example.org", "Tandem <tandem@example.org>", "\"On call\" <a.b+c@example.org>"] {
            assert!(is_mailbox(good), "{good}");
        }
        for bad in
            ["", "ops", "ops@", "a@b, c@d", "a@example.org\r\nBcc: b@example.org", "<>", "a b@example.org"]
        {
            assert!(!is_mailbox(bad), "{bad}");
        }
    }
}
