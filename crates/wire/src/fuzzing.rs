//! The doors for fuzz targets and captured-message tests: one function for each family of messages.
//!
//! Each asserts that whatever decodes also encodes, and decodes again to the same bytes.

use bytes::Bytes;

use crate::msg::perf::{OsdPerfQueries, OsdPerfReports};
use crate::msg::repop::{RepOp, RepOpReply};
use crate::msg::{auth, command, copies, mgr, mon, osd, osd_op, pg, repop, scrub};
use crate::types::{
    CopyData, EVersion, EntityAddr, EntityAddrVec, EntityNameStr, HObject, ListSnapsResponse,
    ListWatchResponse, ObjectLocator, OsdStat, OsdSuperblock, PastIntervals, PgInfo, PgLogEntry,
    PgLogMsg, PgMissing, PgNlsResponse, PgStat, PoolStat, RequestId, ScrubListArgs, SpgId,
};
use crate::{Decode, DecodeError, Encode, Features, Header, Message, Payload, RawMessage};

macro_rules! families {
    ($($family:ident { $($module:ident: $($m:ident)*;)* })*) => {
        $(
            /// Decodes `data` as some message of this family.
            pub fn $family(data: &[u8]) {
                const TYPES: &[u16] = &[$($($module::$m::TYPE,)*)*];
                check_message(TYPES, data);
            }
        )*

        /// The input with which its family's function sees `raw`; `None` if there is none.
        pub fn input_of(raw: &RawMessage) -> Option<Vec<u8>> {
            const FAMILIES: &[&[u16]] = &[$(&[$($($module::$m::TYPE,)*)*]),*];
            FAMILIES.iter().find_map(|types| input_in(types, raw))
        }

        /// Decodes a message and encodes it again; `None` if no struct has its number.
        pub fn reencode(raw: &RawMessage) -> Option<Result<RawMessage, DecodeError>> {
            match raw.header.type_ {
                $($($($module::$m::TYPE => Some(again::<$module::$m>(raw)),)*)*)*
                _ => None,
            }
        }
    };
}

families! {
    auth_messages { auth: Auth AuthReply MonGlobalId; }
    command_messages { command: Command CommandReply Ping; }
    mon_messages {
        mon: MonGetMap MonGetOsdMap MonMapMsg MonSubscribe MonSubscribeAck MonCommand MonCommandAck MonGetVersion MonPeer
            MonGetVersionReply Statfs StatfsReply GetPoolStats GetPoolStatsReply PoolOp PoolOpReply
            Config GetConfig Log LogAck;
    }
    osd_messages {
        osd: OsdMapMsg OsdBoot OsdAlive OsdBeacon OsdFailure OsdMarkMeDown OsdMarkMeDead OsdFull
            OsdPgTemp OsdPgCreated OsdPgCreate2 PgStats PgStatsAck OsdBackoff WatchNotify OsdPing
            MonGetPurgedSnaps MonGetPurgedSnapsReply OsdScrub2 OsdForceRecovery;
    }
    osd_op_messages { osd_op: OsdOpMsg OsdOpReply; }
    pg_messages {
        pg: OsdPgNotify2 OsdPgNotify OsdPgQuery2 OsdPgInfo2 OsdPgLog OsdPgLease OsdPgLeaseAck OsdPgTrim
            OsdPgRemove BackfillReserve RecoveryReserve OsdPgScan OsdPgBackfill;
    }
    copies_messages {
        copies: ObjectPush ObjectPushReply ObjectPull ObjectScan ObjectScanReply;
        scrub: ScrubReserve ScrubRequest ScrubMap ScrubRepair;
    }
    repop_messages { repop: RepOp RepOpReply; }
    mgr_messages {
        mgr: MgrMapMsg ServiceMapMsg MgrBeacon MgrOpen MgrConfigure MgrReport MgrClose MgrCommand
            MgrCommandReply MonMgrReport MgrDigest;
    }
}

/// Decodes `data` as each of the larger types.
pub fn types(data: &[u8]) {
    check_type::<EntityAddr>(data);
    check_type::<EntityAddrVec>(data);
    check_type::<EntityNameStr>(data);
    check_type::<HObject>(data);
    check_type::<ObjectLocator>(data);
    check_type::<RequestId>(data);
    check_type::<SpgId>(data);
    check_type::<OsdStat>(data);
    check_type::<PgStat>(data);
    check_type::<PgLogMsg>(data);
    check_type::<PgMissing>(data);
    check_type::<PastIntervals>(data);
    check_type::<PgInfo>(data);
    check_type::<PoolStat>(data);
    check_type::<OsdSuperblock>(data);
    check_type::<PgNlsResponse>(data);
    check_type::<CopyData>(data);
    check_type::<ScrubListArgs>(data);
    check_type::<ListWatchResponse>(data);
    check_type::<ListSnapsResponse>(data);
    check_type::<OsdPerfQueries>(data);
    check_type::<OsdPerfReports>(data);
}

fn again<M: Message>(raw: &RawMessage) -> Result<RawMessage, DecodeError> {
    Ok(M::from_raw(raw)?.to_raw(raw.header.tid, Features::PACIFIC))
}

fn check_type<T: Encode + Decode>(data: &[u8]) {
    if let Ok(value) = T::from_bytes(data) {
        let once = value.to_bytes(Features::PACIFIC);
        let twice = T::from_bytes(&once).map(|v| v.to_bytes(Features::PACIFIC));
        assert_eq!(twice.as_ref(), Ok(&once));
        // The legacy form may lose something, but must not fail.
        let _ = T::from_bytes(&value.to_bytes(Features::default()));
    }
}

/// Of `data`, the first four bytes choose the message, its version and where its data begins.
fn check_message(types: &[u16], data: &[u8]) {
    let Some((&[which, version, split_high, split_low], body)) = data.split_first_chunk() else {
        return;
    };
    let split = usize::from(u16::from_be_bytes([split_high, split_low])).min(body.len());
    let (front, data) = body.split_at(split);
    let header = Header {
        type_: types[usize::from(which) % types.len()],
        version: version.into(),
        ..Header::default()
    };
    let data = Some(Bytes::copy_from_slice(data)).filter(|d| !d.is_empty());
    let front = Bytes::copy_from_slice(front);
    let payload = Payload { front, data: data.into_iter().collect(), ..Payload::default() };
    check_raw(&RawMessage { header, payload });
}

fn input_in(types: &[u16], raw: &RawMessage) -> Option<Vec<u8>> {
    let which = types.iter().position(|t| *t == raw.header.type_)?;
    let split = u16::try_from(raw.payload.front.len()).ok()?;
    let mut input = vec![u8::try_from(which).ok()?, u8::try_from(raw.header.version).ok()?];
    input.extend_from_slice(&split.to_be_bytes());
    input.extend_from_slice(&raw.payload.front);
    input.extend_from_slice(&raw.payload.data_bytes());
    Some(input)
}

/// Decodes `raw`, whatever it is, and checks that its own encoding is stable.
pub fn check_raw(raw: &RawMessage) {
    if let Some(Ok(once)) = reencode(raw) {
        match reencode(&once) {
            Some(Ok(twice)) => {
                assert_eq!(once.payload.front, twice.payload.front);
                assert_eq!(once.payload.data_bytes(), twice.payload.data_bytes());
            }
            other => assert!(other.is_none(), "own encoding does not decode: {other:?}"),
        }
    }
}

/// Messages of our own, which nobody captured, with the name of their target.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    use copies::{ObjectPull, ObjectPush, ObjectPushReply, ObjectScan, ObjectScanReply};
    let object = || HObject { oid: "o".into(), hash: 7, pool: 3, ..HObject::min() };
    let version = EVersion::new(3, 9);
    let f = Features::PACIFIC;
    let push = ObjectPush { object: object(), version, ..ObjectPush::default() };
    let reply = ObjectPushReply { object: object(), version, result: -5, ..Default::default() };
    let pull = ObjectPull { object: object(), need: version, ..ObjectPull::default() };
    let scan = ObjectScan { after: object(), max: 9, tid: 1, ..ObjectScan::default() };
    let objects = vec![(object(), version), (HObject::max(), version)];
    let scanned = ObjectScanReply { upto: object(), objects, tid: 1, ..Default::default() };
    let part = ObjectPush { part: 1, last: true, data: vec!["data".into()], ..push.clone() };
    let all = [
        push.to_raw(0, f),
        part.to_raw(0, f),
        reply.to_raw(0, f),
        pull.to_raw(0, f),
        scan.to_raw(0, f),
        scanned.to_raw(0, f),
    ];
    let copies = all.iter().filter_map(|raw| Some(("wire_copies", input_of(raw)?)));
    copies.chain(repop_seeds()).collect()
}

fn repop_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let version = EVersion::new(3, 9);
    let object = HObject { oid: "o".into(), hash: 7, pool: 3, ..HObject::min() };
    let mut entry = PgLogEntry { op: 1, object, version, user_version: 9, ..Default::default() };
    entry.set_store_epoch(77);
    let short = RepOp { entry, horizon: version, tx: "tx".into(), ..RepOp::default() };
    let long = RepOp { stats: "stats".into(), data: vec!["data".into()], ..short.clone() };
    let reply = RepOpReply { version, result: -5, ..RepOpReply::default() };
    let f = Features::PACIFIC;
    let all = [short.to_raw(0, f), long.to_raw(0, f), reply.to_raw(0, f)];
    all.iter().filter_map(|raw| Some(("wire_repop", input_of(raw)?))).collect()
}
