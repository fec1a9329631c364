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
    let mut sums = [load(&states[0]), load(&states[1])];
    for (block1, block2) in blocks[0].iter().zip(blocks[1]).take(count) {
        let mut w = [load_block(block1), load_block(block2)];
        let mut v = sums;
        sixteen_rounds::<false>(&mut v, &mut w, 0);
        for group in 1..4 {
            sixteen_rounds::<true>(&mut v, &mut w, group);
        }
        for (sum, v) in sums.iter_mut().zip(v) {
            *sum = (_mm_add_epi32(sum.0, v.0), _mm_add_epi32(sum.1, v.1));
        }
    }
    *states = [store(sums[0]), store(sums[1])];
}

/// Written out, so that all of `w` and `v` stay in registers: a loop here costs all that two messages gain.
#[inline]
#[target_feature(enable = "sha,sse4.1")]
fn sixteen_rounds<const SCHEDULE: bool>(v: &mut [Pair; LANES], w: &mut [[__m128i; 4]; LANES], group: usize) {
    let (k, _) = K[group].as_chunks::<4>();
    four_rounds::<SCHEDULE, 0>(v, w, &k[0]);
    four_rounds::<SCHEDULE, 1>(v, w, &k[1]);
    four_rounds::<SCHEDULE, 2>(v, w, &k[2]);
    four_rounds::<SCHEDULE, 3>(v, w, &k[3]);
}

/// Rounds `4 * T` to `4 * T + 3` of their group, with the words `w[_][T]`.
#[inline]
#[target_feature(enable = "sha,sse4.1")]
fn four_rounds<const SCHEDULE: bool, const T: usize>(
    v: &mut [Pair; LANES],
    w: &mut [[__m128i; 4]; LANES],
    k: &[u32; 4],
) {
    let k = vector(k);
    for ((abef, cdgh), w) in v.iter_mut().zip(w) {
        if SCHEDULE {
            let [w1, w2, w3] = [w[(T + 1) % 4], w[(T + 2) % 4], w[(T + 3) % 4]];
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[T], w1), _mm_alignr_epi8::<4>(w3, w2));
            w[T] = _mm_sha256msg2_epu32(sum, w3);
        }
        let x = _mm_add_epi32(w[T], k);
        *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, x);
        *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0e>(x));
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn vector<T, const N: usize>(from: &[T; N]) -> __m128i {
    const { assert!(size_of::<[T; N]>() == size_of::<__m128i>()) };
    // SAFETY: 16 bytes can be read there, as was just found; no alignment is asked for.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse4.1")]
fn load_block(block: &Block) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let (quarters, _) = block.as_chunks::<16>();
    std::array::from_fn(|i| _mm_shuffle_epi8(vector(&quarters[i]), swap))
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
