//! The connection that this node dials.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use xmpp_core::tls::certificate_is_for_both_ends;

use super::wire::{COME_IN, ended_by};
use super::{Ended, HANDSHAKE_LIMIT, LinkEvent, connection};
use crate::driver::Link;

/// Pause between two attempts: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Time for the name and the TCP connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// A connection that lived so long was a good one: the next attempts start with short pauses again.
const STEADY: Duration = Duration::from_secs(2);

/// Makes [`dial_forever`] try at once, because something says that the peer is back.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Ends the present pause, or the next if there is none.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Keeps one connection to the peer, whose certificate must bear `name`; dials again when it ends. `addr` is
/// `host:port`, and the host is looked up each time; another `tls` holds from the next attempt on. Dropping the future ends the connection without `Down`.
pub async fn dial_forever(
    addr: String,
    tls: Arc<ArcSwap<ClientConfig>>,
    name: ServerName<'static>,
    wake: Wake,
    events: impl Fn(LinkEvent) + Clone + Send + Sync + 'static,
) -> Infallible {
    let mut pause = PAUSE.0;
    loop {
        match dial(&addr, &TlsConnector::from(tls.load_full()), &name).await {
            Ok(stream) => {
                let since = Instant::now();
                connection::run(Link::Out, stream, &[], pending(), &events).await;
                if since.elapsed() >= STEADY {
                    pause = PAUSE.0;
                }
            }
            Err(ended) => events(LinkEvent::Failed(Link::Out, ended)),
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(PAUSE.1),
            () = wake.0.notified() => pause = PAUSE.0,
        }
    }
}

async fn dial(
    addr: &str,
    tls: &TlsConnector,
    name: &ServerName<'static>,
) -> Result<Box<TlsStream<TcpStream>>, Ended> {
    let socket = timeout(CONNECT_LIMIT, TcpStream::connect(addr));
    let socket = socket.await.map_err(|_| Ended::TimedOut)?.map_err(ended_by)?;
    connection::tune(&socket).map_err(ended_by)?;
    let shake = async {
        let mut stream = tls.connect(name.clone(), socket).await.map_err(ended_by)?;
        let cert = stream.get_ref().1.peer_certificates().and_then(|certs| certs.first());
        if !cert.is_some_and(certificate_is_for_both_ends) {
            let why = "the certificate of the other end is for the ports of clients only, not for a link";
            return Err(Ended::Tls(why.to_owned()));
        }
        // In TLS 1.3 our side is done before the other has seen our certificate.
        let mut word = COME_IN;
        stream.read_exact(&mut word).await.map_err(ended_by)?;
        if word == COME_IN { Ok(Box::new(stream)) } else { Err(Ended::Bad("no welcome".into())) }
    };
    timeout(HANDSHAKE_LIMIT, shake).await.map_err(|_| Ended::TimedOut)?
}
