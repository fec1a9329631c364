//! A request head: found the same however it arrives, and never accepted if two readers could take its body for two lengths.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packhouse::http::head::{Framing, Scanner, parse, skip_empty_lines};

fuzz_target!(|data: &[u8]| {
    let data = &data[skip_empty_lines(data)..];
    let whole = Scanner::default().find_end(data);
    let mut scanner = Scanner::default();
    let piecewise = (0..=data.len()).map(|upto| scanner.find_end(&data[..upto]));
    let first = piecewise.take_while(|found| *found == Ok(None)).count();
    if let Ok(Some(end)) = whole {
        assert!(first <= data.len(), "not found in pieces");
        check(&data[..end]);
    }
});

fn check(head: &[u8]) {
    let Ok(parsed) = parse(head) else { return };
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let values = |name: &str| {
        let lines = text.split("\r\n").skip(1);
        let of_name = lines.filter_map(|line| line.split_once(':')).filter(|(other, _)| *other == name);
        of_name.map(|(_, value)| value.trim().to_owned()).collect::<Vec<_>>()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.is_empty() || codings.is_empty(), "both framings: {text:?}");
    assert!(lengths.windows(2).all(|two| two[0] == two[1]), "two lengths: {text:?}");
    match parsed.framing {
        Framing::Empty => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Length(length) => assert!(lengths.iter().all(|text| text.parse() == Ok(length)), "{text:?}"),
        Framing::Chunked => assert_eq!(codings, ["chunked"]),
    }
    assert!(
        text.split("\r\n").skip(1).all(|line| !line.starts_with([' ', '\t'])),
        "a folded header: {text:?}"
    );
}
