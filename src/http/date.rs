//! The `Date` header (RFC 9110 section 6.6.1), formatted once a second a worker.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

thread_local! {
    static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Calls `use_it` with the current date.
pub fn with_date<T>(use_it: impl FnOnce(&str) -> T) -> T {
    let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, text)| {
        if *last != seconds || text.is_empty() {
            *text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            *last = seconds;
        }
        use_it(text)
    })
}
