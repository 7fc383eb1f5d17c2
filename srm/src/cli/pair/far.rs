//! What can be seen of the other node before the nodes are a pair, without a word that it might take for its peer's: who
//! accepts the link there, and the beacons that it sends.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use socket2::{Domain, Socket, Type};
use xmpp_core::tls::{self, Authority};

use crate::beacon::{Datagram, Secret};
use crate::config::{Link, Peer};
use crate::sockets::life_address;

/// Time for the connection, and for each word of the handshake.
const LIMIT: Duration = Duration::from_secs(3);
/// Beacons come once a second.
const LISTEN: Duration = Duration::from_millis(3_500);

/// What is wrong, and what to do.
pub(super) type Wrong = (String, String);

/// What came to the port of the link.
pub(super) enum Heard {
    /// A beacon of the other node.
    Beacon(Box<Datagram>),
    /// Something that its secret did not sign.
    Strangers,
    Nothing,
}

/// The ports that the link will listen on. Nothing listens there meanwhile: the other node must see no more than refusals.
pub(super) fn ports(link: SocketAddr) -> Result<(), Wrong> {
    let taken = |what: &str, address: SocketAddr, error: &io::Error| {
        let hint =
            format!("stop what has it (`ss -lntup`), or choose another port in [link] listen: {address}");
        (format!("{what}: {address} cannot be listened on: {error}"), hint)
    };
    let life = life_address(link).map_err(|error| taken("the life socket", link, &error))?;
    for (what, address, kind) in [
        ("the link", link, Type::STREAM),
        ("the life socket", life, Type::STREAM),
        ("beacons", link, Type::DGRAM),
    ] {
        let bound = Socket::new(Domain::for_address(address), kind, None).and_then(|socket| {
            socket.set_reuse_address(kind == Type::STREAM)?;
            socket.bind(&address.into())
        });
        bound.map_err(|error| taken(what, address, &error))?;
    }
    Ok(())
}

/// A connection to the peer's link.
pub(super) fn reach(peer: &Peer) -> Result<TcpStream, Wrong> {
    let at = &peer.link;
    let found = at.to_socket_addrs().map_err(|error| {
        (
            format!("{at} is not found: {error}"),
            "correct the name in DNS or in [peer] of this node".to_owned(),
        )
    })?;
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in found {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    let hint = match last.kind() {
        ErrorKind::ConnectionRefused => format!("start {} with the files that were made for it", peer.name),
        _ => format!(
            "open this port for this node in the firewall of {}, and look at the path between them",
            peer.name
        ),
    };
    Err((format!("{at} does not answer: {last}"), hint))
}

/// Whether it is the peer that accepts the link there. No certificate of this node is shown: it would be let in, and its
/// leaving would look like the death of a node.
pub(super) fn certificate(mut socket: TcpStream, peer: &Peer, link: &Link) -> Result<(), Wrong> {
    let hint = |name: &str| {
        format!(
            "give {name} the folder that was made together with this node's, and see that both machines have the right time"
        )
    };
    let wrong = |error: &dyn std::fmt::Display| (format!("{}: {error}", peer.link), hint(&peer.name));
    let authority = Authority::load(&link.ca).map_err(|error| wrong(&error))?;
    let config = tls::link_look(&authority).map_err(|error| wrong(&error))?;
    let name = ServerName::try_from(peer.name.clone()).map_err(|error| wrong(&error))?;
    let mut session = ClientConnection::new(config, name).map_err(|error| wrong(&error))?;
    socket.set_read_timeout(Some(LIMIT)).map_err(|error| wrong(&error))?;
    socket.set_write_timeout(Some(LIMIT)).map_err(|error| wrong(&error))?;
    // Not a word more than its certificate needs: what it thinks of a stranger does not matter.
    while session.is_handshaking() {
        if session.wants_write() {
            session.write_tls(&mut socket).map_err(|error| wrong(&error))?;
            continue;
        }
        if session.read_tls(&mut socket).map_err(|error| wrong(&error))? == 0 {
            return Err(wrong(&"it hangs up before it has shown a certificate"));
        }
        session.process_new_packets().map_err(|error| wrong(&error))?;
    }
    Ok(())
}

/// Waits for a beacon of the other node, which sends them here although nobody listens yet.
pub(super) fn beacon(link: &Link, peer: u8) -> Result<Heard, Wrong> {
    let failed = |error: io::Error| {
        let hint = "stop what has it (`ss -lnup`), or choose another port in [link] listen".to_owned();
        (format!("beacons: {} cannot be listened on: {error}", link.listen), hint)
    };
    let secret = Secret::all(&link.secret.derive_all("beacon"));
    let socket = UdpSocket::bind(link.listen).map_err(failed)?;
    let (began, mut heard, mut buffer) = (Instant::now(), Heard::Nothing, [0; 2_048]);
    loop {
        let left = LISTEN.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(heard);
        }
        socket.set_read_timeout(Some(left)).map_err(failed)?;
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
        match Datagram::decode(&secret, &buffer[..length]) {
            Some(beacon) if beacon.node == peer => return Ok(Heard::Beacon(Box::new(beacon))),
            _ => heard = Heard::Strangers,
        }
    }
}
