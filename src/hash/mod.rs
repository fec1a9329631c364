//! SHA-256 of what streams through. Pure: no executor, no I/O.

use sha2::Digest as _;

/// A SHA-256.
pub type Digest = [u8; 32];

/// A SHA-256 in progress.
#[derive(Clone, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken.
    pub fn finish(self) -> Digest {
        self.0.finalize().into()
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        sha2::Sha256::digest(bytes).into()
    }
}
