//! Certificates made for a test, and clients that use them.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::common::{Conn, patient};

pub type TlsConn = Conn<StreamOwned<ClientConnection, TcpStream>>;

/// An authority and its folder of PEM files.
pub struct Pki {
    pub dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "the authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), cert.pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Makes `NAME.pem` and `NAME.key`; returns both paths.
    pub fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(name.bytes().map(u64::from).sum::<u64>()));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), cert.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        (self.text(&format!("{name}.pem")), self.text(&format!("{name}.key")))
    }

    /// A certificate of a server with these names.
    pub fn server(&self, name: &str, hosts: &[&str]) -> (String, String) {
        self.issue(name, |params| {
            params.subject_alt_names = hosts
                .iter()
                .map(|host| match host.parse() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName((*host).try_into().unwrap()),
                })
                .collect();
        })
    }

    /// Makes `crl.pem`, in which the certificate of `name` is revoked.
    pub fn revoke(&self, name: &str) -> String {
        self.revoke_until(name, 2124)
    }

    /// The same of a list that ends with a year's begin.
    pub fn revoke_until(&self, name: &str, year: i32) -> String {
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(name.bytes().map(u64::from).sum::<u64>()),
                revocation_time: rcgen::date_time_ymd(2024, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(&self.issuer).unwrap();
        std::fs::write(self.path("crl.pem"), crl.pem().unwrap()).unwrap();
        self.text("crl.pem")
    }

    /// A client that trusts this authority, with the certificate of `name` if there is one.
    pub fn client(&self, name: Option<&str>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = vec![CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap()];
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }
}

/// Connects; the handshake happens with the first request.
pub fn connect(address: &str, config: ClientConfig, host: &str) -> TlsConn {
    connect_shared(address, Arc::new(config), host)
}

pub fn connect_shared(address: &str, config: Arc<ClientConfig>, host: &str) -> TlsConn {
    let tcp = patient(TcpStream::connect(address).unwrap());
    let name = ServerName::try_from(host.to_owned()).unwrap();
    Conn::over(StreamOwned::new(ClientConnection::new(config, name).unwrap(), tcp))
}

/// Shakes hands; the error if there is one.
pub fn handshake(conn: &mut TlsConn) -> std::io::Result<()> {
    while conn.stream.conn.is_handshaking() {
        conn.stream.conn.complete_io(&mut conn.stream.sock)?;
    }
    Ok(())
}

/// The chain that the server showed.
pub fn shown(conn: &TlsConn) -> Vec<u8> {
    conn.stream.conn.peer_certificates().unwrap()[0].to_vec()
}

pub fn der(path: impl AsRef<Path>) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

/// Accepts any certificate: for what is tested before it is looked at.
#[derive(Debug)]
pub struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
