//! rustls for the protocol: what each [`SslMode`] verifies.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use backup_core::{Error, Result};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
};

use super::{SslMode, TlsOptions};

/// Makes aws-lc-rs the process's default provider unless there is one. `mysql_async` relies on the
/// default, which rustls cannot choose itself once any crate in the program brings a second one.
pub(crate) fn ensure_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // Fails only if another thread was faster, which is as good.
        let _ = aws_lc_rs::default_provider().install_default();
    }
}

/// The configuration for `options`, which do not say [`SslMode::Disabled`].
///
/// # Errors
/// [`backup_core::ErrorKind::Usage`] if a file cannot be read or holds nothing that fits.
pub(crate) fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = Arc::new(roots(options.ca.as_deref())?);
    let verifier: Arc<dyn ServerCertVerifier> = if options.mode < SslMode::VerifyCa {
        Arc::new(Anything(Arc::clone(&provider)))
    } else {
        let webpki = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|e| {
                Error::usage("the certificates of ssl-ca cannot be used").with_source(e)
            })?;
        if options.mode == SslMode::VerifyCa { Arc::new(AnyName(webpki)) } else { webpki }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("TLS has no protocol version").with_source(e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates("ssl-cert", cert)?;
            let key_der = PrivateKeyDer::from_pem_slice(&read("ssl-key", key)?).map_err(|e| {
                unusable("ssl-key", key, "a private key in PEM form").with_source(e)
            })?;
            builder.with_client_auth_cert(chain, key_der).map_err(|e| {
                unusable("ssl-cert", cert, "a certificate for the key of ssl-key").with_source(e)
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// The authorities of `ca`, or the public ones.
fn roots(ca: Option<&Path>) -> Result<RootCertStore> {
    let Some(ca) = ca else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ssl-ca", ca)? {
        roots
            .add(certificate)
            .map_err(|e| unusable("ssl-ca", ca, "certificates of authorities").with_source(e))?;
    }
    Ok(roots)
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read(option, path)?;
    let wanted = "certificates in PEM form";
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|e| unusable(option, path, wanted).with_source(e))?;
    if certificates.is_empty() {
        return Err(unusable(option, path, wanted));
    }
    Ok(certificates)
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| {
        Error::usage(format!("cannot read {} ({option})", path.display())).with_source(e)
    })
}

fn unusable(option: &str, path: &Path, wanted: &str) -> Error {
    Error::usage(format!("{} ({option}) does not hold {wanted}", path.display()))
}

/// Verifies nothing: [`SslMode::Preferred`] and [`SslMode::Required`] protect against listening,
/// not against an active attacker, exactly as with the servers' own clients.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    // Whose key it is was not asked, so a signature with it proves nothing; and checking it would
    // refuse the version 1 certificates that many a server still has.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies the chain and not the name: [`SslMode::VerifyCa`].
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is checked last, when the chain has been found to hold.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
