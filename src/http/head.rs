//! Request heads: bounds, syntax, and the framing of the body (RFC 9112 sections 2–7).
//!
//! `httparse` reads the lines. What it tolerates and a proxy in front might read otherwise is refused here: bare LF,
//! ambiguous lengths, unknown transfer codings, a missing Host.

use std::mem::MaybeUninit;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use thiserror::Error;

use crate::http::limits::{MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES};
use crate::types::UNASKED_PROXY_HEADER;

/// A request head.
#[derive(Clone, Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// What is asked for.
    pub target: Target,
    /// Whether the request is HTTP/1.1; else it is HTTP/1.0.
    pub is_1_1: bool,
    /// All headers.
    pub headers: HeaderMap,
    /// How the body ends.
    pub framing: Framing,
    /// Whether the client wants the connection kept.
    pub keep_alive: bool,
    /// The `Expect` header.
    pub expect: Expect,
}

/// The request target (RFC 9112 section 3.2). The absolute form is reduced to its path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path, still percent-encoded, that starts with `/`.
    Path {
        /// Up to the first `?`.
        path: Vec<u8>,
        /// After it; empty if there is none.
        query: Vec<u8>,
    },
    /// `*`, the server itself.
    Asterisk,
}

/// How the length of a body is known (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither length nor coding: no body.
    Empty,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What the client waits for (RFC 9110 section 10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Nothing,
    /// `100-continue`.
    Continue,
    /// Something this server does not know: 417.
    Unknown,
}

/// Why a head is refused. The connection is closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// 400.
    #[error("{0}")]
    Bad(&'static str),
    /// 414.
    #[error("the request target is longer than {MAX_TARGET_BYTES} bytes")]
    TargetTooLong,
    /// 431.
    #[error("the request head has more than {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} headers")]
    TooLarge,
    /// 501.
    #[error("the only Transfer-Encoding known is `chunked`")]
    Coding,
    /// 505.
    #[error("only HTTP/1 is spoken here")]
    Version,
}

impl HeadError {
    /// The status that answers it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

/// Finds the end of a head while its bytes arrive.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes looked at already.
    seen: usize,
}

impl Scanner {
    /// Number of bytes of the head that `received` starts with, once it is there. Empty lines before a request line
    /// must have been dropped (see [`skip_empty_lines`]).
    ///
    /// # Errors
    /// Over a limit, or a line that ends in a bare LF.
    pub fn find_end(&mut self, received: &[u8]) -> Result<Option<usize>, HeadError> {
        // A record of TLS: its type, and the version's first byte.
        if received.starts_with(&[22, 3]) {
            return Err(HeadError::Bad(
                "the client speaks TLS, and this port does not: see --tls, or use http://",
            ));
        }
        // Of version 2, whose first four bytes are empty lines to a server of HTTP.
        if [&b"PROXY TCP"[..], b"PROXY UNKNOWN", b"\0\r\nQUIT\n"]
            .iter()
            .any(|begin| received.starts_with(begin))
        {
            return Err(HeadError::Bad(UNASKED_PROXY_HEADER));
        }
        let fresh = received.get(self.seen..).unwrap_or_default();
        for (offset, _) in fresh.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            let upto = received.get(..=self.seen + offset).unwrap_or_default();
            if !upto.ends_with(b"\r\n") {
                return Err(HeadError::Bad("a line ends in LF without CR"));
            }
            if upto.ends_with(b"\r\n\r\n") {
                return if upto.len() > MAX_HEAD_BYTES {
                    Err(over_limit(upto))
                } else {
                    Ok(Some(upto.len()))
                };
            }
        }
        self.seen = received.len();
        if received.len() > MAX_HEAD_BYTES { Err(over_limit(received)) } else { Ok(None) }
    }
}

fn over_limit(received: &[u8]) -> HeadError {
    let line = received.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() > MAX_TARGET_BYTES { HeadError::TargetTooLong } else { HeadError::TooLarge }
}

/// Number of bytes of empty lines at the start, which are to be ignored (RFC 9112 section 2.2).
pub fn skip_empty_lines(received: &[u8]) -> usize {
    received.chunks(2).take_while(|line| *line == b"\r\n").count() * 2
}

/// Parses one whole head, its empty line included.
///
/// # Errors
/// Anything that is malformed, ambiguous or over a limit.
pub fn parse(head: &[u8]) -> Result<Head, HeadError> {
    match parse_as_named(head) {
        // What a later version of HTTP/1 adds may be ignored (RFC 9110 section 2.5).
        Err(HeadError::Version) => match as_1_1(head) {
            Some(head) => parse_as_named(&head),
            None => Err(HeadError::Version),
        },
        other => other,
    }
}

/// The same head with `HTTP/1.1` in the place of `HTTP/1.2` to `HTTP/1.9`; none of any other.
fn as_1_1(head: &[u8]) -> Option<Vec<u8>> {
    let end = head.iter().position(|byte| *byte == b'\r')?;
    let minor = end.checked_sub(1)?;
    let is_later = head.get(..end)?.strip_suffix(&[*head.get(minor)?])?.ends_with(b" HTTP/1.");
    let mut head = head.to_vec();
    let digit = head.get_mut(minor).filter(|digit| is_later && (b'2'..=b'9').contains(*digit))?;
    *digit = b'1';
    Some(head)
}

fn parse_as_named(head: &[u8]) -> Result<Head, HeadError> {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let whole =
        request.parse_with_uninit_headers(head, &mut lines).map_err(|error| syntax_error(error, head))?;
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Bad("the request head is cut short"));
    };
    if whole != httparse::Status::Complete(head.len()) {
        return Err(HeadError::Bad("the request head is cut short"));
    }
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_invalid| HeadError::Bad("the method is malformed"))?;
    let target = parse_target(target.as_bytes())?;
    let headers = collect(request.headers)?;
    let is_1_1 = version == 1;
    check_host(&headers, is_1_1)?;
    let framing = framing(&headers, is_1_1)?;
    let keep_alive = keep_alive(&headers, is_1_1);
    let expect = expectation(&headers, is_1_1);
    Ok(Head { method, target, is_1_1, headers, framing, keep_alive, expect })
}

fn syntax_error(error: httparse::Error, head: &[u8]) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::Version if names_a_version(head) => HeadError::Version,
        httparse::Error::HeaderName => HeadError::Bad("a header name is malformed"),
        httparse::Error::HeaderValue => HeadError::Bad("a header value is malformed"),
        _ => HeadError::Bad("the request line or a header is malformed"),
    }
}

/// Whether the request line is well formed, so that it is really its version that is not known.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    matches!((words.next(), words.next()), (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None) if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn parse_target(target: &[u8]) -> Result<Target, HeadError> {
    if target.len() > MAX_TARGET_BYTES {
        return Err(HeadError::TargetTooLong);
    }
    if target == b"*" {
        return Ok(Target::Asterisk);
    }
    let origin = if target.starts_with(b"/") { target } else { after_authority(target)? };
    let mut parts = origin.splitn(2, |byte| *byte == b'?');
    let path = parts.next().unwrap_or_default();
    let path = if path.is_empty() { b"/".to_vec() } else { path.to_vec() };
    Ok(Target::Path { path, query: parts.next().unwrap_or_default().to_vec() })
}

/// What follows `http://host` in the absolute form.
fn after_authority(target: &[u8]) -> Result<&[u8], HeadError> {
    let bad = HeadError::Bad("the request target is neither a path nor an http URL");
    let (scheme, rest) = target
        .iter()
        .position(|byte| *byte == b':')
        .and_then(|colon| target.split_at_checked(colon))
        .ok_or(bad)?;
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(bad);
    }
    let rest = rest.strip_prefix(b"://").ok_or(bad)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, origin) = rest.split_at_checked(end).ok_or(bad)?;
    if authority.is_empty() { Err(bad) } else { Ok(origin) }
}

fn collect(lines: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes())
            .map_err(|_invalid| HeadError::Bad("a header name is malformed"))?;
        let value = HeaderValue::from_bytes(line.value)
            .map_err(|_invalid| HeadError::Bad("a header value is malformed"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn check_host(headers: &HeaderMap, is_1_1: bool) -> Result<(), HeadError> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if is_1_1 => Err(HeadError::Bad("the Host header is missing")),
        (_, Some(_)) => Err(HeadError::Bad("there is more than one Host header")),
        (Some(host), None) if !host.is_empty() && Authority::try_from(host.as_bytes()).is_err() => {
            Err(HeadError::Bad("the Host header is malformed"))
        }
        _ => Ok(()),
    }
}

fn framing(headers: &HeaderMap, is_1_1: bool) -> Result<Framing, HeadError> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(coding) = codings.next() {
        return match (lengths.next(), codings.next()) {
            (Some(_), _) => Err(HeadError::Bad("both Content-Length and Transfer-Encoding are given")),
            _ if !is_1_1 => Err(HeadError::Bad("HTTP/1.0 has no Transfer-Encoding")),
            (_, None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (_, None) => Err(HeadError::Coding),
            _ => Err(HeadError::Bad("there is more than one Transfer-Encoding header")),
        };
    }
    let Some(first) = lengths.next() else { return Ok(Framing::Empty) };
    if lengths.any(|other| other != first) {
        return Err(HeadError::Bad("two Content-Length headers differ"));
    }
    digits(first.as_bytes())
        .map(Framing::Length)
        .ok_or(HeadError::Bad("Content-Length is no number of bytes"))
}

/// A decimal number of digits only (`str::parse` would take a sign), unless it overflows.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

fn keep_alive(headers: &HeaderMap, is_1_1: bool) -> bool {
    let has = |word: &[u8]| {
        let mut tokens =
            headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(word))
    };
    if is_1_1 { !has(b"close") } else { has(b"keep-alive") && !has(b"close") }
}

fn expectation(headers: &HeaderMap, is_1_1: bool) -> Expect {
    let mut values = headers.get_all(EXPECT).iter();
    match (values.next(), values.next()) {
        (None, _) => Expect::Nothing,
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            // A client of HTTP/1.0 can't take a 100 (RFC 9110 section 10.1.1).
            if is_1_1 { Expect::Continue } else { Expect::Nothing }
        }
        _ => Expect::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Head, HeadError> {
        parse(text.as_bytes())
    }

    #[test]
    fn framings() {
        let with = |lines: &str| {
            parsed(&format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n")).map(|head| head.framing)
        };
        assert_eq!(with(""), Ok(Framing::Empty));
        assert_eq!(with("Content-Length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(with("Content-Length: 5\r\nContent-Length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(with("transfer-encoding: Chunked\r\n"), Ok(Framing::Chunked));
        for bad in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5x\r\n",
            "Content-Length: \r\n",
            "Content-Length: 100000000000000000000000\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "X: a\r\n folded\r\n",
            "X: a\rb\r\n",
            "X: a\0b\r\n",
            "Host: other\r\n",
        ] {
            assert!(matches!(with(bad), Err(HeadError::Bad(_))), "{bad:?} gave {:?}", with(bad));
        }
        for unknown in ["gzip", "gzip, chunked", "xchunked", "chunked, chunked", "identity", ",", ""] {
            assert_eq!(
                with(&format!("Transfer-Encoding: {unknown}\r\n")),
                Err(HeadError::Coding),
                "{unknown}"
            );
        }
    }

    #[test]
    fn versions_hosts_and_connections() {
        let ok = |text: &str| parsed(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert!(ok("GET / HTTP/1.1\r\nHost: h\r\n\r\n").keep_alive);
        assert!(!ok("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n").keep_alive);
        assert!(!ok("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(ok("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
        assert_eq!(ok("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect, Expect::Nothing);
        assert_eq!(ok("POST / HTTP/1.1\r\nHost:\r\nExpect: 100-Continue\r\n\r\n").expect, Expect::Continue);
        assert_eq!(ok("POST / HTTP/1.1\r\nHost: h\r\nExpect: foo\r\n\r\n").expect, Expect::Unknown);
        assert_eq!(
            parsed("GET / HTTP/1.1\r\n\r\n").err(),
            Some(HeadError::Bad("the Host header is missing"))
        );
        for later in 2..=9 {
            let head = ok(&format!("GET / HTTP/1.{later}\r\nHost: h\r\n\r\n"));
            assert!(head.is_1_1 && head.keep_alive);
        }
        assert!(parsed("GET / HTTP/1.2\r\n\r\n").is_err(), "it needs a Host");
        for other in ["PRI * HTTP/2.0", "GET / HTTP/0.9", "GET / HTTP/3.1"] {
            assert_eq!(parsed(&format!("{other}\r\n\r\n")).err(), Some(HeadError::Version), "{other}");
        }
        assert!(matches!(parsed("GET / x HTTP/1.1\r\n\r\n").err(), Some(HeadError::Bad(_))));
        assert!(parsed("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(parsed("GET / HTTP/1.1\r\nHost: a b\r\n\r\n").is_err());
        assert!(parsed("GET / HTTP/1.1\r\nHost: h@evil\0\r\n\r\n").is_err());
    }

    #[test]
    fn targets() {
        let target = |text: &str| parsed(&format!("GET {text} HTTP/1.0\r\n\r\n")).map(|head| head.target);
        let path = |path: &str, query: &str| Ok(Target::Path { path: path.into(), query: query.into() });
        assert_eq!(target("/a?x=1?y"), path("/a", "x=1?y"));
        assert_eq!(target("http://h:1/a/"), path("/a/", ""));
        assert_eq!(target("HTTPS://h?create=true"), path("/", "create=true"));
        assert_eq!(target("*"), Ok(Target::Asterisk));
        for bad in ["a/b", "h:80", "ftp://h/", "http:///a", "http:/a"] {
            assert!(target(bad).is_err(), "{bad}");
        }
        assert_eq!(target(&format!("/{}", "a".repeat(MAX_TARGET_BYTES))), Err(HeadError::TargetTooLong));
    }

    #[test]
    fn limits() {
        let end = |text: &str| Scanner::default().find_end(text.as_bytes());
        assert_eq!(end("GET / HTTP/1.1\r\nHost: h\r\n\r\nrest"), Ok(Some(27)));
        assert_eq!(end("GET / HTTP/1.1\r\nHost: h\r\n"), Ok(None));
        assert!(end("GET / HTTP/1.1\nHost: h\r\n").is_err());
        assert!(end("\n").is_err());
        assert_eq!(end(&format!("GET /{}", "a".repeat(MAX_HEAD_BYTES))), Err(HeadError::TargetTooLong));
        assert_eq!(
            end(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(MAX_HEAD_BYTES))),
            Err(HeadError::TooLarge)
        );
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        assert_eq!(parsed(&many).err(), Some(HeadError::TooLarge));
        assert_eq!(skip_empty_lines(b"\r\n\r\nGET"), 4);
        assert_eq!(skip_empty_lines(b"\rGET"), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(parse(&bytes));
            Scanner::default().find_end(&bytes).ok();
        }

        #[test]
        fn the_end_is_found_however_the_bytes_arrive(cuts in prop::collection::vec(0usize..80, 0..6)) {
            let text = b"POST /r1/?create=true HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut scanner = Scanner::default();
            let found = cuts.iter().find_map(|cut| scanner.find_end(&text[..*cut]).expect("well formed"));
            prop_assert_eq!(found, Some(text.len() - 3));
        }

        #[test]
        fn a_length_survives(length in any::<u64>()) {
            let head = parsed(&format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n")).expect("well formed");
            prop_assert_eq!(head.framing, Framing::Length(length));
        }
    }
}
