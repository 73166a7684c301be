//! The replicated operation, between the OSDs of a placement group: of our own, in place of Ceph's
//! `osd_repop` (`docs/protocol-osd.md`).

use bytes::Bytes;

use crate::denc::Features;
use crate::message::{PRIO_HIGH, check_compat};
use crate::msg::types;
use crate::types::{EVersion, PgLogEntry, RequestId, SpgId};
use crate::{Decode, DecodeError, Encode, Header, Message, Payload, Reader};

/// `rep_op`: the transaction of one log entry, for the receiver to commit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RepOp {
    pub spgid: SpgId,
    pub map_epoch: u32,
    /// Older than this receiver's interval: void.
    pub min_epoch: u32,
    /// The request; what is replicated without one has none.
    pub reqid: RequestId,
    pub entry: PgLogEntry,
    /// Counters of the PG after it, as `spirula-osd` stores them.
    pub stats: Bytes,
    /// Every acting copy holds the log up to here.
    pub horizon: EVersion,
    /// Up to here the log may be cut.
    pub trim_to: EVersion,
    /// As `spirula-vos` encodes it; a slice of the front segment when received.
    pub tx: Bytes,
    /// Long values of the transaction; one buffer when received.
    pub data: Vec<Bytes>,
}

impl Message for RepOp {
    const TYPE: u16 = types::REP_OP;
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;
    const PRIORITY: u16 = PRIO_HIGH;

    fn encode_payload(&self, f: Features) -> Payload {
        let mut out = Vec::with_capacity(512 + self.tx.len());
        self.spgid.encode(&mut out, f);
        self.map_epoch.encode(&mut out, f);
        self.min_epoch.encode(&mut out, f);
        self.reqid.encode(&mut out, f);
        self.entry.encode(&mut out, f);
        self.stats.encode(&mut out, f);
        self.horizon.encode(&mut out, f);
        self.trim_to.encode(&mut out, f);
        out.extend_from_slice(&self.tx);
        Payload {
            front: out.into(),
            data: self.data.iter().filter(|piece| !piece.is_empty()).cloned().collect(),
            ..Payload::default()
        }
    }

    fn decode_payload(header: &Header, payload: &Payload) -> Result<Self, DecodeError> {
        check_compat::<Self>("RepOp", header)?;
        let mut r = Reader::new(&payload.front);
        Ok(Self {
            spgid: SpgId::decode(&mut r)?,
            map_epoch: r.u32()?,
            min_epoch: r.u32()?,
            reqid: RequestId::decode(&mut r)?,
            entry: PgLogEntry::decode(&mut r)?,
            stats: Bytes::decode(&mut r)?,
            horizon: EVersion::decode(&mut r)?,
            trim_to: EVersion::decode(&mut r)?,
            tx: payload.front.slice(payload.front.len() - r.remaining()..),
            data: Some(payload.data_bytes()).filter(|data| !data.is_empty()).into_iter().collect(),
        })
    }
}

/// `rep_op_reply`: the transaction is durable at the sender, or why it never will be.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::REP_OP_REPLY, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct RepOpReply {
    pub spgid: SpgId,
    pub map_epoch: u32,
    /// Older than this receiver's interval: void.
    pub min_epoch: u32,
    /// Of the entry; with it all before it are durable.
    pub version: EVersion,
    /// Up to here the sender misses no object.
    pub last_complete: EVersion,
    /// 0, or a negative error.
    pub result: i32,
}
