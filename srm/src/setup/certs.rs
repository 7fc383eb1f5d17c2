//! Certificates of a cluster of its own: one authority, one certificate for clients, one for each end of the link.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};

use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::SetupError;

/// How long the certificates are valid.
const YEARS: u32 = 10;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The authority that signs all of a cluster's certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

/// A certificate with its chain, and its private key, both in PEM.
pub(super) struct Certificate {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn make() -> Result<Authority, SetupError> {
        const NAME: &str = "Tandem cluster authority";
        let mut params = params(&[], NAME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let failed = failed(&[NAME.to_owned()]);
        let key = KeyPair::generate().map_err(&failed)?;
        let pem = params.self_signed(&key).map_err(&failed)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    /// The authority whose private key this is, with its certificate among those of `bundle`.
    pub fn load(key: &str, bundle: &str) -> Option<Authority> {
        let key = KeyPair::from_pem(key).ok()?;
        let pem = certificates(bundle).into_iter().find(|pem| is_of(pem, &key))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).ok()?;
        Some(Authority { issuer, pem })
    }

    /// Whether it has signed the first certificate of this text.
    pub fn has_signed(&self, cert: &str) -> bool {
        signed(cert, &self.pem)
    }

    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// For the ports where clients connect. It cannot be used to dial a link.
    pub fn c2s(&self, names: &[String]) -> Result<Certificate, SetupError> {
        self.sign(names, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// For both ends of a node's link.
    pub fn link(&self, node: &str) -> Result<Certificate, SetupError> {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&[node.to_owned()], usages)
    }

    fn sign(
        &self,
        names: &[String],
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<Certificate, SetupError> {
        let common_name = names.first().map_or("", String::as_str);
        let mut params = params(names, common_name)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let failed = failed(names);
        let key = KeyPair::generate().map_err(&failed)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(&failed)?;
        Ok(Certificate { chain: format!("{}{}", cert.pem(), self.pem), key: key.serialize_pem() })
    }
}

fn pem_of(text: &str) -> Option<Pem> {
    Pem::iter_from_buffer(text.as_bytes()).next()?.ok()
}

/// Whether one of the bundle has signed the first certificate of this text.
pub(super) fn is_signed_by(cert: &str, bundle: &str) -> bool {
    certificates(bundle).iter().any(|by| signed(cert, by))
}

fn signed(cert: &str, by: &str) -> bool {
    let (Some(cert), Some(by)) = (pem_of(cert), pem_of(by)) else { return false };
    matches!(
        (cert.parse_x509(), by.parse_x509()),
        (Ok(cert), Ok(by)) if cert.verify_signature(Some(by.public_key())).is_ok()
    )
}

/// Each certificate of a bundle by itself.
pub(super) fn certificates(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let parts = bundle.split_inclusive(END).filter(|part| part.contains(END));
    parts.map(|part| format!("{}\n", part.trim())).collect()
}

fn is_of(cert: &str, key: &KeyPair) -> bool {
    let Some(pem) = pem_of(cert) else { return false };
    pem.parse_x509().is_ok_and(|cert| cert.public_key().raw == key.subject_public_key_info())
}

/// The names for which the first certificate of this text stands.
pub(super) fn names(cert: &str) -> Vec<String> {
    let Some(pem) = pem_of(cert) else { return Vec::new() };
    let Ok(cert) = pem.parse_x509() else { return Vec::new() };
    let Ok(Some(names)) = cert.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|ip| IpAddr::from(ip).to_string());
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|ip| IpAddr::from(ip).to_string())).ok()
        }
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

fn params(names: &[String], common_name: &str) -> Result<CertificateParams, SetupError> {
    let mut params = CertificateParams::new(names).map_err(failed(names))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A day early, for clients whose clock is slow.
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + DAY * 365 * YEARS;
    Ok(params)
}

fn failed(names: &[String]) -> impl Fn(rcgen::Error) -> SetupError + use<> {
    let names = names.join(", ");
    move |source| SetupError::Certificate { names: names.clone(), source }
}
