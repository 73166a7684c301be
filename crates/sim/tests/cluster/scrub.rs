//! Three copies, of which one is damaged, lacks something or says something else: a scrub finds it, a repair
//! mends it, a read does not notice.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_osd::Target;
use spirula_osd::apply::{akey, container_of};
use spirula_osd::object::{AKEY, cursor_key, dkey};
use spirula_osd::scrub::Kind;
use spirula_osd::scrub::run::is_ready;
use spirula_sim::{Cluster, Spec};
use spirula_vos::{Extent, ObjectKey, ReadError, Tx, Vos};
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::types::{
    HObject, InconsistentObject, PgId, SnapId, SpgId, object_error, pg_state, shard_error,
};
use spirula_xstream::{Class, sleep};

use crate::Seed;

const OSDS: usize = 3;
const SOON: Duration = Duration::from_secs(120);
const PG: PgId = PgId { pool: Cluster::POOL, seed: 0 };
const SIZE: usize = 200_000;

struct Story {
    cluster: Cluster,
    primary: usize,
}

fn data(name: &str) -> Bytes {
    name.bytes().cycle().take(SIZE).collect::<Vec<u8>>().into()
}

impl Story {
    /// A clean PG of three copies with some objects.
    fn new(seed: u64) -> Self {
        let cluster = Cluster::with(&Spec { osds: OSDS, size: OSDS, ..Spec::new(seed, 1) });
        cluster.start_mon();
        cluster.start_osds();
        let ready = || (0..OSDS).any(|id| is_clean(&cluster, id));
        assert!(cluster.world.run_until(SOON, ready), "{}", cluster.describe());
        let Some(primary) = (0..OSDS).find(|id| is_clean(&cluster, *id)) else {
            unreachable!("one of them was clean");
        };
        let story = Self { cluster, primary };
        for name in ["a", "b", "c", "d"] {
            let data = data(name);
            let write = OsdOp::new(OpCode::WRITEFULL, OpArgs::extent(0, SIZE as u64), data);
            assert_eq!(story.ask(name, write, true).0, 0);
        }
        story
    }

    fn ask(&self, name: &'static str, op: OsdOp, write: bool) -> (i32, Bytes) {
        let connector = self.cluster.connector();
        let found: Rc<RefCell<Option<(i32, Bytes)>>> = Rc::default();
        let into = found.clone();
        let work = self.cluster.client.spawn(Class::Client, async move {
            let reply = connector().op(Cluster::POOL, name, vec![op], write).await;
            *into.borrow_mut() = reply.ok().map(|reply| {
                let data = reply.ops.first().map(|out| out.outdata.concat().into());
                (reply.result, data.unwrap_or_default())
            });
        });
        assert!(self.cluster.world.run_until(SOON, || work.is_finished()), "no answer");
        found.take().unwrap_or((-1, Bytes::new()))
    }

    fn target(&self, id: usize) -> Target {
        self.cluster.target(id).expect("it runs")
    }

    /// Runs something at an OSD.
    fn at<F: Future<Output = ()> + 'static>(&self, id: usize, work: impl FnOnce(Target) -> F) {
        let work = self.cluster.osd_host(id).spawn(Class::Client, work(self.target(id)));
        assert!(self.cluster.world.run_until(SOON, || work.is_finished()));
    }

    fn object(&self, name: &'static str) -> HObject {
        let map = self.target(self.primary).map();
        let pool = map.pool(Cluster::POOL).expect("the pool is there");
        let hash = pool.hash_key(name.as_bytes(), b"");
        let (oid, pool) = (Bytes::from_static(name.as_bytes()), Cluster::POOL);
        HObject { oid, pool, hash, snap: SnapId::HEAD, ..HObject::default() }
    }

    /// One sector of the object's data at this OSD is not what was written.
    fn damage(&self, id: usize, name: &'static str) {
        let key = ObjectKey(cursor_key(&self.object(name)));
        let at = Rc::new(Cell::new(None));
        let into = at.clone();
        self.at(id, move |target| async move {
            let extents = |vos: &Vos| -> Result<Vec<Extent>, ReadError> {
                let cid = container_of(vos, SpgId::whole(PG));
                let object = vos.at(u64::MAX).open(cid, &key)?;
                object.map_or(Ok(Vec::new()), |o| o.extents(dkey::DATA, AKEY, 0, SIZE as u64))
            };
            let found = target.store().read(extents).await.unwrap_or_default();
            into.set(found.iter().find_map(|extent| match extent {
                Extent::Device(device) => Some(device.addr.byte_offset()),
                _ => None,
            }));
            // What is in memory counts no more.
            target.store().set_cache_bytes(0);
        });
        let at = at.get().expect("the data is on the device");
        self.cluster.osd_disk(id).corrupt(at, 512);
    }

    /// Changes what one OSD has of an object, as no client could.
    fn change(&self, id: usize, name: &'static str, change: fn(&mut Tx, &Vos, &ObjectKey)) {
        let key = ObjectKey(cursor_key(&self.object(name)));
        self.at(id, move |target| async move {
            let shard = target.shards().get(PG).expect("a copy is here");
            loop {
                let mut tx = Tx::new(shard.state.borrow().own_epoch());
                let made = target.store().try_read(|vos| {
                    change(&mut tx, vos, &key);
                    Ok(())
                });
                assert!(made.is_ok());
                match target.store().submit(&tx) {
                    Ok(commit) => break assert!(commit.await.is_ok()),
                    Err(spirula_vos::StageError::Missing(pages)) => {
                        assert!(target.store().load(pages).await.is_ok());
                    }
                    Err(e) => panic!("{e}"),
                }
            }
        });
    }

    /// Scrubs, and says how many errors are known then: shallow and deep ones.
    fn scrub(&self, deep: bool, repair: bool) -> (i64, i64) {
        let before = self.scrubbed();
        self.at(self.primary, move |target| async move {
            target.pgs().get(PG).expect("it leads").shard.scrub.want(Kind { deep, repair });
            target.scrubs().stir();
            sleep(Duration::from_millis(1)).await;
        });
        let done = || self.scrubbed() != before && is_clean(&self.cluster, self.primary);
        assert!(self.cluster.world.run_until(SOON, done), "{}", self.cluster.describe());
        let shard = self.target(self.primary).shards().get(PG).expect("it leads");
        let machine = shard.machine.borrow();
        let sum = &machine.info().stats.stats.sum;
        (sum.num_shallow_scrub_errors, sum.num_deep_scrub_errors)
    }

    fn scrubbed(&self) -> (u32, u32) {
        let shard = self.target(self.primary).shards().get(PG).expect("it leads");
        let stamp = shard.machine.borrow().info().history.last_scrub_stamp;
        (stamp.sec, stamp.nsec)
    }

    /// Objects with errors: the object's, those of copies, and of which OSDs.
    fn found(&self) -> Vec<(String, u64, u64, Vec<i32>)> {
        let shard = self.target(self.primary).shards().get(PG).expect("it leads");
        shard.scrub.found(|found| {
            let of = |o: &InconsistentObject| {
                let bad = o.shards.iter().filter(|(_, s)| s.errors != 0).map(|(osd, _)| *osd);
                let name = String::from_utf8_lossy(&o.object.oid).into_owned();
                (name, o.errors, o.union(), bad.collect())
            };
            found.map(|found| found.values().map(of).collect()).unwrap_or_default()
        })
    }

    /// Of the omap of an object with errors at this OSD, if it is that of one pair by a real Ceph.
    fn digests(&self, id: usize, name: &str) -> Option<u32> {
        let shard = self.target(self.primary).shards().get(PG).expect("it leads");
        shard.scrub.found(|found| {
            let found = found?.values().find(|o| o.object.oid[..] == *name.as_bytes())?;
            found.shards.get(&(id as i32))?.omap_digest.filter(|digest| *digest == 0x6716_36db)
        })
    }

    fn state(&self) -> u64 {
        let target = self.target(self.primary);
        let pg = target.pgs().get(PG).expect("it leads");
        let scrub = target.store().scrub_status();
        spirula_osd::stats::pg_stat(&pg, &scrub, 1, 0, Default::default()).state()
    }
}

fn is_clean(cluster: &Cluster, id: usize) -> bool {
    let pg = cluster.target(id).and_then(|target| target.pgs().get(PG));
    pg.is_some_and(|pg| is_ready(&pg))
}

/// What is done to a copy; what a light and a deep scrub say then, of the object and of the copy.
type Row = (&'static str, fn(&Story, usize), (i64, i64), (i64, i64), u64, u64);

const TABLE: [Row; 5] = [
    ("damage", |s, id| s.damage(id, "a"), (0, 0), (0, 1), 0, shard_error::READ),
    (
        "another value in the omap",
        |s, id| {
            s.change(id, "a", |tx, vos, key| {
                let cid = container_of(vos, SpgId::whole(PG));
                tx.update(cid, key, dkey::OMAP, &akey(b"k"), "v".into());
            });
        },
        (0, 0),
        (0, 1),
        object_error::OMAP_DIGEST_MISMATCH,
        0,
    ),
    (
        "another attribute",
        |s, id| {
            s.change(id, "a", |tx, vos, key| {
                let cid = container_of(vos, SpgId::whole(PG));
                tx.update(cid, key, dkey::XATTR, &akey(b"k"), "v".into());
            });
        },
        (1, 0),
        (1, 0),
        object_error::ATTR_NAME_MISMATCH,
        0,
    ),
    (
        "less data",
        |s, id| {
            s.change(id, "a", |tx, vos, key| {
                let cid = container_of(vos, SpgId::whole(PG));
                tx.truncate(cid, key, dkey::DATA, AKEY, 10);
            });
        },
        (2, 0),
        (1, 1),
        object_error::SIZE_MISMATCH | object_error::DATA_DIGEST_MISMATCH,
        shard_error::SIZE_MISMATCH_INFO | shard_error::OBJ_SIZE_INFO_MISMATCH,
    ),
    (
        "nothing",
        |s, id| {
            s.change(id, "a", |tx, vos, key| {
                let cid = container_of(vos, SpgId::whole(PG));
                tx.punch_object(cid, key);
            });
        },
        (1, 0),
        (1, 0),
        0,
        shard_error::MISSING,
    ),
];

#[test]
fn a_bad_copy_is_found_and_repaired_wherever_it_is() {
    for (row, (what, spoil, light, deep, errors, of_shard)) in TABLE.into_iter().enumerate() {
        for copy in 0..2 {
            let seed = 2 * row as u64 + copy as u64;
            let _named = Seed(seed);
            let story = Story::new(seed);
            let at = (story.primary + copy) % OSDS;
            assert_eq!(story.scrub(true, false), (0, 0), "{what}: all is well");
            assert_eq!(story.found(), [], "{what}");
            spoil(&story, at);
            assert_eq!(story.scrub(false, false), light, "{what}");
            assert_eq!(story.scrub(true, false), deep, "{what}");
            let bad = if of_shard == 0 { Vec::new() } else { vec![at as i32] };
            assert_eq!(story.found(), [("a".to_owned(), errors, of_shard, bad)], "{what}");
            assert!(story.state() & pg_state::INCONSISTENT != 0, "{what}");
            assert_eq!(story.digests(at, "a").is_some(), what == "another value in the omap");
            story.scrub(true, true);
            assert_eq!(story.scrub(true, false), (0, 0), "{what}: it was repaired");
            assert_eq!((story.found(), story.state() & pg_state::INCONSISTENT), (Vec::new(), 0));
            let read = OsdOp::new(OpCode::READ, OpArgs::extent(0, 0), Bytes::new());
            assert_eq!(story.ask("a", read, false), (0, data("a")), "{what}");
        }
    }
}

#[test]
fn a_read_of_what_is_damaged_is_answered_from_another_copy() {
    let _named = Seed(90);
    let story = Story::new(90);
    story.damage(story.primary, "b");
    let read = || OsdOp::new(OpCode::READ, OpArgs::extent(0, 0), Bytes::new());
    assert_eq!(story.ask("b", read(), false), (0, data("b")));
    let clean = || is_clean(&story.cluster, story.primary);
    assert!(story.cluster.world.run_until(SOON, clean), "{}", story.cluster.describe());
    assert_eq!(story.scrub(true, false), (0, 0), "it was replaced");
    // With one good copy left of three it is the same.
    (0..OSDS - 1).for_each(|n| story.damage((story.primary + n) % OSDS, "c"));
    assert_eq!(story.ask("c", read(), false), (0, data("c")));
}
