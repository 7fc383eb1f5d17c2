//! What a client's first flight of TLS shows before anything is done with it.

use tokio::net::TcpStream;

/// Bytes of it that are looked at: more than any client's hello with a ticket takes.
const HELLO_BYTES: usize = 4_096;

/// Whether the hello that waits to be read brings a ticket. It is not taken.
pub(super) async fn brings_ticket(tcp: &TcpStream) -> bool {
    let mut hello = vec![0; HELLO_BYTES];
    matches!(tcp.peek(&mut hello).await, Ok(len) if has_ticket(&hello[..len]))
}

/// Whether a ClientHello (RFC 8446 4.1.2) has the extension `pre_shared_key`, or a `session_ticket` (RFC 5077) that is
/// not empty. What is cut off or makes no sense has not.
fn has_ticket(record: &[u8]) -> bool {
    fn skip<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (head, rest) = bytes.split_at_checked(len)?;
        *bytes = rest;
        Some(head)
    }
    fn number(bytes: &mut &[u8], len: usize) -> Option<usize> {
        Some(skip(bytes, len)?.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    }
    fn find(mut at: &[u8]) -> Option<bool> {
        const HANDSHAKE: usize = 22;
        const CLIENT_HELLO: usize = 1;
        const SESSION_TICKET: usize = 35;
        const PRE_SHARED_KEY: usize = 41;
        let bytes = &mut at;
        let handshake = number(bytes, 1)? == HANDSHAKE;
        skip(bytes, 4)?;
        if !handshake || number(bytes, 1)? != CLIENT_HELLO {
            return None;
        }
        // Length, version and random; then session, cipher suites and compression.
        skip(bytes, 3 + 2 + 32)?;
        for len in [1, 2, 1] {
            let len = number(bytes, len)?;
            skip(bytes, len)?;
        }
        skip(bytes, 2)?;
        loop {
            let (kind, len) = (number(bytes, 2)?, number(bytes, 2)?);
            match kind {
                PRE_SHARED_KEY => return Some(!skip(bytes, len)?.is_empty()),
                SESSION_TICKET if len > 0 => return Some(true),
                _ => _ = skip(bytes, len)?,
            }
        }
    }
    find(record) == Some(true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::net::tests::{client_config, tls_with_tickets};

    /// What rustls' client says first.
    fn hello(config: &Arc<rustls::ClientConfig>) -> (Vec<u8>, rustls::ClientConnection) {
        let name = rustls::pki_types::ServerName::try_from("d.example").unwrap();
        let mut client = rustls::ClientConnection::new(config.clone(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        (bytes, client)
    }

    #[test]
    fn a_ticket_is_seen_in_a_hello() {
        let (server, client) = tls_with_tickets();
        let client = client_config(client);
        let (first, mut there) = hello(&client);
        assert!(!has_ticket(&first));
        let mut here = rustls::ServerConnection::new(server.config).unwrap();
        here.read_tls(&mut &*first).unwrap();
        here.process_new_packets().unwrap();
        while there.is_handshaking() || here.wants_write() {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            here.write_tls(&mut a).unwrap();
            there.read_tls(&mut &*a).unwrap();
            there.process_new_packets().unwrap();
            there.write_tls(&mut b).unwrap();
            here.read_tls(&mut &*b).unwrap();
            here.process_new_packets().unwrap();
        }
        let (second, _) = hello(&client);
        assert!(has_ticket(&second));
        assert!(
            (0..second.len()).all(|cut| !has_ticket(&second[..cut])),
            "one that is cut off shows nothing"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..600) {
            let _ = has_ticket(&bytes);
            let (mut hello, _) = hello(&client_config(tls_with_tickets().1));
            let at = at % hello.len();
            hello[at] ^= bytes.first().copied().unwrap_or(1);
            let _ = has_ticket(&hello);
        }
    }
}
