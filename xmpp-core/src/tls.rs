//! TLS for clients and for the link between the nodes: rustls with *ring*, chosen here and nowhere else.
//!
//! Never: TLS below 1.2, TLS 1.2 without extended master secret, renegotiation, 0-RTT, resumption by anything but
//! [`Tickets`], tickets in TLS 1.2 (there a stolen ticket key opens recorded sessions). The link is TLS 1.3 with a
//! certificate of the cluster's own authority on both ends, without tickets.

mod end_point;
mod tickets;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use x509_parser::prelude::{FromDer, X509Certificate};

/// ALPN name of a client stream over direct TLS (XEP-0368).
pub const ALPN_CLIENT: &[u8] = b"xmpp-client";
/// ALPN name of the link between the nodes: a browser or client that strays there is refused in the handshake.
pub const ALPN_LINK: &[u8] = b"tandem-link";

const CLIENT_VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
const LINK_VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13];

pub use end_point::end_point;
pub use tickets::Tickets;

/// Why there is no TLS: all of it is for the operator, so each variant names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is missing or may not be read.
    #[error("cannot read {path}: {source}; check the path in the configuration and the owner of the file")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is damaged between its BEGIN and END lines.
    #[error("{path} is not valid PEM ({reason}); export it again as PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// The file has no certificate in it.
    #[error("{path} holds no certificate; it needs a BEGIN CERTIFICATE block, the server's own first")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file has no usable private key in it.
    #[error("{path} holds no private key; it needs an unencrypted PKCS #8, PKCS #1 or SEC1 key")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key are not of one pair, or of a kind that we cannot use.
    #[error("certificate {cert} and key {key} cannot be used together ({reason}); are they of one pair?")]
    Identity {
        /// Where the certificate is from.
        cert: PathBuf,
        /// Where the key is from.
        key: PathBuf,
        /// What rustls says.
        reason: String,
    },
    /// The authority's certificate cannot be used to check others.
    #[error("{path} is no usable authority ({reason}); it must be the certificate that signed the others")]
    Authority {
        /// Where the authority is from.
        path: PathBuf,
        /// What rustls says.
        reason: String,
    },
    /// The provider lacks what we ask for: our fault, not the operator's.
    #[error("TLS cannot be set up: {0}; this is a bug, please report it")]
    Internal(String),
}

/// A certificate chain and its private key, read but not yet checked against each other.
#[derive(Debug)]
pub struct Identity {
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    cert_path: PathBuf,
    key_path: PathBuf,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Identity {
            certs: self.certs.clone(),
            key: self.key.clone_key(),
            cert_path: self.cert_path.clone(),
            key_path: self.key_path.clone(),
        }
    }
}

impl Identity {
    /// Reads both from PEM files; they may be the same file.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        Identity::parse(&read(cert)?, cert, &read(key)?, key)
    }

    /// From PEM text, for tests and the demo.
    pub fn from_pem(cert: &str, key: &str) -> Result<Self, TlsError> {
        let given = Path::new("(given certificate)");
        Identity::parse(cert.as_bytes(), given, key.as_bytes(), Path::new("(given key)"))
    }

    fn parse(cert: &[u8], cert_path: &Path, key: &[u8], key_path: &Path) -> Result<Self, TlsError> {
        let certs = parse_certs(cert, cert_path)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey { path: key_path.into() },
            other => bad_pem(key_path, &other),
        })?;
        Ok(Identity { certs, key, cert_path: cert_path.into(), key_path: key_path.into() })
    }

    fn refused(&self, error: &rustls::Error) -> TlsError {
        TlsError::Identity {
            cert: self.cert_path.clone(),
            key: self.key_path.clone(),
            reason: error.to_string(),
        }
    }
}

/// Whom we believe: the certificates that may sign the other side's.
#[derive(Debug, Clone)]
pub struct Authority {
    roots: Arc<RootCertStore>,
    path: PathBuf,
}

impl Authority {
    /// Reads one or more certificates from a PEM file.
    pub fn load(path: &Path) -> Result<Self, TlsError> {
        Authority::parse(&read(path)?, path)
    }

    /// From PEM text, for tests and the demo.
    pub fn from_pem(text: &str) -> Result<Self, TlsError> {
        Authority::parse(text.as_bytes(), Path::new("(given authority)"))
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for cert in parse_certs(text, path)? {
            roots.add(cert).map_err(|error| not_an_authority(path, &error))?;
        }
        Ok(Authority { roots: Arc::new(roots), path: path.into() })
    }
}

/// What the ports where clients connect need of TLS.
#[derive(Clone, Debug)]
pub struct C2sTls {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// What clients bind to by `tls-server-end-point`: a hash of the certificate in `config`.
    pub end_point: Option<Bytes>,
}

/// For the ports where clients connect, STARTTLS and direct.
pub fn c2s_server(identity: &Identity, tickets: Option<Arc<Tickets>>) -> Result<C2sTls, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(CLIENT_VERSIONS)
        .map_err(internal)?
        .with_no_client_auth();
    let built = builder.with_single_cert(identity.certs.clone(), identity.key.clone_key());
    let mut config = finish_server(built, identity, ALPN_CLIENT)?;
    if let Some(tickets) = tickets {
        config.ticketer = tickets;
        config.send_tls13_tickets = 1;
    }
    let end_point = identity.certs.first().and_then(|cert| end_point(cert));
    Ok(C2sTls { config: Arc::new(config), end_point })
}

/// A memory for the tickets of one client, of TLS 1.3 only.
pub fn tickets() -> Resumption {
    Resumption::in_memory_sessions(4).tls12_resumption(Tls12Resumption::Disabled)
}

/// For a client that trusts this authority and no other.
pub fn c2s_client(authority: &Authority) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(CLIENT_VERSIONS)
        .map_err(internal)?
        .with_root_certificates(Arc::clone(&authority.roots))
        .with_no_client_auth();
    Ok(finish_client(config, ALPN_CLIENT))
}

/// For the end of the link that accepts: nobody gets in without a certificate of `authority`. Whose it is must
/// still be asked with [`certificate_is_for`].
pub fn link_server(identity: &Identity, authority: &Authority) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&authority.roots), provider())
        .build()
        .map_err(|error| not_an_authority(&authority.path, &error))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(LINK_VERSIONS)
        .map_err(internal)?
        .with_client_cert_verifier(verifier);
    let built = builder.with_single_cert(identity.certs.clone(), identity.key.clone_key());
    Ok(Arc::new(finish_server(built, identity, ALPN_LINK)?))
}

/// For the end of the link that dials; the name it dials must be in the other's certificate. Node certificates
/// serve both ends, so an extended key usage, if there is one, must name server *and* client authentication.
pub fn link_client(identity: &Identity, authority: &Authority) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(LINK_VERSIONS)
        .map_err(internal)?
        .with_root_certificates(Arc::clone(&authority.roots))
        .with_client_auth_cert(identity.certs.clone(), identity.key.clone_key())
        .map_err(|error| identity.refused(&error))?;
    Ok(finish_client(config, ALPN_LINK))
}

/// For whoever only looks who accepts a link there: without a certificate of its own nobody is let in, so that the other end
/// takes it for a stranger and never for the peer that came and went.
pub fn link_look(authority: &Authority) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(LINK_VERSIONS)
        .map_err(internal)?
        .with_root_certificates(Arc::clone(&authority.roots))
        .with_no_client_auth();
    Ok(finish_client(config, ALPN_LINK))
}

/// Whether this certificate (already checked by TLS) names `name`, by subject alternative name only. With it the
/// accepting end of the link makes sure that it is the *peer* and not just somebody of the cluster (S31).
pub fn certificate_is_for(cert: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    ParsedCertificate::try_from(cert)
        .is_ok_and(|cert| rustls::client::verify_server_name(&cert, &name).is_ok())
}

/// Whether this certificate (already checked by TLS) may be at either end of the link. One for the ports of clients bears the same
/// names and may be signed by the same authority: who has its key is no node (S31).
pub fn certificate_is_for_both_ends(cert: &CertificateDer<'_>) -> bool {
    let Ok((_, cert)) = X509Certificate::from_der(cert) else { return false };
    match cert.extended_key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.server_auth && usage.value.client_auth),
        Err(_) => false,
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn finish_server(
    built: Result<ServerConfig, rustls::Error>,
    identity: &Identity,
    alpn: &[u8],
) -> Result<ServerConfig, TlsError> {
    let mut config = built.map_err(|error| identity.refused(&error))?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.require_ems = true;
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn finish_client(mut config: ClientConfig, alpn: &[u8]) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.require_ems = true;
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.into(), source })
}

fn parse_certs(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| bad_pem(path, &error))?;
    if certs.is_empty() { Err(TlsError::NoCertificate { path: path.into() }) } else { Ok(certs) }
}

fn bad_pem(path: &Path, error: &pem::Error) -> TlsError {
    TlsError::Pem { path: path.into(), reason: error.to_string() }
}

fn not_an_authority(path: &Path, error: &dyn std::error::Error) -> TlsError {
    TlsError::Authority { path: path.into(), reason: error.to_string() }
}

fn internal(error: rustls::Error) -> TlsError {
    TlsError::Internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{ClientConnection, ConnectionCommon, HandshakeKind, ProtocolVersion, ServerConnection};

    use super::*;

    struct Ca {
        issuer: CertifiedIssuer<'static, KeyPair>,
    }

    impl Ca {
        fn new() -> Self {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            Ca { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
        }

        fn authority(&self) -> Authority {
            Authority::from_pem(&self.issuer.pem()).unwrap()
        }

        fn pem(&self, name: &str) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
        }

        fn identity(&self, name: &str) -> Identity {
            let (cert, key) = self.pem(name);
            Identity::from_pem(&cert, &key).unwrap()
        }
    }

    /// A handshake in memory.
    fn shake(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
        name: &'static str,
    ) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        let mut client =
            ClientConnection::new(Arc::clone(client), ServerName::try_from(name).unwrap()).unwrap();
        for _ in 0..10 {
            carry(&mut client, &mut server)?;
            carry(&mut server, &mut client)?;
        }
        assert!(!server.is_handshaking() && !client.is_handshaking());
        Ok((server, client))
    }

    fn keeps_tickets(ca: &Ca) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&c2s_client(&ca.authority()).unwrap());
        config.resumption = tickets();
        Arc::new(config)
    }

    fn carry<A, B>(
        from: &mut impl std::ops::DerefMut<Target = ConnectionCommon<A>>,
        to: &mut impl std::ops::DerefMut<Target = ConnectionCommon<B>>,
    ) -> Result<(), rustls::Error>
    where
        A: rustls::SideData,
        B: rustls::SideData,
    {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            to.read_tls(&mut rest).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn a_client_gets_in_by_both_versions_and_without_tickets_is_never_resumed() {
        let ca = Ca::new();
        let server = c2s_server(&ca.identity("example.org"), None).unwrap().config;
        let client = keeps_tickets(&ca);
        for _ in 0..2 {
            let (s, c) = shake(&server, &client, "example.org").unwrap();
            assert_eq!(c.protocol_version(), Some(ProtocolVersion::TLSv1_3));
            assert_eq!(s.alpn_protocol(), Some(ALPN_CLIENT));
            assert_eq!(c.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(c.tls13_tickets_received(), 0);
        }
        let old = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS12])
            .unwrap()
            .with_root_certificates(ca.authority().roots)
            .with_no_client_auth();
        let (_, c) = shake(&server, &Arc::new(old), "example.org").unwrap();
        assert_eq!(c.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    }

    #[test]
    fn a_client_resumes_at_the_other_node_with_a_key_exchange_and_no_early_data() {
        let ca = Ca::new();
        let node = || c2s_server(&ca.identity("example.org"), Some(Tickets::new(vec![[3; 32]]))).unwrap();
        let (a, b) = (node(), node());
        let client = keeps_tickets(&ca);
        let (_, first) = shake(&a.config, &client, "example.org").unwrap();
        assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(first.tls13_tickets_received(), 1);
        let (s, second) = shake(&b.config, &client, "example.org").unwrap();
        assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed));
        assert!(s.negotiated_key_exchange_group().is_some() && !second.is_early_data_accepted());
        // A node that does not know the secret takes the client as new.
        let stranger = c2s_server(&ca.identity("example.org"), Some(Tickets::new(vec![[4; 32]]))).unwrap();
        let (_, third) = shake(&stranger.config, &client, "example.org").unwrap();
        assert_eq!(third.handshake_kind(), Some(HandshakeKind::Full));
    }

    #[test]
    fn there_are_no_tickets_below_tls_1_3() {
        let ca = Ca::new();
        let node = c2s_server(&ca.identity("example.org"), Some(Tickets::new(vec![[3; 32]]))).unwrap();
        let old = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS12])
            .unwrap()
            .with_root_certificates(ca.authority().roots)
            .with_no_client_auth();
        let old = Arc::new(old);
        for _ in 0..2 {
            let (_, client) = shake(&node.config, &old, "example.org").unwrap();
            assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_2));
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        }
    }

    #[test]
    fn a_client_refuses_another_name_or_authority() {
        let ca = Ca::new();
        let server = c2s_server(&ca.identity("example.org"), None).unwrap().config;
        assert!(shake(&server, &c2s_client(&ca.authority()).unwrap(), "example.net").is_err());
        assert!(shake(&server, &c2s_client(&Ca::new().authority()).unwrap(), "example.org").is_err());
    }

    #[test]
    fn the_link_wants_a_certificate_of_the_cluster_on_both_ends() {
        let ca = Ca::new();
        let server = link_server(&ca.identity("b.example.org"), &ca.authority()).unwrap();
        let client = link_client(&ca.identity("a.example.org"), &ca.authority()).unwrap();
        let (s, c) = shake(&server, &client, "b.example.org").unwrap();
        assert_eq!(s.alpn_protocol(), Some(ALPN_LINK));
        assert_eq!(c.tls13_tickets_received(), 0);
        let cert = &s.peer_certificates().unwrap()[0];
        assert!(certificate_is_for(cert, "a.example.org"));
        assert!(!certificate_is_for(cert, "b.example.org"));
        assert!(!certificate_is_for(cert, "not a name"));

        let stranger = link_client(&Ca::new().identity("a.example.org"), &ca.authority()).unwrap();
        assert!(shake(&server, &stranger, "b.example.org").is_err());
        assert!(shake(&server, &c2s_client(&ca.authority()).unwrap(), "b.example.org").is_err());
        let impostor = link_server(&Ca::new().identity("b.example.org"), &ca.authority()).unwrap();
        assert!(shake(&impostor, &client, "b.example.org").is_err());
    }

    #[test]
    fn errors_name_the_file_and_what_to_do() {
        let dir = std::env::temp_dir().join(format!("tandem-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (cert, key) = Ca::new().pem("example.org");
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (cert_path, key_path) = (write("cert.pem", &cert), write("key.pem", &key));
        let other_key = write("other.pem", &KeyPair::generate().unwrap().serialize_pem());
        let damaged = write("damaged.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
        let missing = dir.join("missing.pem");
        let text = |result: Result<Identity, TlsError>| result.unwrap_err().to_string();

        assert!(text(Identity::load(&missing, &key_path)).contains("missing.pem"));
        assert!(text(Identity::load(&damaged, &key_path)).contains("damaged.pem is not valid PEM"));
        assert!(text(Identity::load(&key_path, &key_path)).contains("key.pem holds no certificate"));
        assert!(text(Identity::load(&cert_path, &cert_path)).contains("cert.pem holds no private key"));
        let mixed =
            c2s_server(&Identity::load(&cert_path, &other_key).unwrap(), None).unwrap_err().to_string();
        assert!(mixed.contains("cert.pem") && mixed.contains("other.pem"), "{mixed}");
        assert!(Authority::load(&key_path).is_err());
        assert!(c2s_server(&Identity::load(&cert_path, &key_path).unwrap(), None).is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
