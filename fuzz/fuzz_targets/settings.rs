//! A settings file: every mistake is an error with a place, and none is a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packhouse::settings::file::{Read, parse};
use packhouse::settings::resolve::Draft;

fuzz_target!(|text: &str| {
    let mut draft = Draft::default();
    let Read { values, problems, .. } = parse("packhouse.toml".into(), text, &mut draft);
    for problem in &problems {
        assert!(!problem.to_string().is_empty());
    }
    if values.is_empty() && problems.is_empty() {
        // Nothing but comments, or tables that say nothing.
        return;
    }
    draft.resolve().ok();
});
