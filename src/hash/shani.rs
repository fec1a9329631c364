//! Two messages at once, on the SHA extensions: one's instructions run while the other's wait for their results.

#![expect(unsafe_code, reason = "vector loads and stores take raw pointers")]
#![expect(clippy::indexing_slicing, reason = "all indices are below the lengths of arrays: the loops say so")]

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    _mm_storeu_si128,
};

use crate::hash::{Block, K, State};

pub(super) const LANES: usize = 2;

/// A state as the instructions want it: words a, b, e, f and c, d, g, h.
type Pair = (__m128i, __m128i);

/// Takes message `i`, in `states[i]`, on by the `count` first blocks of `blocks[i]`, each of which has as many.
#[target_feature(enable = "sha,sse4.1")]
pub(super) fn compress(states: &mut [State; LANES], blocks: [&[Block]; LANES], count: usize) {
    let [mut one, mut two] = [load(&states[0]), load(&states[1])];
    for (block1, block2) in blocks[0].iter().zip(blocks[1]).take(count) {
        let (mut w1, mut w2) = (load_block(block1), load_block(block2));
        let (start1, start2) = (one, two);
        for group in 0..16 {
            if group >= 4 {
                schedule(&mut w1, group);
                schedule(&mut w2, group);
            }
            let k = constants(group);
            let (x1, x2) = (_mm_add_epi32(w1[group % 4], k), _mm_add_epi32(w2[group % 4], k));
            one.1 = _mm_sha256rnds2_epu32(one.1, one.0, x1);
            two.1 = _mm_sha256rnds2_epu32(two.1, two.0, x2);
            one.0 = _mm_sha256rnds2_epu32(one.0, one.1, _mm_shuffle_epi32::<0x0e>(x1));
            two.0 = _mm_sha256rnds2_epu32(two.0, two.1, _mm_shuffle_epi32::<0x0e>(x2));
        }
        one = (_mm_add_epi32(one.0, start1.0), _mm_add_epi32(one.1, start1.1));
        two = (_mm_add_epi32(two.0, start2.0), _mm_add_epi32(two.1, start2.1));
    }
    states[0] = store(one);
    states[1] = store(two);
}

/// The next four words of the message schedule.
#[inline]
#[target_feature(enable = "sha,sse4.1")]
fn schedule(w: &mut [__m128i; 4], group: usize) {
    let [w0, w1, w2, w3] = std::array::from_fn(|i| w[(group + i) % 4]);
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
    w[group % 4] = _mm_sha256msg2_epu32(sum, w3);
}

#[inline]
#[target_feature(enable = "sse2")]
fn constants(group: usize) -> __m128i {
    let k = |i: usize| K[group / 4][4 * (group % 4) + i].cast_signed();
    _mm_set_epi32(k(3), k(2), k(1), k(0))
}

#[inline]
#[target_feature(enable = "sse2")]
fn quarter(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes can be read there; no alignment is asked for.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn load_block(block: &Block) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let (quarters, _) = block.as_chunks::<16>();
    std::array::from_fn(|i| _mm_shuffle_epi8(quarter(&quarters[i]), swap))
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn load(state: &State) -> Pair {
    let word = |i: usize| state[i].cast_signed();
    (_mm_set_epi32(word(0), word(1), word(4), word(5)), _mm_set_epi32(word(2), word(3), word(6), word(7)))
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn store((abef, cdgh): Pair) -> State {
    let words = |vector| {
        let mut words = [0u32; 4];
        // SAFETY: 16 bytes can be written there; no alignment is asked for.
        unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), vector) };
        words
    };
    let (abef, cdgh) = (words(abef), words(cdgh));
    // The first word of a vector is its last name.
    [abef[3], abef[2], cdgh[3], cdgh[2], abef[1], abef[0], cdgh[1], cdgh[0]]
}
