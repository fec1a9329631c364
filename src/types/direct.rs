//! When files are written past the page cache.

/// When large objects are written past the page cache (`O_DIRECT`), which costs less processor time and leaves the cache to
/// what is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectIo {
    /// Where the kernel says that it can be done.
    #[default]
    Auto,
    /// Also where the kernel does not say so: it is tried.
    On,
    /// Nowhere.
    Off,
}
