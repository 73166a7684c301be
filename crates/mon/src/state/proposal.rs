//! What changes the state: a proposal, made once by the leader and applied alike everywhere.
//!
//! Invariants: a proposal carries its time and every random value; applying it looks at nothing
//! else but the state. The encoding is versioned and described in `docs/format-mon.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use spirula_auth::{CryptoKey, EntityAuth, RotatingSecrets};
use spirula_maps::SnapIntervals;
use spirula_wire::denc::encode_versioned;
use spirula_wire::msg::mon::LogEntry;
use spirula_wire::types::{EntityNameStr, PgId};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use super::Creating;
use super::config::Scope;
use super::health::Mute;

/// Version of the encoding of proposals and snapshots; a newer one is refused.
pub const FORMAT_VERSION: u8 = 4;

/// Changes that take effect together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// Wall clock of the proposer.
    pub stamp: Duration,
    pub changes: Vec<Change>,
}

/// One change. Maps travel in their Ceph encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An encoded `OSDMap::Incremental`, of the epoch after the current one.
    OsdMap(Bytes),
    /// An encoded `MonMap`, of the epoch after the current one.
    MonMap(Bytes),
    /// An encoded `MgrMap`, of the epoch after the current one.
    MgrMap(Bytes),
    /// Sets the key and capabilities of an entity.
    SetAuth {
        name: EntityNameStr,
        key: CryptoKey,
        caps: BTreeMap<String, String>,
    },
    RemoveAuth(EntityNameStr),
    /// The rotating secrets of a service.
    Rotate {
        service: u8,
        secrets: RotatingSecrets,
    },
    /// No global id up to this one is free any more.
    MaxGlobalId(u64),
    /// Gives the next so many global ids to a monitor to hand out. `run` is a number that it drew
    /// at its start: after a restart it does not know which it handed out, and takes none of them.
    GlobalIds {
        run: u64,
        count: u64,
    },
    /// The monitor that has a number in the quorum (`None`: nobody any more).
    Member {
        id: u64,
        name: Option<String>,
    },
    /// Sets an option (`None` clears it).
    Config {
        scope: Scope,
        name: String,
        value: Option<String>,
    },
    /// Sets a key of the key-value store (`None` removes it).
    Key {
        key: String,
        value: Option<Bytes>,
    },
    /// Appends to the cluster log.
    Log(Vec<LogEntry>),
    /// Mutes a health check (`None` ends it).
    Mute {
        code: String,
        mute: Option<Mute>,
    },
    /// What a daemon (`osd.0`, `mgr.x`) said about itself.
    Metadata {
        daemon: String,
        values: BTreeMap<String, String>,
    },
    /// The commands that the active manager answers, as JSON.
    MgrCommands(String),
    /// Nobody needs maps of epochs before this one.
    TrimOsdMaps(u32),
    /// Ids of a pool that no snapshot has (any more), beside those that map changes name.
    PurgedSnaps {
        pool: i64,
        snaps: SnapIntervals,
    },
    /// A PG that its primary shall make if nobody has it (`None`: it is there).
    CreatePg {
        pg: PgId,
        how: Option<Creating>,
    },
}

impl Proposal {
    pub fn new(stamp: Duration, changes: Vec<Change>) -> Self {
        Self { stamp, changes }
    }
}

impl Encode for Proposal {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, FORMAT_VERSION, FORMAT_VERSION, |out| {
            (self.stamp.as_nanos() as u64).encode(out, f);
            (self.changes.len() as u32).encode(out, f);
            self.changes.iter().for_each(|c| encode_change(c, out, f));
        });
    }
}

impl Decode for Proposal {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("proposal", FORMAT_VERSION, |_, r| {
            let stamp = Duration::from_nanos(r.u64()?);
            let n = r.count(1, "changes")?;
            let changes = (0..n).map(|_| decode_change(r)).collect::<Result<_, _>>()?;
            Ok(Self { stamp, changes })
        })
    }
}

fn encode_change(change: &Change, out: &mut Vec<u8>, f: Features) {
    let tag = |out: &mut Vec<u8>, n: u8| out.push(n);
    match change {
        Change::OsdMap(bytes) => (tag(out, 1), bytes.encode(out, f)).1,
        Change::MonMap(bytes) => (tag(out, 2), bytes.encode(out, f)).1,
        Change::MgrMap(bytes) => (tag(out, 3), bytes.encode(out, f)).1,
        Change::SetAuth { name, key, caps } => {
            tag(out, 4);
            name.encode(out, f);
            key.encode(out, f);
            caps.encode(out, f);
        }
        Change::RemoveAuth(name) => (tag(out, 5), name.encode(out, f)).1,
        Change::Rotate { service, secrets } => {
            tag(out, 6);
            service.encode(out, f);
            secrets.encode(out, f);
        }
        Change::MaxGlobalId(id) => (tag(out, 7), id.encode(out, f)).1,
        Change::Config { scope, name, value } => {
            tag(out, 8);
            scope.encode(out, f);
            name.encode(out, f);
            value.encode(out, f);
        }
        Change::Key { key, value } => {
            tag(out, 9);
            key.encode(out, f);
            value.encode(out, f);
        }
        Change::Log(entries) => (tag(out, 10), entries.encode(out, f)).1,
        Change::Mute { code, mute } => {
            tag(out, 11);
            code.encode(out, f);
            mute.encode(out, f);
        }
        Change::Metadata { daemon, values } => {
            tag(out, 12);
            daemon.encode(out, f);
            values.encode(out, f);
        }
        Change::MgrCommands(json) => (tag(out, 13), json.encode(out, f)).1,
        Change::PurgedSnaps { pool, snaps } => {
            tag(out, 14);
            pool.encode(out, f);
            snaps.encode(out, f);
        }
        Change::GlobalIds { run, count } => {
            tag(out, 15);
            run.encode(out, f);
            count.encode(out, f);
        }
        Change::Member { id, name } => {
            tag(out, 16);
            id.encode(out, f);
            name.encode(out, f);
        }
        Change::TrimOsdMaps(first) => (tag(out, 17), first.encode(out, f)).1,
        Change::CreatePg { pg, how } => {
            tag(out, 18);
            pg.encode(out, f);
            how.encode(out, f);
        }
    }
}

fn decode_change(r: &mut Reader<'_>) -> Result<Change, DecodeError> {
    Ok(match r.u8()? {
        1 => Change::OsdMap(Decode::decode(r)?),
        2 => Change::MonMap(Decode::decode(r)?),
        3 => Change::MgrMap(Decode::decode(r)?),
        4 => Change::SetAuth {
            name: Decode::decode(r)?,
            key: Decode::decode(r)?,
            caps: Decode::decode(r)?,
        },
        5 => Change::RemoveAuth(Decode::decode(r)?),
        6 => Change::Rotate { service: r.u8()?, secrets: Decode::decode(r)? },
        7 => Change::MaxGlobalId(r.u64()?),
        8 => Change::Config {
            scope: Decode::decode(r)?,
            name: Decode::decode(r)?,
            value: Decode::decode(r)?,
        },
        9 => Change::Key { key: Decode::decode(r)?, value: Decode::decode(r)? },
        10 => Change::Log(Decode::decode(r)?),
        11 => Change::Mute { code: Decode::decode(r)?, mute: Decode::decode(r)? },
        12 => Change::Metadata { daemon: Decode::decode(r)?, values: Decode::decode(r)? },
        13 => Change::MgrCommands(Decode::decode(r)?),
        14 => Change::PurgedSnaps { pool: r.i64()?, snaps: Decode::decode(r)? },
        15 => Change::GlobalIds { run: r.u64()?, count: r.u64()? },
        16 => Change::Member { id: r.u64()?, name: Decode::decode(r)? },
        17 => Change::TrimOsdMaps(r.u32()?),
        18 => Change::CreatePg { pg: Decode::decode(r)?, how: Decode::decode(r)? },
        other => {
            return Err(DecodeError::Invalid { what: "change", value: other.into() });
        }
    })
}

impl From<(EntityNameStr, EntityAuth)> for Change {
    fn from((name, auth): (EntityNameStr, EntityAuth)) -> Self {
        Self::SetAuth { name, key: auth.key, caps: auth.caps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_round_trips() {
        let name: EntityNameStr = "client.a".parse().unwrap();
        let proposal = Proposal::new(
            Duration::from_nanos(12_345),
            vec![
                Change::OsdMap(Bytes::from_static(b"o")),
                Change::MonMap(Bytes::from_static(b"m")),
                Change::MgrMap(Bytes::from_static(b"g")),
                Change::SetAuth {
                    name: name.clone(),
                    key: CryptoKey::from_secret(Duration::ZERO, [7; 16]),
                    caps: [("mon".to_owned(), "allow r".to_owned())].into(),
                },
                Change::RemoveAuth(name),
                Change::Rotate { service: 4, secrets: RotatingSecrets::default() },
                Change::MaxGlobalId(9),
                Change::Config {
                    scope: Scope::parse("osd").unwrap(),
                    name: "x".into(),
                    value: None,
                },
                Change::Key { key: "k".into(), value: Some(Bytes::from_static(b"v")) },
                Change::Log(vec![]),
                Change::Mute { code: "OSD_DOWN".into(), mute: None },
                Change::Metadata { daemon: "osd.0".into(), values: BTreeMap::new() },
                Change::MgrCommands("{}".into()),
                Change::PurgedSnaps { pool: 3, snaps: SnapIntervals([(1, 2)].into()) },
                Change::GlobalIds { run: 5, count: 7 },
                Change::Member { id: 4, name: Some("d".into()) },
                Change::TrimOsdMaps(501),
                Change::CreatePg { pg: PgId::new(1, 2), how: Some(Creating::Unless) },
                Change::CreatePg { pg: PgId::new(1, 3), how: None },
            ],
        );
        let bytes = proposal.to_bytes(Features::PACIFIC);
        assert_eq!(Proposal::from_bytes(&bytes), Ok(proposal));
        assert!((0..bytes.len()).all(|n| Proposal::from_bytes(&bytes[..n]).is_err()));
    }
}
