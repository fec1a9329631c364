//! When files are written past the page cache.

/// When large objects are written past the page cache (`O_DIRECT`), which costs less processor time and leaves the cache to
/// what is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectIo {
    /// Where the kernel says that it can be done, or a probe of the data folder has shown it.
    #[default]
    Auto,
    /// Also where neither says so: it is tried, file by file.
    On,
    /// Nowhere.
    Off,
}
