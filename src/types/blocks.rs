//! What objects and folders take on a disk.

/// The unit in which file systems hand out room, in bytes. Every object and every folder takes whole ones: so `du` counts,
/// and so do quotas, or many empty objects would take a disk for nothing.
pub const BLOCK_BYTES: u64 = 4096;

/// What an object of `bytes` bytes takes on a disk, in bytes: whole blocks, at least one.
pub const fn on_disk(bytes: u64) -> u64 {
    match bytes.div_ceil(BLOCK_BYTES) {
        0 => BLOCK_BYTES,
        blocks => blocks.saturating_mul(BLOCK_BYTES),
    }
}
