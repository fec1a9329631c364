//! A part of an object.

/// Bytes `start..end` of an object, `start < end` unless the object is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// All of an object of `size` bytes.
    pub const fn full(size: u64) -> Self {
        Self { start: 0, end: size }
    }

    /// Number of bytes.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether there is no byte in it.
    pub const fn is_empty(self) -> bool {
        self.end == self.start
    }
}
