//! SHA-256 of what streams through, of one message or of many at once. Pure: no executor, no I/O.

use sha2::block_api::compress256;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod engine;
#[cfg(target_arch = "x86_64")]
mod rounds;
#[cfg(target_arch = "x86_64")]
mod shani;

pub use engine::Engine;

/// A SHA-256.
pub type Digest = [u8; 32];

/// The state between two blocks (FIPS 180-4 section 6.2).
type State = [u32; 8];
/// What is taken at once.
type Block = [u8; BLOCK_BYTES];

const BLOCK_BYTES: usize = 64;
/// Where the length of the message is written in its last block.
const LENGTH_AT: usize = BLOCK_BYTES - 8;

/// The first state: FIPS 180-4 section 5.3.3.
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// FIPS 180-4 section 4.2.2: the first bits of the cube roots of the first primes.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const K: [[u32; 16]; 4] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
     0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
     0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
     0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
     0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// A SHA-256 in progress.
#[derive(Clone)]
pub struct Sha256 {
    state: State,
    /// The begin of a block, so many bytes of it.
    begun: Block,
    filled: usize,
    /// Bytes taken.
    length: u64,
}

impl Default for Sha256 {
    fn default() -> Self {
        Self { state: INITIAL, begun: [0; BLOCK_BYTES], filled: 0, length: 0 }
    }
}

impl Sha256 {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let blocks = self.split(bytes);
        compress256(&mut self.state, blocks);
    }

    /// Takes the next bytes up to the whole blocks among them, which are left to the caller, and the begin of a block
    /// after them.
    fn split<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [Block] {
        self.length += bytes.len() as u64;
        if self.filled > 0 {
            let room = self.begun.get_mut(self.filled..).unwrap_or_default();
            let (now, later) = bytes.split_at(room.len().min(bytes.len()));
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            self.filled += now.len();
            if self.filled < BLOCK_BYTES {
                return &[];
            }
            compress256(&mut self.state, &[self.begun]);
            bytes = later;
        }
        let (blocks, rest) = bytes.as_chunks();
        self.filled = rest.len();
        self.begun.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        blocks
    }

    /// The digest of all that was taken.
    pub fn finish(mut self) -> Digest {
        // FIPS 180-4 section 5.1.1: a one, zeros, and the length in bits at the end of a block.
        let mut last = [[0; BLOCK_BYTES]; 2];
        let blocks = if self.filled < LENGTH_AT { 1 } else { 2 };
        let bytes = last.as_flattened_mut();
        bytes.iter_mut().zip(self.begun.iter().take(self.filled)).for_each(|(to, from)| *to = *from);
        if let Some(end) = bytes.get_mut(self.filled) {
            *end = 0x80;
        }
        let last = last.get_mut(..blocks).unwrap_or_default();
        if let Some(length) = last.as_flattened_mut().last_chunk_mut() {
            *length = (self.length * 8).to_be_bytes();
        }
        compress256(&mut self.state, last);
        let mut digest = [0; 32];
        let words = self.state.iter().flat_map(|word| word.to_be_bytes());
        digest.iter_mut().zip(words).for_each(|(to, from)| *to = from);
        digest
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hash = Self::new();
        hash.update(bytes);
        hash.finish()
    }
}
