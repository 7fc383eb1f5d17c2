//! One datagram to a receiver that says nothing in return.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::task::{CONNECT_LIMIT, Failure};
use crate::config::HostPort;

/// How long a machine on which nothing listens may take to say so (ICMP). It is also the pace at which a receiver gets
/// many events at once.
const REFUSAL: Duration = Duration::from_millis(20);

/// Sends it; the host is looked up each time. Delivered means: this machine sent it, and nobody refused it at once.
pub(super) async fn send(to: &HostPort, datagram: &[u8]) -> Result<(), Failure> {
    let found = timeout(CONNECT_LIMIT, tokio::net::lookup_host((to.host.as_str(), to.port))).await;
    let addresses = found.map_err(|_| Failure::again("its name is not found in time"))?;
    let mut failure = Failure::again("its name has no address");
    for address in addresses.map_err(Failure::again)? {
        match send_to(address, datagram).await {
            Ok(()) => return Ok(()),
            Err(error) => failure = Failure::again(error),
        }
    }
    Err(failure)
}

async fn send_to(address: SocketAddr, datagram: &[u8]) -> io::Result<()> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.send(datagram).await?;
    match timeout(REFUSAL, socket.recv(&mut [0; 1])).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}
