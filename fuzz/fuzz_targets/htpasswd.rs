//! A password file: no line can harm another, and no user has a name that could forge a line of the log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packhouse::auth::htpasswd::{Line, lines};

fuzz_target!(|text: &str| {
    let all: Vec<_> = lines(text).collect();
    assert_eq!(all.len(), text.lines().count());
    for (number, line) in all {
        let alone = text.lines().nth(number - 1).map(Line::parse);
        assert!(alone.is_some_and(|alone| alone == line));
        if let Line::Entry { user, hash } = line {
            assert!(!user.is_empty() && !user.contains([':', '\n', '\r', '\0']), "{user:?}");
            assert!(!hash.contains([':', '\n']), "{hash:?}");
        }
    }
});
