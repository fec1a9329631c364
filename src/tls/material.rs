//! Certificates, keys, authorities and revocations: from files to a configuration of rustls.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, version};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};

use crate::io::records;
use crate::io::runtime::is_past;
use crate::tls::{TlsError, peer};

/// Which files, and what is asked of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificate chains and their keys. The first pair serves clients that ask for no known name.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// Nothing older than TLS 1.3.
    pub only_1_3: bool,
    /// Authority of client certificates; none asks for none.
    pub client_ca: Option<PathBuf>,
    /// Revoked client certificates.
    pub client_crl: Option<PathBuf>,
    /// The server is not ready while the list of those has expired.
    pub fresh_crl: bool,
    /// A client may come without a certificate.
    pub client_optional: bool,
}

/// What clients' certificates are looked at by.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judges {
    authorities: Vec<CertificateDer<'static>>,
    revocations: Vec<CertificateRevocationListDer<'static>>,
    /// A client may come without one.
    optional: bool,
}

/// A list of revoked certificates that has expired: those that were revoked since are let in.
#[derive(Clone, Debug)]
pub struct StaleList {
    file: PathBuf,
    /// The server is ready all the same.
    pub is_ready: bool,
}

impl StaleList {
    /// What strangers may know: no path.
    pub const PUBLIC_TEXT: &str = "the list of revoked client certificates has expired: see the log";
}

impl fmt::Display for StaleList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        write!(
            f,
            "{file}: the list of revoked client certificates has expired, and goes on to hold: fetch the next one, it is read without a restart"
        )
    }
}

/// What connections are accepted with.
pub struct Material {
    config: Arc<ServerConfig>,
    /// By file: when its certificate ends.
    ends: Vec<(PathBuf, i64)>,
    /// The file of revoked certificates, and when the first of its lists ends.
    list_end: Option<(PathBuf, i64)>,
    /// The server is not ready after that.
    fresh_list: bool,
    /// What clients' certificates are looked at by.
    pub(super) judges: Judges,
}

impl Material {
    /// Reads all files.
    pub fn load(files: &Files) -> Result<Self, TlsError> {
        let mut provider = ring::default_provider();
        // All of them are strong; the shorter AES key is the faster one.
        provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128"));
        let provider = Arc::new(provider);
        let mut keys = Vec::new();
        let mut ends = Vec::new();
        for (cert, key) in &files.pairs {
            let (certified, end) = pair(cert, key)?;
            keys.push(Arc::new(certified));
            ends.push((cert.clone(), end));
        }
        let versions: &[_] =
            if files.only_1_3 { &[&version::TLS13] } else { &[&version::TLS12, &version::TLS13] };
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let mut judges = Judges { optional: files.client_optional, ..Judges::default() };
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => builder.with_client_cert_verifier(verifier(ca, files, provider, &mut judges)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
        // Ours is the order of the processors that packs are decrypted on: AES in hardware.
        config.ignore_client_order = true;
        // Nothing else is spoken here.
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        // New at every load: no session outlives the certificates, authorities and revocations that it began with.
        config.ticketer = ring::Ticketer::new()?;
        let list_end = judges.revocations.iter().filter_map(peer::list_end).min();
        let list_end = files.client_crl.clone().zip(list_end);
        Ok(Self { config: Arc::new(config), ends, list_end, fresh_list: files.fresh_crl, judges })
    }

    /// The configuration.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// When the certificates end, by file, in seconds since 1970.
    pub fn ends(&self) -> Vec<(String, i64)> {
        self.ends.iter().map(|(file, end)| (file.display().to_string(), *end)).collect()
    }

    /// The file of revoked certificates, and when it ends.
    pub fn list_end(&self) -> Option<(String, i64)> {
        self.list_end.as_ref().map(|(file, end)| (file.display().to_string(), *end))
    }

    /// Whether the list of revoked certificates has expired, and whether the server is ready all the same.
    pub fn stale_list(&self) -> Option<StaleList> {
        let (file, _) = self.list_end.as_ref().filter(|(_, end)| is_past(*end))?;
        Some(StaleList { file: file.clone(), is_ready: !self.fresh_list })
    }

    /// Certificates that have expired: nobody should accept them.
    pub fn problems(&self) -> Vec<String> {
        let expired = self.ends.iter().filter(|(_, end)| is_past(*end));
        expired
            .map(|(file, _)| {
                format!(
                    "{}: the certificate has expired: renew it; the new one is read without a restart",
                    file.display()
                )
            })
            .collect()
    }
}

fn content(path: &Path, what: impl fmt::Display) -> TlsError {
    TlsError::Content { path: path.into(), what: what.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    /// What editors of Windows begin a text with.
    const MARK: &[u8] = "\u{feff}".as_bytes();
    /// Of a file in DER: the tag of a sequence, and a length in two bytes.
    const DER: [u8; 2] = [0x30, 0x82];

    let bytes = records::read(path).map_err(|cause| TlsError::Read { path: path.into(), cause })?;
    if bytes.starts_with(&DER) {
        return Err(content(
            path,
            "it is not PEM, but DER or PKCS#12: convert it (`openssl x509 -inform DER`, `openssl pkey -inform DER`, `openssl pkcs12`)",
        ));
    }
    Ok(bytes.strip_prefix(MARK).map(<[u8]>::to_vec).unwrap_or(bytes))
}

/// Describes a PEM error for an operator.
fn malformed(path: &Path, e: &pem::Error) -> TlsError {
    let what = match e {
        pem::Error::MissingSectionEnd { .. } => {
            "the end of a section is missing: its line with -----END is cut off, or does not fit its BEGIN"
                .into()
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("`{}` is no begin of a section", String::from_utf8_lossy(line).trim().escape_debug())
        }
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is not base64".into(),
        pem::Error::SectionTooLarge => "a section is too large".into(),
        other => other.to_string(),
    };
    content(path, format!("the PEM is malformed: {what}"))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let begun = begun(&text, "CERTIFICATE");
    match all {
        Ok(all) if all.len() != begun => Err(half_read(path, all.len(), begun)),
        Ok(all) if all.is_empty() => {
            Err(content(path, "there is no certificate in it: it must be PEM, with BEGIN CERTIFICATE"))
        }
        Ok(all) => match all.iter().position(|certificate| peer::end(certificate).is_none()) {
            None => Ok(all),
            Some(index) => Err(content(path, format!("certificate {} in it is malformed", index + 1))),
        },
        Err(e) => Err(malformed(path, &e)),
    }
}

/// How many sections of a kind a PEM file begins. One that is glued to the end of another, without a line of its own, is
/// not found by a reader, which then serves a chain without its middle.
fn begun(text: &[u8], kind: &str) -> usize {
    let begin = format!("BEGIN {kind}-----");
    text.windows(begin.len()).filter(|window| *window == begin.as_bytes()).count()
}

fn half_read(path: &Path, read: usize, begun: usize) -> TlsError {
    content(
        path,
        format!(
            "{begun} sections begin in it and {read} can be read: each BEGIN and each END must be a line of its own"
        ),
    )
}

/// A certificate with its key, and when it ends.
fn pair(cert: &Path, key: &Path) -> Result<(CertifiedKey, i64), TlsError> {
    let chain = certificates(cert)?;
    let end =
        chain.first().and_then(peer::end).ok_or_else(|| content(cert, "the certificate is malformed"))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| match e {
        pem::Error::NoItemsFound => content(
            key,
            "there is no private key in it: it must be PEM, with BEGIN PRIVATE KEY, and without a passphrase",
        ),
        e => malformed(key, &e),
    })?;
    let certified =
        CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => {
                content(key, format!("this is not the key of the certificate in {}", cert.display()))
            }
            // What rustls says of it is `failed to parse private key as …`, of every key that ring does not take.
            _ => content(
                key,
                "this key can't be used: packhouse takes RSA of 2048 to 4096 bits, ECDSA P-256 and P-384, and Ed25519",
            ),
        })?;
    Ok((certified, end))
}

fn verifier(
    ca: &Path,
    files: &Files,
    provider: Arc<rustls::crypto::CryptoProvider>,
    judges: &mut Judges,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    judges.authorities = certificates(ca)?;
    for root in &judges.authorities {
        roots.add(root.clone()).map_err(|e| content(ca, e))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = &files.client_crl {
        let text = read(path)?;
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
        let lists = lists.map_err(|e| malformed(path, &e))?;
        let begun = begun(&text, "X509 CRL");
        if lists.len() != begun {
            return Err(half_read(path, lists.len(), begun));
        }
        if lists.is_empty() {
            return Err(content(
                path,
                "there is no revocation list in it: it must be PEM, with BEGIN X509 CRL",
            ));
        }
        judges.revocations.clone_from(&lists);
        // An authority without a list revokes nothing here.
        builder = builder.with_crls(lists).allow_unknown_revocation_status();
    }
    if files.client_optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|e| content(files.client_crl.as_deref().unwrap_or(ca), e))
}

/// Chooses the certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fits = |key: &&Arc<CertifiedKey>| {
            let parsed = key.cert.first().and_then(|cert| ParsedCertificate::try_from(cert).ok());
            parsed.zip(name.as_ref()).is_some_and(|(cert, name)| verify_server_name(&cert, name).is_ok())
        };
        let known = if self.0.len() > 1 { self.0.iter().find(fits) } else { None };
        known.or_else(|| self.0.first()).map(Arc::clone)
    }
}
