//! SHA-256 side by side: in every width, of any number of messages of any lengths, in any pieces, what ring says of each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use packhouse::hash::{Engine, Sha256};

fuzz_target!(|data: (u8, Vec<(u16, u16)>, &[u8])| {
    let (way, messages, bytes) = data;
    let mut engines = Engine::each();
    engines.extend([Engine::one_by_one(), Engine::fastest()]);
    let engine = &engines[usize::from(way) % engines.len()];
    // Each message is a piece of the bytes, cut in two.
    let messages: Vec<&[u8]> = messages
        .iter()
        .take(40)
        .map(|(from, len)| {
            let from = usize::from(*from).min(bytes.len());
            &bytes[from..(from + usize::from(*len)).min(bytes.len())]
        })
        .collect();
    let mut hashes: Vec<Sha256> = messages.iter().map(|_| Sha256::new()).collect();
    let cut = |message: &[u8], n: usize| {
        if message.is_empty() { 0 } else { (n * 37 + usize::from(way)) % message.len() }
    };
    engine.update(hashes.iter_mut().zip(&messages).enumerate().map(|(n, (hash, m))| (hash, &m[..cut(m, n)])));
    engine.update(hashes.iter_mut().zip(&messages).enumerate().map(|(n, (hash, m))| (hash, &m[cut(m, n)..])));
    for (hash, message) in hashes.into_iter().zip(messages) {
        assert_eq!(hash.finish(), *ring::digest::digest(&ring::digest::SHA256, message).as_ref());
    }
});
