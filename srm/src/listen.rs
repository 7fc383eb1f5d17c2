//! The ports that a process listens on, and what the operator is told where it cannot.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Opens a port for connections.
pub(crate) async fn tcp(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| cannot_listen(setting, address, &error))
}

/// For the operator: the setting, the address, what the system says, and what to do.
pub(crate) fn cannot_listen(setting: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process has it, perhaps this one started before: stop it (`ss -lntup` shows which it is), or set \
             another port"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: see `ip address`",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: choose another, or give it to the service"
        }
        _ => "choose another address",
    };
    anyhow::anyhow!("{setting}: {address} cannot be listened on: {error}; {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_with_its_setting_and_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let why = tcp("c2s.direct", address).await.unwrap_err().to_string();
        assert!(why.starts_with(&format!("c2s.direct: {address} cannot be listened on: ")), "{why}");
        for words in ["in use", "another process has it", "`ss -lntup`", "or set another port"] {
            assert!(why.contains(words), "{words:?} is missing in: {why}");
        }
    }

    #[test]
    fn each_reason_has_a_hint_of_its_own() {
        let address = SocketAddr::from(([192, 0, 2, 1], 443));
        for (kind, hint) in [
            (io::ErrorKind::AddrNotAvailable, "this machine has no such address"),
            (io::ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (io::ErrorKind::OutOfMemory, "choose another address"),
        ] {
            let why = cannot_listen("admin.listen", address, &kind.into()).to_string();
            assert!(why.starts_with("admin.listen: 192.0.2.1:443 ") && why.contains(hint), "{why}");
        }
    }
}
