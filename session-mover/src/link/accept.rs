//! The connection that the peer dials.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use xmpp_core::tls::certificate_is_for;

use super::handshakes::{Handshakes, our_bug};
use super::wire::{COME_IN, ended_by};
use super::{Ended, HANDSHAKE_LIMIT, LinkEvent, connection};
use crate::driver::Link;

/// Pause after accept(2) failed for want of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Shaken = Result<Box<TlsStream<TcpStream>>, Ended>;

/// Accepts whoever has a certificate of the cluster that bears the name `peer`. A newer connection replaces the older
/// one, and another `tls` holds for those that come from then on. Dropping the future ends the connection without
/// `Down`.
pub async fn accept_forever(
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    peer: String,
    events: impl Fn(LinkEvent) + Clone + Send + Sync + 'static,
) -> Infallible {
    let peer = Arc::<str>::from(peer);
    let mut handshakes: Handshakes<Shaken> = Handshakes::default();
    let mut current = Current::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let tls = TlsAcceptor::from(tls.load_full());
                    handshakes.begin(shake(socket, tls, peer.clone()));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            done = handshakes.next() => match done {
                Ok(stream) => current.replace(stream, events.clone()).await,
                Err(ended) => events(LinkEvent::Failed(Link::In, ended)),
            },
        }
    }
}

/// The connection of the peer, if there is one. Ends with its owner.
#[derive(Default)]
struct Current {
    task: JoinSet<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Current {
    /// Ends the connection that there is, tells so, then begins the new one.
    async fn replace(
        &mut self,
        stream: Box<TlsStream<TcpStream>>,
        events: impl Fn(LinkEvent) + Send + Sync + 'static,
    ) {
        self.stop = None;
        while let Some(done) = self.task.join_next().await {
            done.unwrap_or_else(our_bug);
        }
        let (stop, stopped) = oneshot::channel::<()>();
        self.stop = Some(stop);
        self.task.spawn(async move {
            let replaced = async { _ = stopped.await };
            connection::run(Link::In, stream, &COME_IN, replaced, &events).await;
        });
    }
}

async fn shake(socket: TcpStream, tls: TlsAcceptor, peer: Arc<str>) -> Shaken {
    connection::tune(&socket).map_err(ended_by)?;
    let shaken = timeout(HANDSHAKE_LIMIT, tls.accept(socket)).await;
    let stream = shaken.map_err(|_| Ended::TimedOut)?.map_err(ended_by)?;
    let cert = stream.get_ref().1.peer_certificates().and_then(|certs| certs.first());
    if !cert.is_some_and(|cert| certificate_is_for(cert, &peer)) {
        return Err(Ended::Tls(format!("the certificate does not bear the name {peer}")));
    }
    Ok(Box::new(stream))
}
