//! The library's view of the log, in memory, and the writes that make the store equal to it.

use std::cell::RefCell;

use raft_io::{EntryKind, HardState, LogEntry, MemoryLog, RaftLog, Result, Snapshot};

use crate::storage::{self, Stored, Write};

/// The log from its snapshot on.
#[derive(Default)]
pub(super) struct Log {
    memory: MemoryLog,
    /// What the store does not have yet. The library lends its log only for reading.
    writes: RefCell<Vec<Write>>,
}

impl Log {
    pub(super) fn new(stored: &Stored) -> Self {
        let mut memory = MemoryLog::new();
        let entries: Vec<LogEntry> = stored.log.iter().map(to_library).collect();
        let snapshot = stored
            .snapshot
            .as_ref()
            .map(|s| Snapshot::with_config(s.index, s.term, s.members.clone(), s.state.to_vec()));
        let hard = HardState { term: stored.term, voted_for: stored.vote };
        // Memory refuses only entries out of order, which a load never gives.
        let mut fill = || -> Result<()> {
            if let Some(snapshot) = &snapshot {
                memory.apply_snapshot(snapshot)?;
            }
            memory.append(&entries)?;
            memory.set_hard_state(hard)
        };
        let filled = fill();
        debug_assert!(filled.is_ok(), "{filled:?}");
        Self { memory, writes: RefCell::default() }
    }

    pub(super) fn has_writes(&self) -> bool {
        !self.writes.borrow().is_empty()
    }

    /// Everything since the last call, in order.
    pub(super) fn take(&self) -> Vec<Write> {
        self.writes.take()
    }

    fn note(&self, write: Write) {
        self.writes.borrow_mut().push(write);
    }
}

impl RaftLog for Log {
    fn last_index(&self) -> u64 {
        self.memory.last_index()
    }

    fn last_term(&self) -> u64 {
        self.memory.last_term()
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        self.memory.term_at(index)
    }

    fn entry(&self, index: u64) -> Option<LogEntry> {
        self.memory.entry(index)
    }

    fn entries(&self, from: u64, to: u64) -> Vec<LogEntry> {
        self.memory.entries(from, to)
    }

    fn append(&mut self, entries: &[LogEntry]) -> Result<()> {
        self.memory.append(entries)?;
        self.note(Write::Append(entries.iter().map(from_library).collect()));
        Ok(())
    }

    fn truncate(&mut self, from: u64) -> Result<()> {
        self.memory.truncate(from)?;
        self.note(Write::Truncate(from));
        Ok(())
    }

    fn hard_state(&self) -> HardState {
        self.memory.hard_state()
    }

    fn set_hard_state(&mut self, state: HardState) -> Result<()> {
        self.memory.set_hard_state(state)?;
        self.note(Write::Vote { term: state.term, vote: state.voted_for });
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn snapshot_index(&self) -> u64 {
        self.memory.snapshot_index()
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.memory.snapshot()
    }

    fn apply_snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        let kept = self.memory.term_at(snapshot.index) == Some(snapshot.term);
        self.memory.apply_snapshot(snapshot)?;
        if !kept {
            // Another history's entries; the store would take them for what follows.
            self.note(Write::Truncate(0));
        }
        self.note(Write::Snapshot(storage::Snapshot {
            index: snapshot.index,
            term: snapshot.term,
            members: snapshot.config.clone(),
            state: snapshot.data.clone().into(),
        }));
        Ok(())
    }
}

fn to_library(entry: &storage::Entry) -> LogEntry {
    let kind = if entry.config { EntryKind::Config } else { EntryKind::Normal };
    LogEntry { kind, ..LogEntry::new(entry.term, entry.index, entry.data.to_vec()) }
}

fn from_library(entry: &LogEntry) -> storage::Entry {
    storage::Entry {
        index: entry.index,
        term: entry.term,
        config: entry.kind == EntryKind::Config,
        data: entry.command.clone().into(),
    }
}
