//! Sixteen messages at once, on AVX-512.

#![expect(unsafe_code, reason = "vector loads and stores take raw pointers")]
#![expect(clippy::indexing_slicing, reason = "all indices are below the lengths of arrays: the loops say so")]

use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_ror_epi32, _mm512_set1_epi32, _mm512_set4_epi32,
    _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_srli_epi32, _mm512_storeu_si512,
    _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};

use crate::hash::rounds::define_compress;
use crate::hash::{Block, K, State};

pub(super) const LANES: usize = 16;

type Vector = __m512i;

/// Truth tables for `vpternlogd`: bit `4a + 2b + c` is the result for the input bits a, b and c.
const XOR: i32 = 0b1001_0110;
const CHOOSE: i32 = 0b1100_1010;
const MAJORITY: i32 = 0b1110_1000;

define_compress!("avx512f,avx512bw");

#[inline]
#[target_feature(enable = "avx512f")]
fn load<T, const N: usize>(from: &[T; N]) -> Vector {
    const { assert!(size_of::<[T; N]>() == size_of::<Vector>()) };
    // SAFETY: 64 bytes can be read there, as was just found; no alignment is asked for.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(vector: Vector) -> [u32; LANES] {
    let mut words = [0; LANES];
    // SAFETY: 64 bytes can be written there; no alignment is asked for.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) };
    words
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: Vector, b: Vector) -> Vector {
    _mm512_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn splat(word: u32) -> Vector {
    _mm512_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<XOR>(a, b, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn choose(e: Vector, f: Vector, g: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<CHOOSE>(e, f, g)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm512_ternarylogic_epi32::<MAJORITY>(a, b, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn rotate<const RIGHT: i32, const LEFT: i32>(x: Vector) -> Vector {
    _mm512_ror_epi32::<RIGHT>(x)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn shift<const RIGHT: u32>(x: Vector) -> Vector {
    _mm512_srli_epi32::<RIGHT>(x)
}

/// Word `t` of every block in vector `t`: the transpose of the sixteen blocks, whose bytes are big-endian.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_blocks(blocks: [&Block; LANES]) -> [Vector; LANES] {
    let swap = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    let mut r = [splat(0); LANES];
    for (row, block) in r.iter_mut().zip(blocks) {
        *row = _mm512_shuffle_epi8(load(block), swap);
    }
    // Groups of four rows: their words, transposed within every quarter of the register.
    let mut quarters = [splat(0); LANES];
    for i in 0..4 {
        let (low0, high0) =
            (_mm512_unpacklo_epi32(r[4 * i], r[4 * i + 1]), _mm512_unpackhi_epi32(r[4 * i], r[4 * i + 1]));
        let (low1, high1) = (
            _mm512_unpacklo_epi32(r[4 * i + 2], r[4 * i + 3]),
            _mm512_unpackhi_epi32(r[4 * i + 2], r[4 * i + 3]),
        );
        quarters[4 * i] = _mm512_unpacklo_epi64(low0, low1);
        quarters[4 * i + 1] = _mm512_unpackhi_epi64(low0, low1);
        quarters[4 * i + 2] = _mm512_unpacklo_epi64(high0, high1);
        quarters[4 * i + 3] = _mm512_unpackhi_epi64(high0, high1);
    }
    // Then the quarters themselves: word `4q + i` is quarter q of vector i of every group.
    let mut w = [splat(0); LANES];
    for i in 0..4 {
        let [g0, g1, g2, g3] = [quarters[i], quarters[4 + i], quarters[8 + i], quarters[12 + i]];
        let (even01, odd01) = (_mm512_shuffle_i32x4::<0x88>(g0, g1), _mm512_shuffle_i32x4::<0xdd>(g0, g1));
        let (even23, odd23) = (_mm512_shuffle_i32x4::<0x88>(g2, g3), _mm512_shuffle_i32x4::<0xdd>(g2, g3));
        w[i] = _mm512_shuffle_i32x4::<0x88>(even01, even23);
        w[4 + i] = _mm512_shuffle_i32x4::<0x88>(odd01, odd23);
        w[8 + i] = _mm512_shuffle_i32x4::<0xdd>(even01, even23);
        w[12 + i] = _mm512_shuffle_i32x4::<0xdd>(odd01, odd23);
    }
    w
}
