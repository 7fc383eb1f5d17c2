//! The connection that the peer dials.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use xmpp_core::tls::certificate_is_for;

use super::wire::{COME_IN, ended_by};
use super::{Ended, HANDSHAKE_LIMIT, LinkEvent, connection};
use crate::driver::Link;

/// Handshakes at a time. One more and the oldest is given up: the peer's takes milliseconds, so that strangers who
/// connect and say nothing do not keep it out.
const HANDSHAKES: usize = 64;
/// Pause after accept(2) failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    let mut handshakes: JoinSet<Shaken> = JoinSet::new();
    let mut order: VecDeque<AbortHandle> = VecDeque::new();
    let mut current = Current::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    order.retain(|handshake| !handshake.is_finished());
                    if order.len() >= HANDSHAKES && let Some(oldest) = order.pop_front() {
                        oldest.abort();
                    }
                    let tls = TlsAcceptor::from(tls.load_full());
                    order.push_back(handshakes.spawn(shake(socket, tls, peer.clone())));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(done) = handshakes.join_next() => match done {
                Ok(Ok(stream)) => current.replace(stream, events.clone()).await,
                Ok(Err(ended)) => events(LinkEvent::Failed(Link::In, ended)),
                Err(error) => our_bug(error),
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

/// A handshake that was given up is no news; a panic goes on to whoever runs this.
fn our_bug(error: JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}
