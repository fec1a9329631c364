//! A password file: no line can harm another, and no user has a name that could forge a line of the log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packhouse::auth::htpasswd::{Line, lines};

fuzz_target!(|text: &[u8]| {
    // A byte order mark does not count.
    let plain = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let each: Vec<_> = plain.split(|byte| *byte == b'\n').collect();
    let all: Vec<_> = lines(text).collect();
    assert_eq!(all.len(), each.len());
    for (number, line) in all {
        assert!(each.get(number - 1).is_some_and(|alone| Line::parse(alone) == line));
        if let Line::Entry { user, .. } = line {
            assert!(!user.is_empty() && !user.contains(['\n', '\r', '\0']), "{user:?}");
        }
    }
});
