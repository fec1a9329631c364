//! How many messages are hashed side by side: whatever is fastest on this processor, found out by trying.

#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "functions for instructions that not every processor has are unsafe to call"
    )
)]
#![cfg_attr(not(target_arch = "x86_64"), expect(dead_code, unused_variables, reason = "there are no lanes"))]
#![cfg_attr(
    all(test, not(target_arch = "x86_64")),
    expect(unreachable_patterns, reason = "there are no lanes")
)]

use std::fmt;
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sha2::block_api::compress256;

use crate::hash::{Block, INITIAL, Sha256, State};
#[cfg(target_arch = "x86_64")]
use crate::hash::{avx2, avx512, shani};

/// Blocks of each message while the ways are timed, and how often each is tried: about a millisecond in all.
const TRIAL_BLOCKS: usize = 256;
const TRIALS: usize = 5;

/// A way to hash several messages at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lanes {
    /// AVX-512.
    #[cfg(target_arch = "x86_64")]
    Sixteen,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Eight,
    /// SHA extensions.
    #[cfg(target_arch = "x86_64")]
    Two,
}

/// A part of a message: whole blocks that follow a state.
struct Part<'p> {
    state: &'p mut State,
    blocks: &'p [Block],
}

impl Lanes {
    /// The widest first.
    const ALL: &'static [Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Sixteen,
        #[cfg(target_arch = "x86_64")]
        Self::Eight,
        #[cfg(target_arch = "x86_64")]
        Self::Two,
    ];

    const fn count(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Sixteen => avx512::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Eight => avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Two => shani::LANES,
        }
    }

    /// Whether this processor has the instructions.
    fn is_supported(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Sixteen => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
            #[cfg(target_arch = "x86_64")]
            Self::Eight => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Two => is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1"),
        }
    }

    /// Takes the first messages on, as far as the shortest of them goes. There is at least one, and each has a block.
    fn advance(self, parts: &mut [Part<'_>]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Sixteen => side_by_side(parts, |states, blocks, count| {
                // SAFETY: who has this value has found that the processor is able to.
                unsafe { avx512::compress(states, blocks, count) }
            }),
            #[cfg(target_arch = "x86_64")]
            Self::Eight => side_by_side(parts, |states, blocks, count| {
                // SAFETY: as above.
                unsafe { avx2::compress(states, blocks, count) }
            }),
            #[cfg(target_arch = "x86_64")]
            Self::Two => side_by_side(parts, |states, blocks, count| {
                // SAFETY: as above.
                unsafe { shani::compress(states, blocks, count) }
            }),
        }
    }
}

/// Takes the first `N` messages on by the blocks that all of them have. Lanes that are left over repeat the first message,
/// for nothing.
fn side_by_side<const N: usize>(
    parts: &mut [Part<'_>],
    compress: impl FnOnce(&mut [State; N], [&[Block]; N], usize),
) {
    let used = parts.len().min(N);
    let Some((first, _)) = parts.get(..used).and_then(<[_]>::split_first) else { return };
    let mut states = [*first.state; N];
    let mut blocks = [first.blocks; N];
    let mut count = first.blocks.len();
    for ((state, its_blocks), part) in states.iter_mut().zip(&mut blocks).zip(parts.iter().take(used)) {
        (*state, *its_blocks) = (*part.state, part.blocks);
        count = count.min(part.blocks.len());
    }
    compress(&mut states, blocks, count);
    for (part, state) in parts.iter_mut().take(used).zip(states) {
        *part.state = state;
        part.blocks = part.blocks.get(count..).unwrap_or_default();
    }
}

/// Hashes many messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    /// Ways that pay on this processor, each with the least number of messages from which it does: the widest first.
    ways: Vec<(Lanes, usize)>,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (lanes, from) in &self.ways {
            write!(f, "{} at once from {from} on, ", lanes.count())?;
        }
        f.write_str("else one by one")
    }
}

impl Engine {
    /// Hashes one by one.
    pub fn one_by_one() -> Self {
        Self::default()
    }

    /// Every way that this processor has, whether or not it pays.
    #[cfg(any(test, feature = "testing"))]
    pub fn each() -> Vec<Self> {
        let supported = Lanes::ALL.iter().copied().filter(|lanes| lanes.is_supported());
        supported.map(|lanes| Self { ways: vec![(lanes, 2)] }).collect()
    }

    /// Whatever is fastest on this processor. The first call finds that out, in about a millisecond.
    pub fn fastest() -> Self {
        static FOUND: OnceLock<Engine> = OnceLock::new();
        FOUND.get_or_init(|| Self::from_costs(time_one(), time)).clone()
    }

    /// Chooses by what some blocks of one message cost alone, and what as many of every lane cost side by side.
    fn from_costs(alone: Duration, side_by_side: impl Fn(Lanes) -> Duration) -> Self {
        let mut ways = Vec::new();
        // What one message costs by the best narrower way.
        let mut best = alone;
        for lanes in Lanes::ALL.iter().rev().copied().filter(|lanes| lanes.is_supported()) {
            let cost = side_by_side(lanes);
            // A wider way than another one is to save a quarter: the more messages it takes, the seldomer they come together.
            let worth = if ways.is_empty() { best } else { best * 3 / 4 };
            let messages = || (2..=lanes.count()).zip(2..);
            if let Some((from, _)) = messages().find(|(_, count)| cost < worth * *count) {
                ways.insert(0, (lanes, from));
                best = messages().map(|(_, count)| cost / count).fold(best, Duration::min);
            }
        }
        Self { ways }
    }

    /// How many messages are hashed at once at the most.
    pub fn lanes(&self) -> usize {
        self.ways.first().map_or(1, |(lanes, _)| lanes.count())
    }

    /// From how many messages on it is faster than one by one.
    pub fn pays_from(&self) -> usize {
        self.ways.iter().map(|(_, from)| *from).min().unwrap_or(usize::MAX)
    }

    /// Takes on every message by the bytes that come next in it.
    pub fn update<'m>(&self, messages: impl IntoIterator<Item = (&'m mut Sha256, &'m [u8])>) {
        let mut parts: Vec<_> = messages
            .into_iter()
            .map(|(hash, bytes)| {
                let blocks = hash.split(bytes);
                Part { state: &mut hash.state, blocks }
            })
            .collect();
        loop {
            parts.retain(|part| !part.blocks.is_empty());
            match self.ways.iter().find(|(_, from)| *from <= parts.len()) {
                Some((lanes, _)) => lanes.advance(&mut parts),
                None => break,
            }
        }
        for part in parts {
            compress256(part.state, part.blocks);
        }
    }
}

/// The shortest time of some trials.
fn shortest(mut trial: impl FnMut()) -> Duration {
    let once = |_| {
        let start = Instant::now();
        trial();
        start.elapsed()
    };
    (0..TRIALS).map(once).min().unwrap_or_default()
}

fn time_one() -> Duration {
    let blocks = vec![[0x5a; 64]; TRIAL_BLOCKS];
    shortest(|| {
        let mut state = INITIAL;
        compress256(&mut state, black_box(&blocks));
        black_box(state);
    })
}

fn time(lanes: Lanes) -> Duration {
    let messages = vec![vec![[0x5a; 64]; TRIAL_BLOCKS]; lanes.count()];
    shortest(|| {
        let mut states = vec![INITIAL; lanes.count()];
        let mut parts: Vec<_> = states
            .iter_mut()
            .zip(black_box(&messages))
            .map(|(state, blocks)| Part { state, blocks })
            .collect();
        lanes.advance(&mut parts);
        black_box(parts.len());
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::Digest as _;

    use super::*;

    /// Every way that this processor has, alone and all of them together.
    fn engines() -> Vec<Engine> {
        let supported = Lanes::ALL.iter().copied().filter(|lanes| lanes.is_supported());
        let ways: Vec<_> = supported.map(|lanes| (lanes, 2)).collect();
        let forced = ways.iter().map(|(lanes, _)| Engine { ways: vec![(*lanes, 1)] });
        let single = [Engine::one_by_one(), Engine::fastest(), Engine { ways: ways.clone() }];
        forced.chain(single).collect()
    }

    /// Bytes that differ from message to message.
    fn message(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        (0..length).map(|_| next()).collect()
    }

    fn check(engine: &Engine, messages: &[Vec<u8>], pieces: usize) {
        let mut hashes = vec![Sha256::new(); messages.len()];
        let length = |message: &Vec<u8>| message.len().div_ceil(pieces).max(1);
        for piece in 0..pieces {
            let parts = messages.iter().map(|message| {
                let from = (piece * length(message)).min(message.len());
                &message[from..(from + length(message)).min(message.len())]
            });
            engine.update(hashes.iter_mut().zip(parts));
        }
        for (hash, message) in hashes.into_iter().zip(messages) {
            let right: [u8; 32] = sha2::Sha256::digest(message).into();
            assert_eq!(hash.finish(), right, "{engine:?}, {} bytes in {pieces} pieces", message.len());
        }
    }

    #[test]
    fn every_number_of_messages_and_every_short_length() {
        for engine in engines() {
            for count in 0..=33 {
                let messages: Vec<_> = (0..count).zip(192..).map(|(n, length)| message(n, length)).collect();
                check(&engine, &messages, 1);
            }
            for length in 0..=260 {
                let messages: Vec<_> = (0..17).map(|n| message(n, length)).collect();
                check(&engine, &messages, 1);
                check(&engine, &messages, 3);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_messages_in_any_pieces(
            lengths in prop::collection::vec(0usize..5000, 0..40),
            pieces in 1usize..9,
            seed in any::<u64>(),
        ) {
            let messages: Vec<_> =
                lengths.iter().zip(seed / 2..).map(|(length, seed)| message(seed, *length)).collect();
            for engine in engines() {
                check(&engine, &messages, pieces);
            }
        }
    }

    #[test]
    fn a_way_is_used_from_where_it_pays() {
        let supported = |lanes: &&Lanes| lanes.is_supported();
        let Some(narrow) = Lanes::ALL.iter().rev().find(supported).copied() else { return };
        // As expensive as one and a half alone: pays from two on.
        let alone = Duration::from_secs(2);
        let engine =
            Engine::from_costs(alone, |lanes| Duration::from_secs(if lanes == narrow { 3 } else { 1000 }));
        assert_eq!(engine.ways, [(narrow, 2)]);
        assert_eq!(Engine::from_costs(alone, |_| Duration::from_secs(1000)), Engine::one_by_one());
        // As expensive as half: a wider one is to be cheaper than three eighths of one alone.
        let Some(wide) = Lanes::ALL.iter().find(supported).copied().filter(|wide| *wide != narrow) else {
            return;
        };
        let engine = |per_message: u32| {
            let seconds = |lanes: Lanes| match lanes {
                lanes if lanes == narrow => lanes.count() as u64 * 1000,
                lanes if lanes == wide => lanes.count() as u64 * u64::from(per_message),
                _ => 1_000_000,
            };
            Engine::from_costs(Duration::from_secs(2000), |lanes| Duration::from_secs(seconds(lanes)))
        };
        assert_eq!(engine(760).ways, [(narrow, 2)]);
        assert_eq!(engine(740).ways, [(wide, wide.count()), (narrow, 2)]);
    }

    #[test]
    fn a_message_whose_length_is_known() {
        // FIPS 180-2 appendix B.
        let digest = data_encoding::HEXLOWER.encode(&Sha256::of(b"abc"));
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let million = data_encoding::HEXLOWER.encode(&Sha256::of(&vec![b'a'; 1_000_000]));
        assert_eq!(million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}
