//! Pools: commands as a monitor of 16.2.15 answered them, snapshots by message, quotas.

use spirula_maps::{PgMapDigest, SnapIntervals, pool_flags};
use spirula_mon::State;
use spirula_wire::msg::mgr::MonMgrReport;
use spirula_wire::msg::mon::{PoolOp, PoolOpReply, pool_op};
use spirula_wire::msg::osd::{MonGetPurgedSnaps, MonGetPurgedSnapsReply};
use spirula_wire::types::{PoolStat, SnapId, pg_state};
use spirula_wire::{Decode, Encode, Message};

use crate::harness::{F, FSID, Mon};

const MEASURED: &str = include_str!("pools.tsv");

#[test]
fn commands_answer_as_in_ceph() {
    let mut mon = Mon::new(1);
    let id = mon.admin();
    // As where it was measured.
    let off = r#"{"prefix":"config set","who":"mon","name":"osd_pool_default_pg_autoscale_mode","value":"off"}"#;
    mon.ok(id, off);
    answers_as(&mut mon, id, MEASURED);
}

#[test]
fn copies_are_bounded_as_in_ceph() {
    let mut mon = Mon::new(3).without_option("mon allow pool size one");
    let id = mon.admin();
    mon.ok(
        id,
        r#"{"prefix":"config set","who":"mon","name":"mon_allow_pool_size_one","value":"true"}"#,
    );
    answers_as(&mut mon, id, include_str!("pool_sizes.tsv"));
}

/// PGs of several copies are split and not merged yet.
#[test]
fn pg_num_of_replicated_pools_grows() {
    let mut mon = Mon::new(3);
    let id = mon.admin();
    mon.ok(id, r#"{"prefix":"osd pool create","pool":"r","pg_num":8,"size":2}"#);
    let set = |var: &str, val: u32| {
        format!(r#"{{"prefix":"osd pool set","pool":"r","var":"{var}","val":"{val}"}}"#)
    };
    let refused = mon.command(id, &set("pg_num", 4));
    assert_eq!((refused.0, refused.1.contains("size 2")), (-95, true), "{refused:?}");
    assert_eq!(mon.ok(id, &set("pg_num", 8)), "");
    assert_eq!(mon.ok(id, &set("pg_num", 16)), "set pool 2 pg_num to 16");
    let pool = &mon.map().pools[&2];
    assert_eq!((pool.pg_num_target, pool.pgp_num_target), (16, 16));
    assert_eq!(mon.ok(id, &set("pgp_num", 4)), "set pool 2 pgp_num to 4");
}

/// Compares with answers that were measured.
pub(crate) fn answers_as(mon: &mut Mon, id: u64, measured: &str) {
    let mut wrong = Vec::new();
    for line in measured.lines().filter(|line| !line.starts_with('#')) {
        let [command, code, status, out] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line:?}");
        };
        let plain = |text: &str| text.replace("\\n", "\n").replace("\\\\", "\\");
        let want = (code.parse().unwrap(), plain(status), plain(out));
        let got = mon.command(id, command);
        if got != want {
            wrong.push(format!("{command}\n  want {want:?}\n  got  {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
}

struct Asker {
    mon: Mon,
    session: u64,
    pool: u32,
}

impl Asker {
    /// Asks as librados does; returns the result and the id in the reply.
    fn ask(&mut self, op: u32, name: &str, snap: u64) -> (i32, Option<u64>) {
        let epoch = self.mon.map().epoch;
        let (name, snapid) = (name.to_owned(), SnapId(snap));
        let request = PoolOp { fsid: FSID, pool: self.pool, op, name, snapid, ..PoolOp::default() };
        self.mon.send(self.session, &request);
        let reply: PoolOpReply = self.mon.take_one(self.session);
        // The client waits for this epoch, which is there when it is told.
        assert_eq!(reply.epoch, self.mon.map().epoch);
        assert!(reply.epoch - epoch <= 1);
        let id = reply.response_data.map(|d| u64::from_le_bytes(d[..].try_into().unwrap()));
        (reply.reply_code, id)
    }

    fn create(&mut self) -> (i32, Option<u64>) {
        self.ask(pool_op::CREATE_UNMANAGED_SNAP, "", 0)
    }

    fn delete(&mut self, snap: u64) -> i32 {
        self.ask(pool_op::DELETE_UNMANAGED_SNAP, "", snap).0
    }

    fn queue(&self) -> SnapIntervals {
        let queue = &self.mon.map().removed_snaps_queue;
        queue.get(&self.pool.into()).cloned().unwrap_or_default()
    }

    /// The manager reports PGs that are well, and others.
    fn report_pgs(&mut self, clean: i32, peering: i32) {
        let states = [(pg_state::ACTIVE | pg_state::CLEAN, clean), (pg_state::PEERING, peering)];
        let num_pg_by_state = states.into_iter().filter(|(_, n)| *n > 0).collect();
        let num_pg = i64::from(clean + peering);
        let digest = PgMapDigest { num_pg, num_pg_by_state, ..PgMapDigest::default() };
        let mgr = self.mon.manager();
        let digest = digest.to_bytes(F).into();
        self.mon.send(mgr, &MonMgrReport { digest, gid: 4711, ..MonMgrReport::default() });
        self.mon.pass(1);
    }

    /// The manager reports that all PGs of the pool have purged these, and how full it is.
    fn report(&mut self, purged: &[(u64, u64)], objects: i64, bytes: i64) {
        let mut digest = PgMapDigest::default();
        let snaps = SnapIntervals(purged.iter().copied().collect());
        digest.purged_snaps.insert(self.pool.into(), snaps);
        let mut stat = PoolStat::default();
        (stat.stats.sum.num_objects, stat.stats.sum.num_bytes) = (objects, bytes);
        digest.pg_pool_sum.insert(self.pool as i32, stat);
        let mgr = self.mon.manager();
        let report = MonMgrReport {
            digest: digest.to_bytes(F).into(),
            gid: 4711,
            ..MonMgrReport::default()
        };
        self.mon.send(mgr, &report);
        self.mon.pass(1);
    }
}

fn asker() -> Asker {
    let mut mon = Mon::new(1);
    let session = mon.admin();
    Asker { mon, session, pool: 1 }
}

/// Results, ids and sequence numbers are those of a 16.2.15 cluster for the same steps.
#[test]
fn clients_manage_snapshots() {
    let mut a = asker();
    assert_eq!(a.delete(1), -95);
    assert_eq!([a.create(), a.create()], [(0, Some(2)), (0, Some(3))]);
    let pool = &a.mon.map().pools[&1];
    assert_eq!((pool.snap_seq, pool.snap_epoch), (3, a.mon.map().epoch));
    assert!(pool.has_flag(pool_flags::SELFMANAGED_SNAPS));
    assert_eq!(a.ask(pool_op::CREATE_SNAP, "x", 0).0, -22);
    assert_eq!(a.ask(pool_op::DELETE_SNAP, "x", 0).0, -22);
    let refused = r#"{"prefix":"osd pool mksnap","pool":"rbd","snap":"x"}"#;
    let text = "pool rbd is in unmanaged snaps mode".to_owned();
    assert_eq!(a.mon.command(a.session, refused), (-22, text, String::new()));
    assert_eq!([2, 2, 99, 1, 0].map(|snap| a.delete(snap)), [0, 0, -2, 0, 0]);
    assert_eq!(a.queue().0, [(0, 3)].into());
    assert_eq!(a.create(), (0, Some(7)));
    a.pool = 77;
    assert_eq!([a.create(), (a.delete(1), None)], [(-2, None); 2]);
    assert_eq!(a.ask(pool_op::AUID_CHANGE, "", 0).0, -2);
    a.pool = 1;
    assert_eq!(a.ask(pool_op::AUID_CHANGE, "", 0).0, -95);
    assert_eq!(a.ask(0x99, "", 0).0, -22);
}

#[test]
fn purged_snapshots_leave_the_queue_and_stay_removed() {
    let mut a = asker();
    assert_eq!([(); 4].map(|()| a.create().0), [0; 4]);
    assert_eq!([2, 3, 4].map(|snap| a.delete(snap)), [0; 3]);
    a.report(&[(2, 1), (4, 1), (90, 3)], 0, 0);
    assert_eq!(a.queue().0, [(3, 1)].into());
    let purged = SnapIntervals([(2, 1), (4, 1)].into());
    assert_eq!(a.mon.map().new_purged_snaps, [(1, purged)].into());
    // A digest that is older than the map changes nothing.
    let epoch = a.mon.map().epoch;
    a.mon.pass(3);
    assert_eq!(a.mon.map().epoch, epoch);
    let Asker { mon, .. } = a;
    let mut mon = mon.restart();
    let session = mon.admin();
    let mut a = Asker { mon, session, pool: 1 };
    // Gone snapshots, and ids that only removals took.
    assert_eq!([2, 4, 6, 8].map(|snap| a.delete(snap)), [0; 4]);
    assert_eq!((a.mon.map().epoch, a.queue().0), (epoch, [(3, 1)].into()));
    // What a removed pool leaves behind is dropped.
    a.mon.ok(
        session,
        r#"{"prefix":"osd pool rm","pool":"rbd","pool2":"rbd","yes_i_really_really_mean_it":true}"#,
    );
    a.mon.pass(1);
    assert!(a.mon.map().removed_snaps_queue.is_empty());
    assert!(a.mon.service.state().purged_snaps.is_empty());
}

/// As a 16.2.15 OSD asks that begins after the first maps are gone: until no epoch is left.
#[test]
fn osds_are_told_what_was_purged() {
    let mut a = asker();
    assert_eq!([(); 4].map(|()| a.create().0), [0; 4]);
    assert_eq!([2, 3, 4].map(|snap| a.delete(snap)), [0; 3]);
    a.report(&[(2, 1)], 0, 0);
    let first = a.mon.map().epoch;
    a.report(&[(2, 3)], 0, 0);
    let second = a.mon.map().epoch;
    assert!(first < second);
    let (osd, admin) = (a.mon.boot(0), a.session);
    let mut ask = |session, start, last| {
        a.mon.take(session);
        a.mon.send(session, &MonGetPurgedSnaps { start, last, ..MonGetPurgedSnaps::default() });
        a.mon.take(session)
    };
    for (start, last, until, purged) in [
        (1, 100, second, vec![(first, (2, 1)), (second, (3, 2))]),
        (1, first, first, vec![(first, (2, 1))]),
        (first + 1, 100, second, vec![(second, (3, 2))]),
        (second + 1, 100, 100, vec![]),
        (9, 1, 1, vec![]),
    ] {
        let got = MonGetPurgedSnapsReply::from_raw(&ask(osd, start, last)[0]).unwrap();
        let of_pool = |(epoch, snaps)| (epoch, [(1, vec![snaps])].into());
        let purged_snaps = purged.into_iter().map(of_pool).collect();
        let paxos = got.paxos;
        let want = MonGetPurgedSnapsReply { paxos, start, last: until, purged_snaps };
        assert_eq!(got, want, "{start} to {last}");
    }
    assert_eq!(ask(admin, 1, 100), []);
    // What maps told that are gone comes with the oldest one, beside ids that removals took.
    a.mon.churn(admin, 600);
    let epoch = a.mon.map().epoch;
    a.mon.beacon(osd, epoch);
    a.mon.pass(1);
    let oldest = a.mon.service.state().osd.oldest();
    assert!(oldest > second);
    let of_all = |mon: &mut Mon, start| {
        mon.take(osd);
        mon.send(osd, &MonGetPurgedSnaps { start, last: 1000, ..MonGetPurgedSnaps::default() });
        let MonGetPurgedSnapsReply { last, purged_snaps, .. } = mon.take_one(osd);
        (last, purged_snaps)
    };
    let all = [(oldest, [(1, vec![(2, 3), (6, 3)])].into())].into();
    assert_eq!(of_all(&mut a.mon, 1), (oldest, all));
    assert_eq!(of_all(&mut a.mon, oldest + 1), (1000, [].into()));
}

#[test]
fn a_pool_has_snapshots_of_its_own() {
    let mut a = asker();
    assert_eq!(a.ask(pool_op::CREATE_SNAP, "s1", 0), (0, None));
    assert_eq!(a.ask(pool_op::CREATE_SNAP, "s1", 0), (0, None));
    assert_eq!(a.ask(pool_op::CREATE_SNAP, "s2", 0), (0, None));
    assert_eq!([a.create().0, a.delete(1)], [-22, -22]);
    assert_eq!(a.ask(pool_op::DELETE_SNAP, "s1", 0), (0, None));
    assert_eq!(a.ask(pool_op::DELETE_SNAP, "s1", 0), (0, None));
    let pool = &a.mon.map().pools[&1];
    assert_eq!((pool.snap_seq, pool.snaps.len()), (3, 1));
    assert!(pool.has_flag(pool_flags::POOL_SNAPS));
    assert_eq!(a.queue().0, [(1, 1)].into());
    (0..14).for_each(|n| assert_eq!(a.ask(pool_op::CREATE_SNAP, &format!("n{n}"), 0).0, 0));
    assert_eq!(a.ask(pool_op::DELETE_SNAP, "n7", 0).0, 0);
    let dump = a.mon.ok(a.session, r#"{"prefix":"osd pool ls","detail":"detail"}"#);
    let lines: Vec<&str> = dump.lines().filter(|line| line.starts_with('\t')).collect();
    assert!(lines[0].starts_with("\tsnap 2 's2' 2026-"), "{dump}");
    assert!(lines[13].starts_with("\tsnap 11 'n13' 2026-"), "{dump}");
    assert_eq!(lines[14..], ["\tremoved_snaps_queue [1~1,b~1]"]);
}

/// As a 16.2.15 monitor let users with these capabilities create a snapshot id.
#[test]
fn snapshot_ids_are_had_by_capabilities_of_osds() {
    for (mon_caps, osd_caps, want) in [
        ("allow r", "profile rbd", 0),
        ("allow r", "profile rbd pool=rbd", 0),
        ("allow r", "profile rbd pool=other", -1),
        ("allow r", "profile rbd-read-only", -1),
        ("allow r", "profile rbd pool=rbd namespace=ns", 0),
        ("allow r", "allow r", -1),
        ("allow r", "allow rw", 0),
        ("allow r", "allow rw namespace=ns", -1),
        ("allow r", "allow rw tag rbd data=x", -1),
        ("allow r", "allow rw object_prefix foo", -1),
        ("allow r", "allow class rbd x", -1),
        ("allow rw", "allow r", 0),
        ("allow r, allow command \"osd pool op unmanaged-snap\"", "allow r", 0),
        ("allow r, allow command \"osd pool op unmanaged-snap\" with poolname=rbd", "allow r", 0),
        ("allow r, allow command \"osd pool op unmanaged-snap\" with poolname=x", "allow r", -1),
        ("profile rbd", "", -1),
    ] {
        let mut a = asker();
        let command = serde_json::json!({"prefix": "auth add", "entity": "client.u", "caps":
            if osd_caps.is_empty() { vec!["mon", mon_caps] }
            else { vec!["mon", mon_caps, "osd", osd_caps] }});
        a.mon.ok(a.session, &command.to_string());
        a.session = a.mon.session("client.u", mon_caps);
        assert_eq!(a.create().0, want, "{mon_caps:?} {osd_caps:?}");
    }
}

#[test]
fn a_pool_is_full_while_its_quota_is_reached() {
    let mut a = asker();
    let quota = |field: &str, value: u64| {
        format!(
            r#"{{"prefix":"osd pool set-quota","pool":"rbd","field":"{field}","val":"{value}"}}"#
        )
    };
    a.mon.ok(a.session, &quota("max_objects", 2));
    let flags = |a: &Asker| pool_flags::names(a.mon.map().pools[&1].flags & !pool_flags::CREATING);
    a.report(&[], 1, 10);
    assert_eq!(flags(&a), "hashpspool");
    a.report(&[], 2, 10);
    assert_eq!(flags(&a), "hashpspool,full,full_quota");
    let health = a.mon.ok(a.session, r#"{"prefix":"health","detail":"detail"}"#);
    assert!(
        health.contains("POOL_FULL: 1 pool(s) full\n    pool 'rbd' is full (running out of quota)")
    );
    let log = |a: &mut Asker| a.mon.ok(a.session, r#"{"prefix":"log last"}"#);
    assert!(log(&mut a).contains("[WRN] pool 'rbd' is full (reached quota's max_objects: 2)\n"));
    a.mon.ok(a.session, &quota("max_objects", 3));
    a.mon.pass(1);
    assert_eq!(flags(&a), "hashpspool");
    a.mon.pass(1);
    let line = "[INF] pool 'rbd' no longer out of quota; removing NO_QUOTA flag\n";
    assert!(log(&mut a).contains(line));
    a.mon.ok(a.session, &quota("max_bytes", 200_000));
    a.report(&[], 2, 300_000);
    assert!(log(&mut a).contains("pool 'rbd' is full (reached quota's max_bytes: 195 KiB)\n"));
}

/// It lacks what is last now.
#[test]
fn a_state_of_the_first_version_is_still_read() {
    let mon = Mon::new(1);
    let now = mon.service.state().to_bytes(F);
    let mut bytes = now.clone();
    bytes.truncate(bytes.len() - 4);
    bytes[..2].copy_from_slice(&[1, 1]);
    let length = bytes.len() as u32 - 6;
    bytes[2..6].copy_from_slice(&length.to_le_bytes());
    assert!(State::from_bytes(&bytes).unwrap().to_bytes(F) == now);
}

/// The map follows what was asked for when all PGs are well; numbers and epochs as in Ceph.
#[test]
fn pg_num_follows_its_target() {
    let mut a = asker();
    let set = |what: &str, n: u32| {
        format!(r#"{{"prefix":"osd pool set","pool":"rbd","var":"{what}","val":"{n}"}}"#)
    };
    let numbers = |a: &Asker| {
        let pool = &a.mon.map().pools[&1];
        let target = (pool.pg_num_target, pool.pgp_num_target);
        ((pool.pg_num, pool.pgp_num), target, pool.pg_num_pending)
    };
    a.mon.ok(a.session, &set("pg_num", 32));
    a.mon.pass(1);
    assert_eq!(numbers(&a), ((8, 8), (32, 32), 8), "nobody said that the PGs are well");
    a.report_pgs(7, 1);
    assert_eq!(numbers(&a), ((8, 8), (32, 32), 8), "one is not");
    a.report_pgs(8, 0);
    assert_eq!(numbers(&a), ((32, 32), (32, 32), 32));
    let resend = |a: &Asker| {
        let pool = &a.mon.map().pools[&1];
        (pool.last_force_op_resend_prenautilus, pool.last_force_op_resend_preluminous)
    };
    let epoch = a.mon.map().epoch;
    assert_eq!(resend(&a), (0, epoch));
    a.mon.ok(a.session, &set("pg_num", 12));
    a.mon.pass(1);
    assert_eq!(numbers(&a), ((32, 32), (12, 12), 32), "what was said was of 8 PGs");
    a.report_pgs(32, 0);
    assert_eq!(numbers(&a), ((12, 12), (12, 12), 12));
    let epoch = a.mon.map().epoch;
    assert_eq!(resend(&a), (epoch, epoch));
    a.mon.ok(a.session, &set("pgp_num", 4));
    a.report_pgs(12, 0);
    assert_eq!(numbers(&a), ((12, 4), (12, 4), 12));
    a.mon.ok(a.session, &set("pg_num", 8));
    a.report_pgs(12, 0);
    assert_eq!(numbers(&a), ((8, 4), (8, 4), 8));
}
