//! The table of fuzz targets: one row for each decoder that meets bytes from outside.

/// A decoder under test; it must return for every input.
pub(crate) struct Target {
    /// Also the name of its folder under `fuzz/corpus`.
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
}

pub(crate) const TARGETS: &[Target] = &[];
