//! The rounds of SHA-256 (FIPS 180-4 section 6.2.2), written once for vectors of any width: one message a lane.

/// Defines `compress`, which takes every message on by the same number of blocks. `Vector`, `LANES`, the bitwise functions of
/// section 4.1.2, `add`, `rotate` and `shift`, and what loads and stores must be in scope, and be for the same instructions
/// as `$feature`.
macro_rules! define_compress {
    ($feature:literal) => {
        /// Takes message `i`, in `states[i]`, on by the `count` first blocks of `blocks[i]`, each of which has as many.
        #[target_feature(enable = $feature)]
        pub(super) fn compress(states: &mut [State; LANES], blocks: [&[Block]; LANES], count: usize) {
            let mut sums = [splat(0); 8];
            for (word, vector) in sums.iter_mut().enumerate() {
                let mut words = [0; LANES];
                for lane in 0..LANES {
                    words[lane] = states[lane][word];
                }
                *vector = load(&words);
            }
            for at in 0..count {
                let mut next = [&blocks[0][at]; LANES];
                for lane in 1..LANES {
                    next[lane] = &blocks[lane][at];
                }
                let mut w = load_blocks(next);
                let mut v = sums;
                sixteen_rounds::<false>(&mut v, &mut w, 0);
                for group in 1..4 {
                    sixteen_rounds::<true>(&mut v, &mut w, group);
                }
                for word in 0..8 {
                    sums[word] = add(sums[word], v[word]);
                }
            }
            for (word, vector) in sums.into_iter().enumerate() {
                for (lane, value) in store(vector).into_iter().enumerate() {
                    states[lane][word] = value;
                }
            }
        }

        /// Written out: all indices of `w` and `v` are known then, and what fits stays in registers.
        #[inline]
        #[target_feature(enable = $feature)]
        fn sixteen_rounds<const SCHEDULE: bool>(v: &mut [Vector; 8], w: &mut [Vector; 16], group: usize) {
            let k = &K[group];
            round::<SCHEDULE, 0>(v, w, k);
            round::<SCHEDULE, 1>(v, w, k);
            round::<SCHEDULE, 2>(v, w, k);
            round::<SCHEDULE, 3>(v, w, k);
            round::<SCHEDULE, 4>(v, w, k);
            round::<SCHEDULE, 5>(v, w, k);
            round::<SCHEDULE, 6>(v, w, k);
            round::<SCHEDULE, 7>(v, w, k);
            round::<SCHEDULE, 8>(v, w, k);
            round::<SCHEDULE, 9>(v, w, k);
            round::<SCHEDULE, 10>(v, w, k);
            round::<SCHEDULE, 11>(v, w, k);
            round::<SCHEDULE, 12>(v, w, k);
            round::<SCHEDULE, 13>(v, w, k);
            round::<SCHEDULE, 14>(v, w, k);
            round::<SCHEDULE, 15>(v, w, k);
        }

        /// Round `T` of its group. Nothing moves from variable to variable: what the standard calls `a` is in another place
        /// every round, and after eight in its own again.
        #[inline]
        #[target_feature(enable = $feature)]
        fn round<const SCHEDULE: bool, const T: usize>(
            v: &mut [Vector; 8],
            w: &mut [Vector; 16],
            k: &[u32; 16],
        ) {
            if SCHEDULE {
                let early = add(w[T], small_sigma_0(w[(T + 1) % 16]));
                w[T] = add(early, add(small_sigma_1(w[(T + 14) % 16]), w[(T + 9) % 16]));
            }
            let place = const { 16 - T };
            let [a, b, c] = [v[place % 8], v[(place + 1) % 8], v[(place + 2) % 8]];
            let [e, f, g] = [v[(place + 4) % 8], v[(place + 5) % 8], v[(place + 6) % 8]];
            let (d, h) = ((place + 3) % 8, (place + 7) % 8);
            let t1 = add(add(add(v[h], splat(k[T])), w[T]), add(big_sigma_1(e), choose(e, f, g)));
            v[d] = add(v[d], t1);
            v[h] = add(t1, add(big_sigma_0(a), majority(a, b, c)));
        }

        /// The functions of section 4.1.2 that rotate: by so many bits to the right, which is the rest of 32 to the left.
        #[inline]
        #[target_feature(enable = $feature)]
        fn big_sigma_0(x: Vector) -> Vector {
            xor(rotate::<2, 30>(x), rotate::<13, 19>(x), rotate::<22, 10>(x))
        }

        #[inline]
        #[target_feature(enable = $feature)]
        fn big_sigma_1(x: Vector) -> Vector {
            xor(rotate::<6, 26>(x), rotate::<11, 21>(x), rotate::<25, 7>(x))
        }

        #[inline]
        #[target_feature(enable = $feature)]
        fn small_sigma_0(x: Vector) -> Vector {
            xor(rotate::<7, 25>(x), rotate::<18, 14>(x), shift::<3>(x))
        }

        #[inline]
        #[target_feature(enable = $feature)]
        fn small_sigma_1(x: Vector) -> Vector {
            xor(rotate::<17, 15>(x), rotate::<19, 13>(x), shift::<10>(x))
        }
    };
}

pub(super) use define_compress;
