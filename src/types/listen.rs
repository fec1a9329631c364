//! Where to listen.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A listening address, in the forms that rest-server takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `:8000`: a port on all addresses, IPv6 and IPv4.
    AnyHost(u16),
    /// `host:8000`, `127.0.0.1:8000`, `[::1]:8000`: a host name or address without brackets.
    Host(String, u16),
    /// `unix:/path`.
    Unix(PathBuf),
    /// `systemd`, `systemd:name`: the sockets that systemd passes, all of them or those of one name.
    Systemd(Option<String>),
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("the path of the unix socket is missing")
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if text == "systemd" {
            return Ok(Self::Systemd(None));
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            return Ok(Self::Systemd(Some(name.into())));
        }
        match text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
            Some("https") => {
                return Err("write the address without https://, such as 127.0.0.1:8000, and add --tls");
            }
            Some(_) => return Err("write the address without http:// or the like, such as 127.0.0.1:8000"),
            None => {}
        }
        let (host, port) =
            text.rsplit_once(':').ok_or("not of the form HOST:PORT, :PORT, unix:/PATH or systemd")?;
        let port = port.parse().map_err(|_number| "the port must be a number from 0 to 65535")?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match bracketed.unwrap_or(host) {
            "" => Ok(Self::AnyHost(port)),
            "*" => Err("all addresses are written without a star, such as :8000"),
            host if host.contains(':') && bracketed.is_none() => {
                Err("an IPv6 address needs brackets: [::1]:8000")
            }
            host => Ok(Self::Host(host.into(), port)),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyHost(port) => write!(f, ":{port}"),
            Self::Host(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(None) => f.write_str("systemd"),
            Self::Systemd(Some(name)) => write!(f, "systemd:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for text in [
            ":8000",
            "localhost:0",
            "127.0.0.1:80",
            "[::1]:8000",
            "unix:/run/x.sock",
            "unix:rel",
            "systemd",
            "systemd:admin",
        ] {
            let parsed: Result<ListenAddress, _> = text.parse();
            assert_eq!(parsed.map(|address| address.to_string()), Ok(text.to_owned()));
        }
        for bad in
            ["", "8000", "::1:8000", "h:", "h:65536", "unix:", "h:-1", "http://h:1", "HTTPS://h:1", "*:1"]
        {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }
}
