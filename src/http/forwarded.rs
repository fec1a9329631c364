//! Who the client is when proxies stand between: `X-Forwarded-For`, else `Forwarded` (RFC 7239). Pure.

use std::net::IpAddr;

use http::HeaderMap;

/// Most entries that are looked at, from the right.
const MAX_ENTRIES: usize = 32;

/// The address of the client of a connection from `peer`: if that is `trusted`, the right-most of the addresses which the
/// headers name that is not trusted itself. What stands left of it anybody can have written.
pub fn client(
    peer: IpAddr,
    trusted: bool,
    headers: &HeaderMap,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    if !trusted {
        return peer;
    }
    let entries = named(headers);
    let mut client = peer;
    for entry in entries.iter().rev().take(MAX_ENTRIES) {
        // An entry that is no address ends what can be followed.
        let Some(address) = parse(entry) else { return client };
        client = address;
        if !is_trusted(client) {
            return client;
        }
    }
    client
}

/// The addresses as the headers name them, the client's own first.
fn named(headers: &HeaderMap) -> Vec<String> {
    let all = |name: &str| -> Vec<String> {
        // What is no text stays an entry, which is no address.
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values
            .flat_map(|value| value.split(',').map(|entry| entry.trim().to_owned()).collect::<Vec<_>>())
            .collect()
    };
    let x_forwarded = all("x-forwarded-for");
    if !x_forwarded.is_empty() {
        return x_forwarded;
    }
    let hops = all("forwarded");
    let for_parts = hops.iter().map(|hop| {
        let pairs = hop.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut for_pairs = pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for"));
        for_pairs.next().map_or_else(String::new, |(_, value)| value.trim_matches('"').to_owned())
    });
    for_parts.collect()
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

    #[test]
    fn the_right_most_that_is_not_trusted() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let ask = |peer: &str, lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().expect("a value"));
            }
            let peer = peer.parse().expect("an address");
            client(peer, trusted(peer), &headers, trusted).to_string()
        };
        for (peer, lines, wanted) in [
            ("192.0.2.1", &[(XFF, "1.1.1.1")][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[(XFF, "1.1.1.1")], "1.1.1.1"),
            ("10.0.0.1", &[(XFF, "9.9.9.9, 1.1.1.1, 10.0.0.2")], "1.1.1.1"),
            ("10.0.0.1", &[(XFF, "9.9.9.9"), (XFF, "1.1.1.1:444")], "1.1.1.1"),
            ("10.0.0.1", &[(XFF, "10.0.0.9, 10.0.0.2")], "10.0.0.9"),
            ("10.0.0.1", &[(XFF, "1.1.1.1, junk")], "10.0.0.1"),
            (
                "10.0.0.1",
                &[("forwarded", "for=9.9.9.9, For=\"[2001:db8::1]:80\";proto=https")],
                "2001:db8::1",
            ),
            ("10.0.0.1", &[("forwarded", "proto=https")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=2.2.2.2"), (XFF, "1.1.1.1")], "1.1.1.1"),
        ] {
            assert_eq!(ask(peer, lines), wanted, "{lines:?}");
        }
    }
}
