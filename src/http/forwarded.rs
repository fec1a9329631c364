//! Who the client is when proxies stand between: by the one header that the operator has named, `Forwarded` (RFC 7239) or
//! one with bare addresses such as `X-Forwarded-For`. Any other a client could have written itself. Pure.

use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};

/// Most entries that are looked at, from the right.
const MAX_ENTRIES: usize = 32;

/// The address of the client of a connection from the trusted proxy `peer`: the right-most of the addresses in the `header`
/// that is not of a trusted proxy itself. What stands left of it anybody can have written.
pub fn client(
    peer: IpAddr,
    header: &HeaderName,
    headers: &HeaderMap,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let entries = named(header, headers);
    let mut client = peer;
    for entry in entries.iter().rev().take(MAX_ENTRIES) {
        // An entry that is no address ends what can be followed.
        let Some(address) = parse(entry) else { return client };
        if !is_trusted(address) {
            // A machine that is not trusted is none of ours: its own name for itself says nothing.
            return if is_nobodys(address) { client } else { address };
        }
        client = address;
    }
    client
}

/// The addresses as the headers name them, the client's own first.
fn named(header: &HeaderName, headers: &HeaderMap) -> Vec<String> {
    // What is no text stays an entry, which is no address.
    let values = headers.get_all(header).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let entry = |text: &str| if header == FORWARDED { for_of(text) } else { text.trim().to_owned() };
    values.flat_map(|value| value.split(',').map(entry).collect::<Vec<_>>()).collect()
}

/// What an element of `Forwarded` says about the client of the proxy that wrote it.
fn for_of(element: &str) -> String {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let mut for_pairs = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
    for_pairs.next().map_or_else(String::new, |(_, value)| value.trim_matches('"').to_owned())
}

/// Whether an address names no machine that another one could see.
pub fn is_nobodys(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

/// An address, perhaps in brackets and with a port.
fn parse(entry: &str) -> Option<IpAddr> {
    if let Some(bracketed) = entry.strip_prefix('[') {
        return bracketed.split(']').next()?.parse().ok();
    }
    let plain = entry.parse().ok();
    plain.or_else(|| entry.split_once(':')?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const XFF: &str = "x-forwarded-for";
    const FWD: &str = "forwarded";

    #[test]
    fn the_right_most_that_is_not_trusted() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let ask = |header: &'static str, lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().expect("a value"));
            }
            let peer = IpAddr::from([10, 0, 0, 1]);
            client(peer, &HeaderName::from_static(header), &headers, trusted).to_string()
        };
        for (header, lines, wanted) in [
            (XFF, &[][..], "10.0.0.1"),
            (XFF, &[(XFF, "1.1.1.1")], "1.1.1.1"),
            (XFF, &[(XFF, "9.9.9.9, 1.1.1.1, 10.0.0.2")], "1.1.1.1"),
            (XFF, &[(XFF, "9.9.9.9"), (XFF, "1.1.1.1:444")], "1.1.1.1"),
            (XFF, &[(XFF, "10.0.0.9, 10.0.0.2")], "10.0.0.9"),
            (XFF, &[(XFF, "1.1.1.1, junk")], "10.0.0.1"),
            ("x-real-ip", &[(XFF, "9.9.9.9"), ("x-real-ip", "1.1.1.1")], "1.1.1.1"),
            (FWD, &[(FWD, "for=9.9.9.9, For=\"[2001:db8::1]:80\";proto=https")], "2001:db8::1"),
            (FWD, &[(FWD, "proto=https")], "10.0.0.1"),
            // The other header is the client's own.
            (FWD, &[(FWD, "for=2.2.2.2"), (XFF, "1.1.1.1")], "2.2.2.2"),
            (FWD, &[(XFF, "1.1.1.1")], "10.0.0.1"),
            (XFF, &[(FWD, "for=2.2.2.2")], "10.0.0.1"),
            // What names nobody does not pass for this machine.
            (XFF, &[(XFF, "127.0.0.1")], "10.0.0.1"),
            (XFF, &[(XFF, "1.1.1.1, ::1, 10.0.0.7")], "10.0.0.7"),
            (XFF, &[(XFF, "::ffff:127.0.0.1")], "10.0.0.1"),
            (XFF, &[(XFF, "0.0.0.0")], "10.0.0.1"),
            (FWD, &[(FWD, "for=unknown")], "10.0.0.1"),
        ] {
            assert_eq!(ask(header, lines), wanted, "{header} {lines:?}");
        }
    }
}
