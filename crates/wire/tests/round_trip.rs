//! Round trips of what no fixture holds: rare messages, optional parts, and types with arbitrary
//! contents.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use proptest::prelude::*;
use spirula_wire::denc::Opaque;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpMsg, OsdOpReply, OsdOpResult, Redirect};
use spirula_wire::msg::perf::*;
use spirula_wire::msg::{
    auth::*, command::*, copies::*, mgr::*, mon::*, osd::*, pg::*, repop::*, scrub::*,
};
use spirula_wire::types::*;
use spirula_wire::{Decode, Encode, Features, Message, Payload, RawMessage, Reader};

const F: Features = Features::PACIFIC;

fn check<M: Message + PartialEq + Debug>(message: M) -> usize {
    let raw = message.to_raw(1, F);
    assert_eq!(M::from_raw(&raw), Ok(message));
    raw.payload.front.len()
}

#[test]
fn rare_messages() {
    assert_eq!(check(MonGlobalId { old_max_id: 4096, ..Default::default() }), 26);
    assert_eq!(check(MonSubscribeAck { interval: 300, fsid: Uuid([7; 16]) }), 20);
    assert_eq!(check(PgStatsAck { pg_stat: [(PgId::new(1, 2), (3, 4))].into() }), 4 + 17 + 12);
    assert_eq!(check(OsdFull { map_epoch: 9, state: 16, ..Default::default() }), 26);
    let pgs = vec![SpgId::whole(PgId::new(1, 2))];
    assert_eq!(
        check(OsdScrub2 { epoch: 5, pgs, deep: true, ..Default::default() }),
        16 + 4 + 4 + 6 + 18 + 2
    );
    let pgs = vec![PgId::new(1, 2)];
    assert_eq!(check(OsdForceRecovery { pgs, options: 5, ..Default::default() }), 16 + 4 + 17 + 1);
    assert_eq!(check(OsdMarkMeDead { target_osd: 1, epoch: 9, ..Default::default() }), 42);
    assert_eq!(check(MgrClose { daemon_name: "0".into(), service_name: "osd".into() }), 12);
    assert_eq!(check(Ping::with_text("{}")), 6);
    assert_eq!(check(Ping::default()), 0);
    check(GetConfig { name: "osd.0".parse().unwrap(), host: "h".into(), device_class: "".into() });
    check(LogAck { fsid: Uuid([1; 16]), last: 5, channel: "cluster".into() });
    check(OsdBackoff { id: 3, begin: HObject::min(), end: HObject::max(), ..Default::default() });
    let ping = OsdPing { padding: 100, delta_ub: Some(TimeSpan::default()), ..Default::default() };
    assert_eq!(check(ping), 33 + 4 + 16 + 9 + 100);
}

#[test]
fn copies_of_objects() {
    let object = HObject { oid: "o".into(), hash: 7, pool: 3, ..HObject::min() };
    let version = EVersion::new(3, 9);
    let push = ObjectPush {
        spgid: SpgId::whole(PgId::new(3, 7)),
        map_epoch: 12,
        min_epoch: 11,
        object: object.clone(),
        version,
        part: 2,
        last: true,
        data: vec!["a".into(), Bytes::new(), "b".into()],
    };
    let raw = push.to_raw(1, F);
    assert_eq!(raw.payload.data, ["a", "b"], "nothing is copied");
    let whole = ObjectPush { data: vec!["ab".into()], ..push.clone() };
    let received = Payload { data: vec!["ab".into()], ..raw.payload.clone() };
    assert_eq!(ObjectPush::from_raw(&RawMessage { payload: received, ..raw }), Ok(whole.clone()));
    check(whole);
    check(ObjectPush { data: Vec::new(), version: EVersion::default(), ..push });
    let reply = ObjectPushReply { part: 2, last: true, result: -28, ..Default::default() };
    check(ObjectPushReply { object: object.clone(), version, ..reply });
    check(ObjectPull { object: object.clone(), need: version, ..Default::default() });
    check(ObjectScan { tid: 5, after: HObject::min(), max: 512, ..Default::default() });
    let objects = vec![(object.clone(), version), (HObject::max(), EVersion::default())];
    let reply = ObjectScanReply { tid: 5, upto: object, objects, ..Default::default() };
    check(reply.clone());
    // A count that the message cannot hold.
    let mut raw = reply.to_raw(1, F);
    let mut front = raw.payload.front.to_vec();
    let at = front.len() - 4 - reply.objects.to_bytes(F).len();
    front[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    raw.payload.front = front.into();
    assert!(ObjectScanReply::from_raw(&raw).is_err());
}

#[test]
fn scrubs_of_copies() {
    let object = HObject { oid: "o".into(), hash: 7, pool: 3, ..HObject::min() };
    check(ScrubReserve { map_epoch: 12, kind: scrub_reserve::REJECT, ..Default::default() });
    check(ScrubRequest { tid: 5, upto: object.clone(), deep: true, ..Default::default() });
    check(ScrubRepair { object: object.clone(), need: EVersion::new(3, 9), ..Default::default() });
    let found = ScrubObject {
        attrs: [("_a".into(), "1".into())].into(),
        data_digest: Some(7),
        errors: shard_error::READ,
        ..Default::default()
    };
    let map = ScrubMap { objects: vec![(object, found)], result: -5, ..Default::default() };
    check(map.clone());
    // A count that the message cannot hold.
    let mut raw = map.to_raw(1, F);
    let mut front = raw.payload.front.to_vec();
    let at = front.len() - 4 - map.objects.to_bytes(F).len();
    front[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    raw.payload.front = front.into();
    assert!(ScrubMap::from_raw(&raw).is_err());
}

#[test]
fn replicated_operations() {
    let version = EVersion::new(3, 9);
    let mut entry = PgLogEntry { op: log_op::MODIFY, version, ..Default::default() };
    entry.set_store_epoch(5);
    let op = RepOp {
        spgid: SpgId::whole(PgId::new(3, 7)),
        map_epoch: 12,
        min_epoch: 11,
        reqid: RequestId { tid: 8, ..Default::default() },
        entry,
        stats: "stats".into(),
        horizon: EVersion::new(3, 8),
        trim_to: EVersion::new(2, 1),
        tx: "encoded".into(),
        data: vec!["a".into(), Bytes::new(), "b".into()],
    };
    let raw = op.to_raw(1, F);
    let pieces = raw.payload.data.iter().map(|piece| piece.as_ptr());
    assert!(pieces.eq([op.data[0].as_ptr(), op.data[2].as_ptr()]), "a piece was copied");
    let received = Payload { data: vec!["ab".into()], ..raw.payload.clone() };
    let again = RepOp::from_raw(&RawMessage { payload: received, ..raw.clone() }).unwrap();
    assert!(raw.payload.front.as_ptr_range().contains(&again.tx.as_ptr()), "copied");
    assert_eq!(again, RepOp { data: vec!["ab".into()], ..op.clone() });
    check(RepOp { data: Vec::new(), tx: Bytes::new(), ..op });
    let reply = RepOpReply { version, last_complete: version, result: -28, ..Default::default() };
    assert_eq!(check(reply), 24 + 4 + 4 + 12 + 12 + 4);
    // Numbers that no message of Ceph has.
    assert_eq!((RepOp::TYPE, RepOpReply::TYPE), (0x5310, 0x5311));
}

#[test]
fn log_entries_of_every_kind() {
    let entry = |op| {
        let mut e = PgLogEntry {
            op,
            version: EVersion::new(3, 7),
            prior_version: EVersion::new(2, 5),
            reverting_to: if op == log_op::LOST_REVERT {
                EVersion::new(1, 4)
            } else {
                Default::default()
            },
            extra_reqids: vec![(RequestId::default(), 9)],
            extra_results: [(0, -2)].into(),
            result: -17,
            returns: vec![(1, "out".into())],
            ..Default::default()
        };
        e.set_store_epoch(77);
        e
    };
    for op in [log_op::MODIFY, log_op::LOST_REVERT, log_op::ERROR] {
        assert_eq!(PgLogEntry::from_bytes(&entry(op).to_bytes(F)), Ok(entry(op)));
    }
    assert_eq!(entry(log_op::CLONE).store_epoch(), Some(77));
    let item = MissingItem { flags: MissingItem::DELETE, ..Default::default() };
    let log = PgLogMsg { entries: vec![entry(log_op::DELETE)], ..Default::default() };
    let missing = PgMissing { items: [(HObject::min(), item)].into(), may_include_deletes: true };
    check(OsdPgLog { log, missing, lease: Some(PgLease::default()), ..Default::default() });
    let ack = Some(PgLeaseAck::default());
    check(OsdPgInfo2 { lease_ack: ack, info: PgInfo::default(), ..Default::default() });
    check(OsdPgScan { op: scan_op::DIGEST, ..Default::default() }.with_objects(&[].into()));
}

#[test]
fn optional_parts() {
    assert_eq!(check(MgrOpen { daemon_name: "0".into(), ..Default::default() }), 5 + 4 + 1 + 8);
    let service = ServiceDaemon {
        metadata: [("a".into(), "b".into())].into(),
        status: [("c".into(), "d".into())].into(),
    };
    check(MgrOpen { service: Some(service), config: "x".into(), ..Default::default() });
    let levels = [(config_level::MON, "1".to_owned()), (config_level::FILE, "2".to_owned())];
    let config = DaemonConfig {
        values: [("o".to_owned(), levels.into())].into(),
        ignored: [("p".to_owned(), "3".to_owned())].into(),
    };
    // Counts of four bytes, strings of four and their length, levels of four: no version in front.
    let bytes = config.to_bytes(F);
    assert_eq!(bytes.len(), 4 + 5 + 4 + 2 * (4 + 5) + 4 + 5 + 5);
    assert_eq!(DaemonConfig::from_bytes(&bytes), Ok(config));
    check(PoolOpReply::default().with_snap(SnapId(5)));
    let redirect = Redirect { locator: ObjectLocator::pool(7), object: "o".into() };
    check(OsdOpReply { redirect: Some(redirect), ..Default::default() });
    // Before the channel was added.
    let mut raw = LogAck { last: 5, ..Default::default() }.to_raw(0, F);
    raw.payload.front.truncate(24);
    assert_eq!(LogAck::from_raw(&raw).unwrap().last, 5);
}

#[test]
fn perf_queries() {
    let query = OsdPerfQuery {
        key_descriptor: VarVec(vec![OsdPerfSubKey { type_: 2, regex: "^(.+)$".into() }]),
        counters: VarVec(vec![OsdPerfCounter { type_: 1 }; 200]),
    };
    // A count of 200 needs two bytes.
    assert_eq!(query.counters.to_bytes(F)[..2], [0xc8, 0x01]);
    let limit = OsdPerfLimit { order_by: OsdPerfCounter { type_: 0 }, max_count: 10 };
    check(MgrConfigure {
        stats_period: 5,
        osd_perf_metric_queries: [(query.clone(), [limit].into())].into(),
        metric_config: Some(MetricMessage { type_: 1, payload: Opaque::default() }),
        ..Default::default()
    });
    let groups = [(vec![vec!["rbd".into()]], Bytes::from("packed"))].into();
    let report = OsdPerfReport { counters: VarVec::default(), groups };
    check(MgrReport {
        osd_perf_metric_reports: [(query, report)].into(),
        task_status: Some([("scrub".into(), "idle".into())].into()),
        ..Default::default()
    });
}

#[test]
fn a_hostile_varint_count_is_refused() {
    for bytes in [&[0xff; 4][..], &[0xff; 9], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
        assert!(VarVec::<OsdPerfCounter>::from_bytes(bytes).is_err());
    }
}

#[test]
fn packed_counters() {
    let values = [
        (counter_type::U64, PerfValue::Single(3)),
        (
            counter_type::TIME | counter_type::LONGRUNAVG,
            PerfValue::Average { sum: 9, count: 2, count2: 2 },
        ),
    ];
    let mut packed = Vec::new();
    values.iter().for_each(|(_, v)| v.pack(&mut packed));
    assert_eq!(packed.len(), 32);
    let mut r = Reader::new(&packed);
    for (type_, value) in values {
        assert_eq!(PerfValue::unpack(type_, &mut r), Ok(value));
    }
}

#[test]
fn latencies_are_milliseconds_to_old_peers() {
    let stat = StorePerfStat { commit_latency_ns: 5_500_000, apply_latency_ns: 1 };
    let old = StorePerfStat::from_bytes(&stat.to_bytes(F)).unwrap();
    assert_eq!(old, StorePerfStat { commit_latency_ns: 5_000_000, apply_latency_ns: 0 });
    let new = Features(F.0 | spirula_wire::features::OS_PERF_STAT_NS);
    assert_eq!(StorePerfStat::from_bytes(&stat.to_bytes(new)), Ok(stat));
}

#[test]
fn pg_states() {
    let mut stat = PgStat::default();
    stat.set_state(pg_state::ACTIVE | pg_state::CLEAN | pg_state::WAIT);
    assert_eq!((stat.state_low, stat.state_high), (6, 4));
    assert_eq!(pg_state::name(stat.state()), "active+clean+wait");
    assert_eq!(pg_state::name(0), "unknown");
}

fn name() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from)
}

fn object() -> impl Strategy<Value = HObject> {
    let ids = (any::<u64>(), any::<u32>(), 0i64..4);
    (name(), name(), name(), ids).prop_map(|(key, oid, nspace, (snap, hash, pool))| HObject {
        key,
        oid,
        snap: SnapId(snap),
        hash,
        max: false,
        nspace,
        pool,
    })
}

fn address() -> impl Strategy<Value = EntityAddr> {
    let socket = (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port));
    (0u32..5, any::<u32>(), proptest::option::of(socket))
        .prop_map(|(type_, nonce, addr)| EntityAddr { type_: AddrType(type_), nonce, addr })
}

fn op() -> impl Strategy<Value = OsdOp> {
    let code = prop_oneof![any::<u16>(), 0x1201u16..0x1221, 0x2201u16..0x2230, 0x1301u16..0x1304];
    (code, any::<u32>(), any::<[u8; 28]>(), name()).prop_map(|(code, flags, raw, indata)| {
        // Through the wire once, so that the arguments are those of the code.
        let raw_op = OsdOp { code: OpCode(code), flags, args: OpArgs::Raw(raw), indata };
        let message = OsdOpMsg { ops: vec![raw_op], ..Default::default() };
        OsdOpMsg::from_raw(&message.to_raw(0, F)).unwrap().ops.remove(0)
    })
}

proptest! {
    #[test]
    fn objects(o in object()) {
        prop_assert_eq!(HObject::from_bytes(&o.to_bytes(F)), Ok(o));
    }

    #[test]
    fn objects_are_totally_ordered(a in object(), b in object()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a.cmp(&b).is_eq(), a == b);
        prop_assert!(HObject::min() <= a && a < HObject::max());
    }

    #[test]
    fn addresses(v in proptest::collection::vec(address(), 0..4)) {
        let v = EntityAddrVec(v);
        prop_assert_eq!(EntityAddrVec::from_bytes(&v.to_bytes(F)), Ok(v.clone()));
        let legacy = v.to_bytes(Features(0));
        prop_assert_eq!(legacy.len(), 136);
        let back = EntityAddrVec::from_bytes(&legacy).unwrap();
        prop_assert_eq!(back.front().addr, v.legacy().addr);
    }

    #[test]
    fn addresses_as_text(a in address()) {
        let printable = matches!(a.type_, AddrType::LEGACY | AddrType::MSGR2 | AddrType::ANY);
        if printable && a.addr.is_some() {
            prop_assert_eq!(a.to_string().parse::<EntityAddr>(), Ok(a));
        }
    }

    #[test]
    fn requests(
        ops in proptest::collection::vec(op(), 0..6),
        o in object(),
        ids: (u64, u32, i32),
    ) {
        let request = OsdOpMsg {
            spgid: SpgId { pgid: PgId::new(o.pool, ids.1), shard: ShardId(3) },
            hash: o.hash,
            reqid: RequestId { name: EntityName::client(4), tid: ids.0, inc: ids.2 },
            locator: ObjectLocator {
                key: o.key.clone(),
                nspace: o.nspace.clone(),
                ..ObjectLocator::pool(o.pool)
            },
            oid: o.oid.clone(),
            snap: o.snap,
            snapc: SnapContext { seq: SnapId(9), snaps: vec![SnapId(9), SnapId(2)] },
            retry_attempt: ids.2,
            ops,
            ..Default::default()
        };
        let raw = request.to_raw(ids.0, F);
        prop_assert_eq!(OsdOpMsg::from_raw(&raw), Ok(request.clone()));
        // A reply with each input as output.
        let mut reply = OsdOpReply::to(&request, -2, ids.1);
        for (result, op) in reply.ops.iter_mut().zip(&request.ops) {
            *result = OsdOpResult::of(op, ids.2);
            result.outdata.extend(Some(op.indata.clone()).filter(|d| !d.is_empty()));
        }
        prop_assert_eq!(OsdOpReply::from_raw(&reply.to_raw(ids.0, F)), Ok(reply));
    }

    #[test]
    fn random_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        use spirula_wire::fuzzing::*;
        types(&data);
        mon_messages(&data);
        auth_messages(&data);
        command_messages(&data);
        osd_messages(&data);
        osd_op_messages(&data);
        mgr_messages(&data);
        copies_messages(&data);
        repop_messages(&data);
    }
}
