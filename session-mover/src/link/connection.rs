//! One connection, from the moment that both sides have checked each other to its end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Ended, LinkEvent, LinkSender, USER_TIMEOUT, wire};
use crate::driver::Link;

/// Time that the last words of a connection that we close may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Silence before the kernel asks whether the other side still knows this connection, and between its questions.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(1));

/// Tells `Up`, the messages and `Down`. `replaced` ends the connection from outside.
pub(super) async fn run(
    link: Link,
    stream: impl AsyncRead + AsyncWrite,
    first: &[u8],
    replaced: impl Future<Output = ()>,
    events: &impl Fn(LinkEvent),
) {
    let (sender, queue) = LinkSender::new(link);
    let (conn, closing) = (sender.conn(), Arc::clone(&sender.closing));
    events(LinkEvent::Up(conn, sender));
    let stream = pin!(stream);
    let (from_peer, to_peer) = tokio::io::split(stream);
    let mut reader = pin!(wire::read_all(from_peer, |msg| {
        if !closing.asked() {
            events(LinkEvent::Msg(conn, msg));
        }
    }));
    let mut writer = pin!(wire::write_all(to_peer, queue, first));
    let overdue = async {
        closing.wake.notified().await;
        sleep(CLOSE_LIMIT).await;
    };
    let ended = tokio::select! {
        ended = &mut reader => ended,
        result = &mut writer => match result {
            Ok(()) => Ended::Closed,
            // What arrived before the end is still there to be read, and behind it the kernel's own word on the end.
            Err(ended) => timeout(CLOSE_LIMIT, &mut reader).await.unwrap_or(ended),
        },
        () = overdue => Ended::Closed,
        () = replaced => Ended::Replaced,
    };
    events(LinkEvent::Down(conn, ended));
}

/// The options of a link's socket: no delay, and a limit on silence.
pub(super) fn tune(socket: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE.0)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE.1)?;
    sockopt::set_tcp_user_timeout(socket, USER_TIMEOUT.as_millis() as u32)?;
    Ok(())
}
