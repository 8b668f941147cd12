//! TLS to Postgres, in libpq's words: `sslmode` and `sslrootcert` of a connection string mean what they mean there
//! (<https://www.postgresql.org/docs/current/libpq-ssl.html>).

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::StoreError;

/// How much of TLS is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    Disable,
    /// Encrypt if the server can, trust whoever answers.
    #[default]
    Prefer,
    /// Encrypt, trust whoever answers.
    Require,
    /// Encrypt, and the certificate comes from somebody trusted.
    VerifyCa,
    /// And it is the certificate of the host connected to.
    VerifyFull,
}

impl TlsMode {
    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "disable" => Ok(Self::Disable),
            "allow" | "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            other => Err(StoreError::Refused(format!(
                "DATABASE_URL: sslmode={other} is none of disable, prefer, require, verify-ca, verify-full"
            ))),
        }
    }
}

/// What a connection string says about TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsSettings {
    pub mode: TlsMode,
    /// A PEM file of certificates to trust; `None`: those of the operating system.
    pub root_cert: Option<String>,
}

impl TlsSettings {
    /// Takes the words about TLS out of a connection string; answers them and the rest, which the driver understands.
    pub fn split(url: &str) -> Result<(Self, String), StoreError> {
        let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
        // A question mark may stand in a password, too, which ends where the driver ends it.
        let query = url.find('@').map_or(0, |at| at + 1);
        let (address, options) = match url[query..].find('?') {
            Some(at) if is_url => (&url[..query + at], &url[query + at + 1..]),
            _ if is_url => (url, ""),
            _ => ("", url),
        };
        let separator = if is_url { '&' } else { ' ' };
        let options = options.split(|c: char| if is_url { c == '&' } else { c.is_whitespace() });
        let mut mode = None;
        let mut root_cert = None;
        let mut rest = Vec::new();
        for option in options.filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", value)) => mode = Some(TlsMode::parse(value)?),
                Some(("sslrootcert", value)) => {
                    root_cert = Some(percent_decode_str(value).decode_utf8_lossy().into_owned());
                }
                // Said in a way that is not understood, it must not pass for not said.
                _ if option.starts_with("ssl") => {
                    let name = option.split('=').next().unwrap_or_default();
                    return Err(StoreError::Refused(format!(
                        "DATABASE_URL: {name} cannot be read; write sslmode=… and sslrootcert=…, without spaces"
                    )));
                }
                _ => rest.push(option),
            }
        }
        let mode = match (mode, root_cert.as_deref()) {
            (None | Some(TlsMode::VerifyFull), Some("system")) => TlsMode::VerifyFull,
            (Some(_), Some("system")) => {
                let problem = "DATABASE_URL: sslrootcert=system trusts half the world, so it needs sslmode=verify-full";
                return Err(StoreError::Refused(problem.to_owned()));
            }
            (Some(TlsMode::VerifyCa), None) => {
                let problem = "DATABASE_URL: sslmode=verify-ca needs sslrootcert, the file of whom to trust";
                return Err(StoreError::Refused(problem.to_owned()));
            }
            // As in libpq: who names a root certificate wants it to be looked at.
            (Some(TlsMode::Require), Some(_)) => TlsMode::VerifyCa,
            (mode, _) => mode.unwrap_or_default(),
        };
        let root_cert = root_cert.filter(|path| path != "system");
        let rest = rest.join(&separator.to_string());
        let url = match (is_url, rest.is_empty()) {
            (true, true) => address.to_owned(),
            (true, false) => format!("{address}?{rest}"),
            (false, _) => rest,
        };
        Ok((Self { mode, root_cert }, url))
    }

    /// In the driver's words.
    pub fn ssl_mode(&self) -> SslMode {
        match self.mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        }
    }

    pub fn connector(&self) -> Result<MakeRustlsConnect, StoreError> {
        crate::crypto::install_provider();
        let provider = Arc::new(ring::default_provider());
        let check = match self.mode {
            TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Check::Nothing,
            TlsMode::VerifyCa => Check::Issuer(self.verifier(&provider)?),
            TlsMode::VerifyFull => Check::All(self.verifier(&provider)?),
        };
        let refused = |error: Error| StoreError::Refused(format!("TLS cannot be set up: {error}"));
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { check, provider }))
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, StoreError> {
        let mut roots = RootCertStore::empty();
        let from = match &self.root_cert {
            Some(path) => {
                let unreadable = |error| StoreError::Refused(format!("sslrootcert={path} cannot be read: {error}"));
                for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                    let certificate = certificate.map_err(unreadable)?;
                    roots.add(certificate).map_err(|error| {
                        StoreError::Refused(format!("sslrootcert={path} holds what is no certificate: {error}"))
                    })?;
                }
                path.as_str()
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                "the operating system"
            }
        };
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| StoreError::Refused(format!("no certificates to trust in {from}: {error}")))
    }
}

#[derive(Debug)]
enum Check {
    Nothing,
    Issuer(Arc<WebPkiServerVerifier>),
    All(Arc<WebPkiServerVerifier>),
}

#[derive(Debug)]
struct Verifier {
    check: Check,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.check {
            Check::Nothing => Ok(ServerCertVerified::assertion()),
            Check::All(verifier) => verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now),
            // The name is looked at last: whoever fails only there has passed all else.
            Check::Issuer(verifier) => match verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                verified => verified,
            },
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(url: &str) -> (TlsMode, Option<String>, String) {
        let (settings, rest) = TlsSettings::split(url).expect("it is readable");
        (settings.mode, settings.root_cert, rest)
    }

    #[test]
    fn words_about_tls_are_taken_out_of_both_forms() {
        let full = (TlsMode::VerifyFull, Some("/a b.pem".to_owned()), "postgres://h/d?connect_timeout=3".to_owned());
        assert_eq!(split("postgres://h/d?sslmode=verify-full&connect_timeout=3&sslrootcert=/a%20b.pem"), full);
        assert_eq!(split("host=h sslmode=require dbname=d"), (TlsMode::Require, None, "host=h dbname=d".to_owned()));
        assert_eq!(split("postgres://h/d"), (TlsMode::Prefer, None, "postgres://h/d".to_owned()));
        assert_eq!(split("postgresql://h/d?sslmode=disable"), (TlsMode::Disable, None, "postgresql://h/d".to_owned()));
    }

    #[test]
    fn a_named_root_certificate_is_looked_at() {
        assert_eq!(split("postgres://h/d?sslmode=require&sslrootcert=ca.pem").0, TlsMode::VerifyCa);
        let (mode, root_cert, _) = split("postgres://h/d?sslrootcert=system");
        assert_eq!((mode, root_cert), (TlsMode::VerifyFull, None));
    }

    #[test]
    fn what_is_asked_for_is_never_less_than_it_says() {
        assert_eq!(split("host=h\tsslmode=require\n dbname=d").0, TlsMode::Require);
        assert_eq!(split("postgres://u:p?x@h/d?sslmode=require").0, TlsMode::Require);
        assert_eq!(split("postgres://u:p@h/d?application_name=a@b&sslmode=require").0, TlsMode::Require);
        assert_eq!(split("postgres://u:p?x@h/d?sslmode=require").2, "postgres://u:p?x@h/d");
        for refused in [
            "host=h sslmode = require",
            "host=h sslcert=client.pem",
            "postgres://h/d?sslmode=require&sslrootcert=system",
            "postgres://h/d?sslmode=verify-ca",
        ] {
            assert!(TlsSettings::split(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn unknown_modes_and_missing_files_are_named() {
        let unknown = TlsSettings::split("postgres://h/d?sslmode=always").map(|_| ()).expect_err("no such mode");
        assert!(unknown.to_string().contains("sslmode=always is none of"), "{unknown}");
        let settings = TlsSettings { mode: TlsMode::VerifyCa, root_cert: Some("/nowhere/ca.pem".to_owned()) };
        let missing = settings.connector().map(|_| ()).expect_err("no such file");
        assert!(missing.to_string().contains("sslrootcert=/nowhere/ca.pem cannot be read"), "{missing}");
    }
}
