//! The floor: what it costs at least to move these bytes between these connections. TLS 1.3 by rustls, tokio, one task
//! for each connection; it looks for the ends of messages, writes each to the partner's connection, answers what asks
//! for an acknowledgement, and asks for one itself, as the servers do. It parses, checks, counts and stores nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use xmpp_core::ns;
use xmpp_core::tls::{Identity, c2s_server};

use super::args::FloorArgs;

/// Length of what a client says first: its number.
const GREETING: usize = 8;
/// Bytes read at a time.
const READ_BYTES: usize = 4096;
const REQUEST: &[u8] = b"<r xmlns='urn:xmpp:sm:3'/>";
/// As long as a real one.
const ANSWER: &[u8] = b"<a xmlns='urn:xmpp:sm:3' h='1000'/>";
const MESSAGE_END: &[u8] = b"</message>";

/// What a client says first.
pub fn greeting(user: usize) -> String {
    format!("{user:0GREETING$}")
}

type Writing = Arc<tokio::sync::Mutex<WriteHalf<TlsStream<TcpStream>>>>;
type Table = Arc<Mutex<HashMap<usize, Writing>>>;

/// Serves until it is killed.
pub async fn serve(at: &FloorArgs) -> anyhow::Result<()> {
    let tls = TlsAcceptor::from(c2s_server(&Identity::load(&at.cert, &at.key)?, None)?.config);
    let listener = TcpListener::bind(at.listen).await?;
    let table = Table::default();
    loop {
        let (tcp, _) = listener.accept().await?;
        let (tls, table) = (tls.clone(), Arc::clone(&table));
        tokio::spawn(async move {
            // A client that goes away is no news here.
            let _ = connection(tcp, tls, table).await;
        });
    }
}

async fn connection(tcp: TcpStream, tls: TlsAcceptor, table: Table) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let (mut reading, writing) = split(tls.accept(tcp).await?);
    let mut greeting = [0; GREETING];
    reading.read_exact(&mut greeting).await?;
    let user: usize = std::str::from_utf8(&greeting)?.parse()?;
    let own = Arc::new(tokio::sync::Mutex::new(writing));
    table.lock().unwrap_or_else(PoisonError::into_inner).insert(user, Arc::clone(&own));
    let header =
        format!("<stream:stream xmlns='{}' xmlns:stream='{}' version='1.0'><ready/>", ns::CLIENT, ns::STREAM);
    say(&own, header.as_bytes()).await?;
    let (mut partner, mut held) = (None, Vec::with_capacity(READ_BYTES));
    while reading.read_buf(&mut held).await? > 0 {
        let (mut out, mut back, mut done) = (Vec::new(), Vec::new(), 0);
        while let Some(part) = next(&held[done..]) {
            done += part.len();
            match part.get(1) {
                Some(b'm') => {
                    out.extend_from_slice(part);
                    out.extend_from_slice(REQUEST);
                }
                Some(b'r') => back.extend_from_slice(ANSWER),
                _ => {}
            }
        }
        held.drain(..done);
        if !out.is_empty() {
            let partner = partner.get_or_insert_with(|| {
                table.lock().unwrap_or_else(PoisonError::into_inner).get(&(user ^ 1)).cloned()
            });
            say(partner.as_ref().context("the partner is not there")?, &out).await?;
        }
        if !back.is_empty() {
            say(&own, &back).await?;
        }
    }
    Ok(())
}

/// The first whole message, request or answer.
fn next(bytes: &[u8]) -> Option<&[u8]> {
    let end: &[u8] = if bytes.get(1)? == &b'm' { MESSAGE_END } else { b"/>" };
    let at = bytes.windows(end.len()).position(|window| window == end)?;
    Some(&bytes[..at + end.len()])
}

async fn say(to: &Writing, bytes: &[u8]) -> anyhow::Result<()> {
    let mut to = to.lock().await;
    to.write_all(bytes).await?;
    to.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_and_half_ones_are_waited_for() {
        let text = b"<message to='x'><body>/></body></message><r xmlns='x'/><a h='1'/><mess";
        let (mut at, mut parts) = (0, Vec::new());
        while let Some(part) = next(&text[at..]) {
            at += part.len();
            parts.push(std::str::from_utf8(part).unwrap());
        }
        assert_eq!(parts, ["<message to='x'><body>/></body></message>", "<r xmlns='x'/>", "<a h='1'/>"]);
        assert_eq!(&text[at..], b"<mess");
    }
}
