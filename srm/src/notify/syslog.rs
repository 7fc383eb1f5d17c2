//! Syslog: messages by RFC 5424, over UDP (RFC 5426) or over TCP with octet counting (RFC 6587 section 3.4.1).

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::task::{CONNECT_LIMIT, DELIVERY_LIMIT, Deliver, Failure};
use super::template::{Sender, Template};
use super::text::{clean, cut, timestamp};
use super::udp;
use crate::config::HostPort;
use crate::events::Record;

/// Longest message over UDP in bytes: what receivers should take (RFC 5424 section 6.1).
const UDP_BYTES: usize = 2048;
/// Longest message over TCP in bytes: what common receivers take unless told otherwise.
const TCP_BYTES: usize = 8192;
/// Longest value in the structured data, in bytes.
const VALUE_BYTES: usize = 128;
/// Name of the structured data. It needs an enterprise number (RFC 5424 section 7.2.2); this is the one whose range for
/// experiments the trap uses too.
const SD_ID: &str = "tandem@8072";
/// Said before text that is more than ASCII (RFC 5424 section 6.4).
const BOM: char = '\u{feff}';
/// How long a receiver may take to close a connection on which it was just told something.
const AFTERTHOUGHT: Duration = Duration::from_millis(20);

/// A receiver of syslog.
pub(super) struct Syslog {
    pub at: HostPort,
    /// Over TCP; else over UDP.
    pub tcp: bool,
    /// Number of the facility (RFC 5424 section 6.2.1).
    pub facility: u8,
    pub body: Template,
    pub sender: Sender,
    /// The connection, while there is one.
    pub stream: Option<TcpStream>,
}

impl Deliver for Syslog {
    async fn deliver(&mut self, record: &Record) -> Result<(), Failure> {
        if !self.tcp {
            return udp::send(&self.at, self.message(record, UDP_BYTES).as_bytes()).await;
        }
        let message = self.message(record, TCP_BYTES);
        let frame = format!("{} {message}", message.len());
        // A connection on which a frame was cut off is not used again: it is only put back after a whole one.
        let mut stream = match self.stream.take() {
            Some(stream) if is_open(&stream) => stream,
            _ => connect(&self.at).await?,
        };
        stream.write_all(frame.as_bytes()).await.map_err(Failure::again)?;
        // Nothing acknowledges a message. What can be told is that the receiver went away before it.
        if timeout(AFTERTHOUGHT, stream.readable()).await.is_ok() && !is_open(&stream) {
            return Err(Failure::again("it closed the connection"));
        }
        self.stream = Some(stream);
        Ok(())
    }
}

impl Syslog {
    /// A whole message of at most `limit` bytes.
    fn message(&self, record: &Record, limit: usize) -> String {
        let priority = u16::from(self.facility) * 8 + u16::from(record.severity.syslog());
        let mut message = format!(
            "<{priority}>1 {} {} tandem {} {} [{SD_ID}",
            timestamp(record.at_ms),
            header(&self.sender.node, 255),
            std::process::id(),
            header(&record.event, 32),
        );
        let row = record.row.map(|row| row.to_string());
        for (name, value) in [
            ("id", Some(record.id())),
            ("event", Some(record.event.clone())),
            ("row", row),
            ("severity", Some(record.severity.to_string())),
        ] {
            let Some(value) = value else { continue };
            message.push_str(&format!(" {name}=\"{}\"", escaped(cut(&clean(&value), VALUE_BYTES))));
        }
        message.push_str("] ");
        let text = clean(&self.body.fill(record, &self.sender));
        if !text.is_ascii() {
            message.push(BOM);
        }
        message.push_str(&text);
        cut(&message, limit).to_owned()
    }
}

/// A field of the header: printable ASCII without spaces, not empty (RFC 5424 section 6).
fn header(text: &str, limit: usize) -> String {
    let field: String =
        text.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(limit).collect();
    if field.is_empty() { "-".into() } else { field }
}

/// A value in the structured data (RFC 5424 section 6.3.3).
fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    for letter in value.chars() {
        if matches!(letter, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

async fn connect(at: &HostPort) -> Result<TcpStream, Failure> {
    let connecting = TcpStream::connect((at.host.as_str(), at.port));
    let late = |_| Failure::again("it does not answer");
    let stream = timeout(CONNECT_LIMIT, connecting).await.map_err(late)?.map_err(Failure::again)?;
    let socket = SockRef::from(&stream);
    // A receiver that is cut off is noticed while nothing is said, too.
    let keepalive = TcpKeepalive::new().with_time(DELIVERY_LIMIT).with_interval(CONNECT_LIMIT);
    socket.set_tcp_keepalive(&keepalive).map_err(Failure::again)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(DELIVERY_LIMIT)).map_err(Failure::again)?;
    Ok(stream)
}

/// Whether the receiver has not closed it. What it says is not for us.
fn is_open(stream: &TcpStream) -> bool {
    let mut unread = [0; 512];
    loop {
        match stream.try_read(&mut unread) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{record, sender};
    use super::*;

    fn syslog(body: &str) -> Syslog {
        Syslog {
            at: HostPort { host: "127.0.0.1".into(), port: 514 },
            tcp: false,
            facility: 3,
            body: Template::parse(body).unwrap(),
            sender: sender(),
            stream: None,
        }
    }

    fn message(record: &Record) -> String {
        let process = format!(" tandem {} ", std::process::id());
        syslog("{text}").message(record, UDP_BYTES).replacen(&process, " tandem 7 ", 1)
    }

    #[test]
    fn a_message_has_the_form_of_the_rfc() {
        assert_eq!(
            message(&record()),
            "<26>1 2026-11-26T21:04:09.120Z b tandem 7 failover-complete [tandem@8072 id=\"a-17\" \
             event=\"failover-complete\" row=\"12\" severity=\"critical\"] The users of a are served by b."
        );
        let bare = Record { event: String::new(), row: None, text: "Grüße".into(), ..record() };
        assert!(
            message(&bare)
                .ends_with(" 7 - [tandem@8072 id=\"a-17\" event=\"\" severity=\"critical\"] \u{feff}Grüße")
        );
    }

    #[test]
    fn nothing_in_an_event_ends_a_field_a_value_or_a_message() {
        let sly = Record {
            node: "a\"] x".into(),
            event: "b c\n<0>1 - - - - - -".into(),
            text: "d\r\n<0>1 - evil - - - - e\0".into(),
            ..record()
        };
        let said = message(&sly);
        assert!(!said.contains(['\r', '\n', '\0']), "{said:?}");
        assert!(
            said.contains(" b_c_<0>1_-_-_-_-_-_- [tandem@8072 id=\"a\\\"\\] x-17\" event=\"b c <0>1"),
            "{said}"
        );
        assert!(said.ends_with("] d  <0>1 - evil - - - - e "), "{said}");
        assert_eq!(escaped(r#"\"]"#), r#"\\\"\]"#);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = Record { text: "ä".repeat(4000), event: "x".repeat(4000), ..record() };
        let said = syslog("{text}").message(&long, UDP_BYTES);
        assert!((UDP_BYTES - 1..=UDP_BYTES).contains(&said.len()) && said.ends_with('ä'), "{}", said.len());
    }
}
