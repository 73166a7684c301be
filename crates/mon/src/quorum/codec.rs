//! The encoding of the library's messages, so that it can change without the wire: a tag and the
//! fields in order, described in `docs/protocol-mon.md`.

use raft_io::{
    AppendEntries, AppendEntriesReply, EntryKind, InstallSnapshot, InstallSnapshotReply, LogEntry,
    Message, PreVote, PreVoteReply, ReadProbe, ReadProbeReply, RequestVote, RequestVoteReply,
    Snapshot,
};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

/// A message of the quorum to one monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumMessage(pub(crate) Message);

/// Who sent a message, as it says.
pub(super) fn sender(message: &Message) -> u64 {
    match message {
        Message::PreVote(m) => m.candidate,
        Message::PreVoteReply(m) => m.from,
        Message::RequestVote(m) => m.candidate,
        Message::RequestVoteReply(m) => m.from,
        Message::AppendEntries(m) => m.leader,
        Message::AppendEntriesReply(m) => m.from,
        Message::InstallSnapshot(m) => m.leader,
        Message::InstallSnapshotReply(m) => m.from,
        Message::ReadProbe(m) => m.leader,
        Message::ReadProbeReply(m) => m.from,
        // Leadership is never handed over.
        _ => 0,
    }
}

impl Encode for QuorumMessage {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let mut put = |tag: u8, fields: &[u64]| {
            out.push(tag);
            fields.iter().for_each(|n| n.encode(out, f));
        };
        match &self.0 {
            Message::PreVote(m) => {
                put(1, &[m.term, m.candidate, m.last_log_index, m.last_log_term]);
            }
            Message::PreVoteReply(m) => put(2, &[m.term, m.from, m.vote_granted.into()]),
            Message::RequestVote(m) => {
                put(3, &[m.term, m.candidate, m.last_log_index, m.last_log_term]);
            }
            Message::RequestVoteReply(m) => put(4, &[m.term, m.from, m.vote_granted.into()]),
            Message::AppendEntries(m) => {
                put(5, &[m.term, m.leader, m.prev_log_index, m.prev_log_term, m.leader_commit]);
                (m.entries.len() as u32).encode(out, f);
                m.entries.iter().for_each(|e| encode_entry(e, out, f));
            }
            Message::AppendEntriesReply(m) => {
                let success = m.success.into();
                put(
                    6,
                    &[m.term, m.from, success, m.match_index, m.conflict_index, m.conflict_term],
                );
            }
            Message::InstallSnapshot(m) => {
                let s = &m.snapshot;
                put(7, &[m.term, m.leader, s.index, s.term]);
                s.config.encode(out, f);
                s.data.as_slice().encode(out, f);
            }
            Message::InstallSnapshotReply(m) => put(8, &[m.term, m.from, m.last_index]),
            Message::ReadProbe(m) => put(9, &[m.term, m.leader, m.seq]),
            Message::ReadProbeReply(m) => put(10, &[m.term, m.from, m.seq]),
            // Never sent; decodes as an error.
            _ => put(0, &[]),
        }
    }
}

impl Decode for QuorumMessage {
    const MIN_SIZE: usize = 1;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let tag = r.u8()?;
        if !(1..=10).contains(&tag) {
            return Err(DecodeError::Invalid { what: "quorum message", value: tag.into() });
        }
        let (term, from) = (number(r)?, r.u64()?);
        Ok(Self(match tag {
            1 => Message::PreVote(PreVote {
                term,
                candidate: from,
                last_log_index: number(r)?,
                last_log_term: number(r)?,
            }),
            2 => Message::PreVoteReply(PreVoteReply { term, from, vote_granted: r.u64()? != 0 }),
            3 => Message::RequestVote(RequestVote {
                term,
                candidate: from,
                last_log_index: number(r)?,
                last_log_term: number(r)?,
                force: false,
            }),
            4 => Message::RequestVoteReply(RequestVoteReply {
                term,
                from,
                vote_granted: r.u64()? != 0,
            }),
            5 => decode_append(r, term, from)?,
            6 => Message::AppendEntriesReply(AppendEntriesReply {
                term,
                from,
                success: r.u64()? != 0,
                match_index: number(r)?,
                conflict_index: number(r)?,
                conflict_term: number(r)?,
            }),
            7 => {
                let (index, snapshot_term) = (number(r)?, number(r)?);
                let config = Decode::decode(r)?;
                let data = r.blob("snapshot")?.to_vec();
                let snapshot = Snapshot::with_config(index, snapshot_term, config, data);
                Message::InstallSnapshot(InstallSnapshot { term, leader: from, snapshot })
            }
            8 => Message::InstallSnapshotReply(InstallSnapshotReply {
                term,
                from,
                last_index: number(r)?,
            }),
            9 => Message::ReadProbe(ReadProbe { term, leader: from, seq: number(r)? }),
            _ => Message::ReadProbeReply(ReadProbeReply { term, from, seq: number(r)? }),
        }))
    }
}

/// No term, index or question is ever that large, and the library counts on from what it is told.
const NUMBER_MAX: u64 = 1 << 62;

fn number(r: &mut Reader<'_>) -> Result<u64, DecodeError> {
    match r.u64()? {
        value if value <= NUMBER_MAX => Ok(value),
        value => Err(DecodeError::Invalid { what: "number of the quorum", value }),
    }
}

fn decode_append(r: &mut Reader<'_>, term: u64, leader: u64) -> Result<Message, DecodeError> {
    let (prev_log_index, prev_log_term, leader_commit) = (number(r)?, number(r)?, number(r)?);
    let mut entries = Vec::new();
    for n in 0..r.count(MIN_ENTRY, "entries")? {
        let entry = decode_entry(r)?;
        // The library relies on it.
        if Some(entry.index) != prev_log_index.checked_add(1 + n as u64) {
            return Err(DecodeError::Invalid { what: "index of an entry", value: entry.index });
        }
        entries.push(entry);
    }
    Ok(Message::AppendEntries(AppendEntries {
        term,
        leader,
        prev_log_index,
        prev_log_term,
        entries,
        leader_commit,
    }))
}

/// Bytes of an entry without contents.
const MIN_ENTRY: usize = 21;

fn encode_entry(entry: &LogEntry, out: &mut Vec<u8>, f: Features) {
    entry.index.encode(out, f);
    entry.term.encode(out, f);
    out.push((entry.kind == EntryKind::Config).into());
    entry.command.as_slice().encode(out, f);
}

fn decode_entry(r: &mut Reader<'_>) -> Result<LogEntry, DecodeError> {
    let (index, term, config) = (number(r)?, number(r)?, r.u8()? != 0);
    let kind = if config { EntryKind::Config } else { EntryKind::Normal };
    let data = r.blob("entry")?.to_vec();
    Ok(LogEntry { kind, ..LogEntry::new(term, index, data) })
}
