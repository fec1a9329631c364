//! Eight messages at once, on AVX2: what is best on processors without SHA extensions and without AVX-512.

#![expect(unsafe_code, reason = "vector loads and stores take raw pointers")]
#![expect(clippy::indexing_slicing, reason = "all indices are below the lengths of arrays: the loops say so")]

use core::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_loadu_si256, _mm256_or_si256,
    _mm256_permute2x128_si256, _mm256_set_epi32, _mm256_set1_epi32, _mm256_shuffle_epi8, _mm256_slli_epi32,
    _mm256_srli_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use crate::hash::rounds::define_compress;
use crate::hash::{Block, K, State};

pub(super) const LANES: usize = 8;

type Vector = __m256i;

define_compress!("avx2");

#[inline]
#[target_feature(enable = "avx2")]
fn load<T, const N: usize>(from: &[T; N]) -> Vector {
    const { assert!(size_of::<[T; N]>() == size_of::<Vector>()) };
    // SAFETY: 32 bytes can be read there, as was just found; no alignment is asked for.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(vector: Vector) -> [u32; LANES] {
    let mut words = [0; LANES];
    // SAFETY: 32 bytes can be written there; no alignment is asked for.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) };
    words
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm256_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn splat(word: u32) -> Vector {
    _mm256_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm256_xor_si256(_mm256_xor_si256(a, b), c)
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate<const RIGHT: i32, const LEFT: i32>(x: Vector) -> Vector {
    _mm256_or_si256(_mm256_srli_epi32::<RIGHT>(x), _mm256_slli_epi32::<LEFT>(x))
}

#[inline]
#[target_feature(enable = "avx2")]
fn shift<const RIGHT: i32>(x: Vector) -> Vector {
    _mm256_srli_epi32::<RIGHT>(x)
}

#[inline]
#[target_feature(enable = "avx2")]
fn choose(e: Vector, f: Vector, g: Vector) -> Vector {
    _mm256_xor_si256(g, _mm256_and_si256(e, _mm256_xor_si256(f, g)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm256_xor_si256(b, _mm256_and_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(b, c)))
}

/// Word `t` of every block in vector `t`.
#[inline]
#[target_feature(enable = "avx2")]
fn load_blocks(blocks: [&Block; LANES]) -> [Vector; 16] {
    let halves = blocks.map(|block| block.as_chunks::<32>().0);
    let (first, second) = (transpose(halves.map(|half| &half[0])), transpose(halves.map(|half| &half[1])));
    std::array::from_fn(|t| if t < 8 { first[t] } else { second[t - 8] })
}

/// Word `t` of every half of a block in vector `t`: the transpose of eight halves, whose bytes are big-endian.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [&[u8; 32]; LANES]) -> [Vector; LANES] {
    let swap = _mm256_set_epi32(
        0x0c0d_0e0f,
        0x0809_0a0b,
        0x0405_0607,
        0x0001_0203,
        0x0c0d_0e0f,
        0x0809_0a0b,
        0x0405_0607,
        0x0001_0203,
    );
    let mut r = [splat(0); LANES];
    for (row, half) in r.iter_mut().zip(rows) {
        *row = _mm256_shuffle_epi8(load(half), swap);
    }
    let mut q = [splat(0); LANES];
    for i in 0..2 {
        let (low0, high0) =
            (_mm256_unpacklo_epi32(r[4 * i], r[4 * i + 1]), _mm256_unpackhi_epi32(r[4 * i], r[4 * i + 1]));
        let (low1, high1) = (
            _mm256_unpacklo_epi32(r[4 * i + 2], r[4 * i + 3]),
            _mm256_unpackhi_epi32(r[4 * i + 2], r[4 * i + 3]),
        );
        q[4 * i] = _mm256_unpacklo_epi64(low0, low1);
        q[4 * i + 1] = _mm256_unpackhi_epi64(low0, low1);
        q[4 * i + 2] = _mm256_unpacklo_epi64(high0, high1);
        q[4 * i + 3] = _mm256_unpackhi_epi64(high0, high1);
    }
    std::array::from_fn(|t| {
        let (low, high) = (q[t % 4], q[4 + t % 4]);
        if t < 4 {
            _mm256_permute2x128_si256::<0x20>(low, high)
        } else {
            _mm256_permute2x128_si256::<0x31>(low, high)
        }
    })
}
