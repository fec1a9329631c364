//! When files are written past the page cache.

/// When large objects are written past the page cache (`O_DIRECT`), which costs less processor time and leaves the cache to
/// what is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectIo {
    /// Where a look at the data folder has shown that it can be done.
    #[default]
    Auto,
    /// Whatever that look says: it is tried, file by file.
    On,
    /// Nowhere.
    Off,
}
