//! Preconditions of a request for something that has an entity tag (RFC 9110 section 13). Pure.
//!
//! Tags here are strong: an object never changes. It has no date, so that `If-Modified-Since` and its like are ignored, as
//! that section demands.

use http::HeaderMap;
use http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE};

/// What preconditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Holds,
    /// 304: the client has it already.
    NotModified,
    /// 412: it is another one than the client means.
    Failed,
}

/// Judges `If-Match` and `If-None-Match` by the tag of what is there, quotes included.
pub fn judge(headers: &HeaderMap, tag: &str) -> Verdict {
    if headers.contains_key(IF_MATCH) && !lists(headers, &IF_MATCH, tag, false) {
        Verdict::Failed
    } else if lists(headers, &IF_NONE_MATCH, tag, true) {
        Verdict::NotModified
    } else {
        Verdict::Holds
    }
}

/// Whether a `Range` is to be applied: not if `If-Range` names anything but this tag, a date among it.
pub fn applies_range(headers: &HeaderMap, tag: &str) -> bool {
    let mut values = headers.get_all(IF_RANGE).iter();
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => value.as_bytes().trim_ascii() == tag.as_bytes(),
        _ => false,
    }
}

/// Whether a list of tags has this one in it, or is `*`. With `weak` a weak tag is as good as a strong one.
fn lists(headers: &HeaderMap, name: &http::HeaderName, tag: &str, weak: bool) -> bool {
    // A comma in a tag of somebody else's only makes two tags of it that are none of ours.
    let entries = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut entries = entries.map(<[u8]>::trim_ascii);
    entries.any(|entry| {
        let strong = entry.strip_prefix(b"W/").filter(|_| weak).unwrap_or(entry);
        entry == b"*" || strong == tag.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: http::HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn tags_are_compared() {
        let tag = "\"ab\"";
        for (lines, wanted) in [
            (&[][..], Verdict::Holds),
            (&[("if-match", "\"ab\"")], Verdict::Holds),
            (&[("if-match", "*")], Verdict::Holds),
            (&[("if-match", "\"x\", \"ab\"")], Verdict::Holds),
            (&[("if-match", "\"x\""), ("if-match", "\"ab\"")], Verdict::Holds),
            (&[("if-match", "W/\"ab\"")], Verdict::Failed),
            (&[("if-match", "\"x\"")], Verdict::Failed),
            (&[("if-match", "ab")], Verdict::Failed),
            (&[("if-match", "")], Verdict::Failed),
            (&[("if-none-match", "\"ab\"")], Verdict::NotModified),
            (&[("if-none-match", "W/\"ab\"")], Verdict::NotModified),
            (&[("if-none-match", "*")], Verdict::NotModified),
            (&[("if-none-match", "\"x\"")], Verdict::Holds),
            (&[("if-none-match", "ab")], Verdict::Holds),
            (&[("if-match", "\"x\""), ("if-none-match", "\"ab\"")], Verdict::Failed),
            (&[("if-match", "\"ab\""), ("if-none-match", "\"ab\"")], Verdict::NotModified),
            (&[("if-modified-since", "Mon, 01 Jan 2035 00:00:00 GMT")], Verdict::Holds),
        ] {
            assert_eq!(judge(&headers(lines), tag), wanted, "{lines:?}");
        }
        for (lines, wanted) in [
            (&[][..], true),
            (&[("if-range", "\"ab\"")], true),
            (&[("if-range", "W/\"ab\"")], false),
            (&[("if-range", "\"x\"")], false),
            (&[("if-range", "Mon, 01 Jan 2035 00:00:00 GMT")], false),
            (&[("if-range", "*")], false),
            (&[("if-range", "\"ab\""), ("if-range", "\"ab\"")], false),
        ] {
            assert_eq!(applies_range(&headers(lines), tag), wanted, "{lines:?}");
        }
    }
}
