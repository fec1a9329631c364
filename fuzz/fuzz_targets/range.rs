//! A Range header: what is selected is there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packhouse::http::range::{Selection, select};

fuzz_target!(|data: (u64, &[u8])| {
    let (size, header) = data;
    if let Selection::Part(range) = select(header, size) {
        assert!(range.start < range.end && range.end <= size, "{range:?} of {size}");
    }
});
