//! A chunked body: the same data, the same end and the same verdict however it arrives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packhouse::http::chunked::Decoder;

/// Data, where it ended, and whether it was right.
fn decode(bytes: &[u8], piece: usize) -> (Vec<u8>, usize, bool) {
    let (mut decoder, mut data, mut taken) = (Decoder::default(), Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        let mut piece = piece.to_vec();
        let Ok((kept, from)) = decoder.decode(&mut piece) else { return (Vec::new(), 0, false) };
        assert!(kept <= from && from <= piece.len());
        data.extend_from_slice(&piece[..kept]);
        taken += from;
        if decoder.is_done() {
            break;
        }
    }
    (data, taken, decoder.is_done())
}

fuzz_target!(|data: &[u8]| {
    let Some((piece, body)) = data.split_first() else { return };
    if body.is_empty() {
        return;
    }
    let whole = decode(body, body.len());
    let pieces = decode(body, usize::from(*piece).max(1));
    if whole.2 {
        assert_eq!(whole, pieces);
        assert!(whole.0.len() <= whole.1);
    } else {
        assert!(!pieces.2, "accepted in pieces and not as a whole");
    }
});
