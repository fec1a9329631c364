//! What a certificate says about its holder. The chain was verified before.

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

/// When a certificate ends, in seconds since 1970; none if it is malformed.
pub fn end(cert: &CertificateDer<'_>) -> Option<i64> {
    let (_, cert) = X509Certificate::from_der(cert).ok()?;
    Some(cert.validity().not_after.timestamp())
}

/// When a list of revoked certificates is to be replaced by its next issue, in seconds since 1970; none if it does not say.
pub fn list_end(list: &CertificateRevocationListDer<'_>) -> Option<i64> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    list.next_update().map(|end| end.timestamp())
}

/// The user whom a client's certificate names: the first URI of its alternative names, else the first host name, else
/// the first mail address, else the common name.
pub fn user(cert: &CertificateDer<'_>) -> Option<String> {
    let (_, cert) = X509Certificate::from_der(cert).ok()?;
    let names = cert.subject_alternative_name().ok()?.map(|names| &names.value.general_names);
    let first = |pick: fn(&GeneralName<'_>) -> Option<String>| names?.iter().find_map(pick);
    let uri = first(|name| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None });
    let host =
        || first(|name| if let GeneralName::DNSName(host) = name { Some((*host).to_owned()) } else { None });
    let mail = || {
        first(|name| if let GeneralName::RFC822Name(mail) = name { Some((*mail).to_owned()) } else { None })
    };
    let common = || cert.subject().iter_common_name().next()?.as_str().ok().map(ToOwned::to_owned);
    let name = uri.or_else(host).or_else(mail).or_else(common)?;
    (!name.is_empty() && !name.chars().any(char::is_control)).then_some(name)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn the_user_of_a_certificate() {
        let named = |common: &str, names: Vec<SanType>| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, common);
            params.subject_alt_names = names;
            let key = KeyPair::generate().expect("a key");
            user(params.self_signed(&key).expect("a certificate").der())
        };
        let text = |text: &str| text.try_into().expect("ASCII");
        let (uri, host, mail) = (
            SanType::URI(text("spiffe://example.org/alice")),
            SanType::DnsName(text("alice.example.org")),
            SanType::Rfc822Name(text("alice@example.org")),
        );
        assert_eq!(named("alice", vec![]), Some("alice".into()));
        assert_eq!(named("x", vec![mail.clone()]), Some("alice@example.org".into()));
        assert_eq!(named("x", vec![mail.clone(), host.clone()]), Some("alice.example.org".into()));
        assert_eq!(named("x", vec![mail, host, uri]), Some("spiffe://example.org/alice".into()));
        assert_eq!(named("a\nb", vec![]), None);
        assert_eq!(user(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
