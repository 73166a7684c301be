//! The cluster log: the newest entries, numbered.

use std::collections::VecDeque;

use spirula_wire::msg::mon::LogEntry;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

/// Entries kept.
pub const LOG_MAX: usize = 2000;

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ClusterLog {
    /// Number of entries ever appended: the version of the newest one.
    pub version: u64,
    entries: VecDeque<LogEntry>,
}

impl ClusterLog {
    /// Oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.entries.iter()
    }

    /// Entries newer than `version`, oldest first.
    pub fn after(&self, version: u64) -> impl Iterator<Item = &LogEntry> {
        let new = usize::try_from(self.version.saturating_sub(version)).unwrap_or(usize::MAX);
        self.entries.iter().skip(self.entries.len().saturating_sub(new))
    }

    pub(crate) fn append(&mut self, entry: LogEntry) {
        self.version += 1;
        self.entries.push_back(entry);
        if self.entries.len() > LOG_MAX {
            self.entries.pop_front();
        }
    }
}

impl Encode for ClusterLog {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.version.encode(out, f);
        (self.entries.len() as u32).encode(out, f);
        self.entries.iter().for_each(|e| e.encode(out, f));
    }
}

impl Decode for ClusterLog {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u64()?;
        Ok(Self { version, entries: Vec::decode(r)?.into() })
    }
}
