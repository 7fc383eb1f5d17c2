//! The authorities whose certificates receivers may show.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Certificates of the authorities in this PEM file, or of those that this machine trusts. The error says what to do.
pub(crate) fn authorities(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(path) = file else { return of_this_machine() };
    let shown = path.display();
    let all = CertificateDer::pem_file_iter(path).and_then(|all| all.collect::<Result<Vec<_>, _>>());
    let all =
        all.map_err(|error| format!("{shown} cannot be read: {error}; name a PEM file of certificates"))?;
    let mut roots = rustls::RootCertStore::empty();
    let (sound, _) = roots.add_parsable_certificates(all.iter().cloned());
    if sound == 0 {
        return Err(format!("{shown} holds no certificate of an authority; name a PEM file that does"));
    }
    Ok(all)
}

fn of_this_machine() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(
            "this machine trusts no authority; install the package ca-certificates, or name a file of \
                    certificates with `ca`"
                .into(),
        );
    }
    Ok(found.certs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_authority_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(authorities(Some(&path)).unwrap_err().contains("cannot be read"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(authorities(Some(&path)).unwrap_err().contains("holds no certificate"));
    }
}
