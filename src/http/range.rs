//! The `Range` header (RFC 9110 section 14). Pure.

use crate::types::ByteRange;

/// What a `Range` header asks of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// 200 with all of it: the header is malformed, asks for several ranges or in another unit, or the object is empty.
    Full,
    /// 206 with these bytes.
    Part(ByteRange),
    /// 416: nothing of it is there.
    Unsatisfiable,
}

/// Applies the header's value to an object of `size` bytes.
pub fn select(header: &[u8], size: u64) -> Selection {
    let Some((first, last)) = one_range(header) else { return Selection::Full };
    if size == 0 {
        return Selection::Full;
    }
    let range = match (first, last) {
        (Some(first), _) if first >= size => return Selection::Unsatisfiable,
        (Some(first), Some(last)) if last < first => return Selection::Full,
        (Some(first), last) => {
            ByteRange { start: first, end: last.map_or(size, |last| last.min(size - 1) + 1) }
        }
        (None, Some(0)) => return Selection::Unsatisfiable,
        (None, Some(count)) => ByteRange { start: size.saturating_sub(count), end: size },
        (None, None) => return Selection::Full,
    };
    Selection::Part(range)
}

/// The two numbers of `bytes=first-last`, either of which may be left out.
fn one_range(header: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, spec) = header.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let spec = spec.trim_ascii();
    let dash = spec.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (spec.get(..dash)?, spec.get(dash + 1..)?);
    let number = |text: &[u8]| if text.is_empty() { Some(None) } else { number(text).map(Some) };
    Some((number(first)?, number(last)?))
}

/// A number of digits only. One that is too large for any object is the largest there is.
fn number(text: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    text.iter().try_fold(0_u64, |sum, byte| Some(sum.saturating_mul(10).saturating_add(digit(byte)?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(start: u64, end: u64) -> Selection {
        Selection::Part(ByteRange { start, end })
    }

    #[test]
    fn ranges_of_an_object_of_18_bytes() {
        let select = |spec: &str| select(format!("bytes={spec}").as_bytes(), 18);
        for (spec, wanted) in [
            ("0-4", part(0, 5)),
            ("6-", part(6, 18)),
            ("0-", part(0, 18)),
            ("-4", part(14, 18)),
            ("-400", part(0, 18)),
            ("10-9999", part(10, 18)),
            ("17-17", part(17, 18)),
            ("18-", Selection::Unsatisfiable),
            ("1000-1010", Selection::Unsatisfiable),
            ("-0", Selection::Unsatisfiable),
            ("5-2", Selection::Full),
            ("0-1,4-5", Selection::Full),
            ("-", Selection::Full),
            ("", Selection::Full),
            ("abc", Selection::Full),
            ("+1-2", Selection::Full),
            ("0-99999999999999999999", part(0, 18)),
            ("99999999999999999999-", Selection::Unsatisfiable),
            ("99999999999999999999-99999999999999999998", Selection::Unsatisfiable),
            ("-99999999999999999999", part(0, 18)),
            ("18446744073709551616-", Selection::Unsatisfiable),
        ] {
            assert_eq!(select(spec), wanted, "{spec}");
        }
    }

    #[test]
    fn other_units_and_empty_objects_are_sent_whole() {
        assert_eq!(select(b"items=0-1", 18), Selection::Full);
        assert_eq!(select(b"bytes", 18), Selection::Full);
        assert_eq!(select(b"Bytes=0-1", 18), part(0, 2));
        assert_eq!(select(b"bytes=0-", 0), Selection::Full);
        assert_eq!(select(b"bytes=-0", 0), Selection::Full);
    }

    proptest! {
        #[test]
        fn a_part_lies_in_the_object(header in "bytes=[0-9]{0,4}-[0-9]{0,4}", size in 0u64..3000) {
            if let Selection::Part(range) = select(header.as_bytes(), size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
