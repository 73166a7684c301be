//! Random requests with snapshots against a model that copies everything whenever a snapshot is taken:
//! each snapshot shows each object as it was then, whatever was overwritten, deleted, rolled back or
//! trimmed since, and after restarts and losses of power in the midst of trimming.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_maps::flags;
use spirula_osd::snap::trim::Trimming;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpReply};
use spirula_wire::types::{CopyCursor, CopyData, ListSnapsResponse, SnapContext, SnapId};
use spirula_wire::{Decode, Encode, Reader};

use crate::support::{Client, Cluster, F, Op};

const OBJECTS: u64 = 5;
const ROUNDS: usize = 6;
const STEPS: usize = 40;
const SIZE_MAX: u64 = 60_000;

type Pairs = BTreeMap<Bytes, Bytes>;

/// A whole object.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Object {
    data: Vec<u8>,
    xattrs: Pairs,
    omap: Pairs,
}

type State = BTreeMap<u64, Object>;

/// What there should be.
#[derive(Default)]
struct Model {
    head: State,
    snaps: BTreeMap<u64, State>,
    made: u64,
}

impl Model {
    fn context(&self) -> SnapContext {
        let snaps: Vec<_> = self.snaps.keys().rev().map(|s| SnapId(*s)).collect();
        SnapContext { seq: SnapId(self.made), snaps }
    }

    /// The next request, and what it does to the model.
    fn step(&mut self, dice: &mut Dice) -> (u64, OsdOp) {
        let (name, exists) = (dice.below(OBJECTS), |m: &Self, o| m.head.contains_key(&o));
        let (at, len) = (dice.below(SIZE_MAX), 1 + dice.below(SIZE_MAX / 4));
        let bytes = vec![b'a' + dice.below(26) as u8; len as usize];
        let op = match dice.below(20) {
            0..8 => {
                let object = self.head.entry(name).or_default();
                let end = (at + len) as usize;
                object.data.resize(object.data.len().max(end), 0);
                object.data[at as usize..end].copy_from_slice(&bytes);
                OsdOp::new(OpCode::WRITE, OpArgs::extent(at, len), bytes.into())
            }
            8..10 => {
                self.head.entry(name).or_default().data = bytes.clone();
                OsdOp::new(OpCode::WRITEFULL, OpArgs::extent(0, len), bytes.into())
            }
            10..12 => {
                if let Some(object) = self.head.get_mut(&name) {
                    zero(&mut object.data, at as usize, (at + len) as usize);
                }
                OsdOp::new(OpCode::ZERO, OpArgs::extent(at, len), Bytes::new())
            }
            12 => {
                if let Some(object) = self.head.get_mut(&name) {
                    object.data.resize(at as usize, 0);
                }
                OsdOp::new(OpCode::TRUNCATE, OpArgs::extent(at, 0), Bytes::new())
            }
            13 if exists(self, name) => {
                self.head.remove(&name);
                Op::plain(OpCode::DELETE)
            }
            14 => {
                let (key, value) = (dice.key(), dice.key());
                let object = self.head.entry(name).or_default();
                object.xattrs.insert(key.clone().into(), value.clone().into());
                Op::set_xattr(&key, &value)
            }
            15..17 => {
                let (key, value) = (dice.key(), dice.key().repeat(300));
                let object = self.head.entry(name).or_default();
                object.omap.insert(key.clone().into(), value.clone().into());
                Op::set_omap(&[(&key, &value)])
            }
            _ => match self.some_snap(dice) {
                Some(snap) => {
                    match self.snaps[&snap].get(&name) {
                        Some(object) => self.head.insert(name, object.clone()),
                        None => self.head.remove(&name),
                    };
                    let args = OpArgs::Snap { snapid: SnapId(snap) };
                    OsdOp::new(OpCode::ROLLBACK, args, Bytes::new())
                }
                None => Op::stat(),
            },
        };
        (name, op)
    }

    fn some_snap(&self, dice: &mut Dice) -> Option<u64> {
        let n = dice.below(self.snaps.len().max(1) as u64);
        self.snaps.keys().nth(n as usize).copied()
    }
}

/// What reaches the end of the data cuts it off.
fn zero(data: &mut Vec<u8>, from: usize, to: usize) {
    let len = data.len();
    if from >= len {
        return;
    }
    if to >= len {
        data.truncate(from);
    } else {
        data[from..to].fill(0);
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn key(&mut self) -> String {
        format!("k{}", self.below(6))
    }
}

/// An object as the client reads it; `None` if it is not there.
async fn read(client: &mut Client, name: u64) -> Option<Object> {
    let mut input = "".to_owned().to_bytes(F);
    1000u64.encode(&mut input, F);
    "".to_owned().encode(&mut input, F);
    let vals = OsdOp::new(OpCode::OMAP_GET_VALS, OpArgs::default(), input.into());
    let ops = [Op::read(0, 0), Op::plain(OpCode::GETXATTRS), vals];
    let reply = client.op(&format!("o{name}"), &ops).await;
    if reply.result == -2 {
        return None;
    }
    assert!(reply.result >= 0, "{}", reply.result);
    let out = |i: usize| reply.ops[i].outdata.concat();
    Some(Object { data: out(0), xattrs: pairs(&out(1)), omap: pairs(&out(2)) })
}

fn pairs(raw: &[u8]) -> Pairs {
    Vec::<(Bytes, Bytes)>::decode(&mut Reader::new(raw)).unwrap().into_iter().collect()
}

async fn check(client: &mut Client, model: &Model, seed: u64) {
    for name in 0..OBJECTS {
        client.snap = SnapId::HEAD;
        assert_eq!(read(client, name).await.as_ref(), model.head.get(&name), "{seed}: head {name}");
        for (snap, state) in &model.snaps {
            client.snap = SnapId(*snap);
            let found = read(client, name).await;
            assert!(found.as_ref() == state.get(&name), "{seed}: o{name} at {snap} differs");
        }
    }
    client.snap = SnapId::HEAD;
    // Others may be listed whose snapshots are not trimmed yet.
    let shown = model.snaps.values().chain([&model.head]).flat_map(State::keys);
    let shown: BTreeSet<_> = shown.map(|n| format!("o{n}")).collect();
    let listed = listed(client).await;
    assert!(shown.is_subset(&listed), "{seed}: {listed:?} instead of {shown:?}");
}

async fn listed(client: &mut Client) -> BTreeSet<String> {
    client.list(3).await.into_iter().collect()
}

fn run(seed: u64) {
    let cluster = Cluster::start(seed);
    let mut dice = Dice(seed);
    let mut model = Model::default();
    for round in 0..ROUNDS {
        for _ in 0..3 {
            let (mut moved, mut its_dice) = (std::mem::take(&mut model), Dice(dice.below(1 << 40)));
            let back = std::rc::Rc::new(std::cell::RefCell::new(Model::default()));
            let given_back = back.clone();
            cluster.client(async move |client| {
                client.context = moved.context();
                for _ in 0..STEPS / 3 {
                    let (name, op) = moved.step(&mut its_dice);
                    let reply: OsdOpReply =
                        client.op(&format!("o{name}"), std::slice::from_ref(&op)).await;
                    let fits = reply.result == 0 || op.code == OpCode::STAT;
                    assert!(fits, "{seed}: {:?} gives {}", op.code, reply.result);
                }
                check(client, &moved, seed).await;
                *given_back.borrow_mut() = moved;
            });
            model = back.take();
            model.made += 1;
            model.snaps.insert(model.made, model.head.clone());
        }
        for _ in 0..2 {
            if let Some(snap) = model.some_snap(&mut dice) {
                model.snaps.remove(&snap);
                cluster.remove_snap(SnapId(snap));
            }
        }
        if dice.below(2) == 0 {
            cluster.checkpoint();
        }
        match round % 3 {
            0 => cluster.restart(),
            1 => cluster.power_loss(),
            _ => {}
        }
        if dice.below(2) == 0 {
            cluster.trimmed();
        }
    }
    end(&cluster, model, seed);
}

/// When all snapshots and objects are removed, nothing is left.
fn end(cluster: &Cluster, mut model: Model, seed: u64) {
    let expected: Vec<u64> = model.head.keys().copied().collect();
    for snap in std::mem::take(&mut model.snaps).into_keys() {
        cluster.remove_snap(SnapId(snap));
    }
    cluster.trimmed();
    let stats = cluster.stats();
    let bytes: usize = model.head.values().map(|o| o.data.len()).sum();
    // Blocks are partly used; but what only clones had is gone.
    assert!(cluster.stored() < bytes as u64 + (32 << 10), "{seed}: {}", cluster.stored());
    let counted =
        (stats.num_objects, stats.num_object_clones, stats.num_whiteouts, stats.num_bytes);
    assert_eq!(counted, (expected.len() as i64, 0, 0, bytes as i64), "{seed}");
    cluster.client(async move |client| {
        check(client, &model, seed).await;
        let heads: BTreeSet<_> = model.head.keys().map(|n| format!("o{n}")).collect();
        assert_eq!(listed(client).await, heads, "{seed}");
        for name in expected {
            client.snap = SnapId::DIR;
            let name = format!("o{name}");
            let reply = client.op(&name, &[Op::plain(OpCode::LIST_SNAPS)]).await;
            let list = ListSnapsResponse::from_bytes(&reply.ops[0].outdata.concat()).unwrap();
            assert_eq!(list.clones.len(), 1, "{seed}: {list:?}");
            client.snap = SnapId::HEAD;
            assert_eq!(client.op(&name, &[Op::plain(OpCode::DELETE)]).await.result, 0);
        }
    });
    cluster.restart();
    cluster.trimmed();
    assert_eq!(cluster.stats().num_objects, 0);
    assert!(cluster.emptied(), "{seed}: space is lost");
}

#[test]
fn snapshots_show_what_they_were_taken_of() {
    (200..206).for_each(run);
}

#[test]
fn clones_and_rollbacks_copy_no_data() {
    const SIZE: usize = 1 << 20;
    let cluster = Cluster::start(2);
    cluster.client(async |client| {
        assert_eq!(client.op("o", &[Op::write_full(&"x".repeat(SIZE))]).await.result, 0);
    });
    let before = cluster.stored();
    assert!(before >= SIZE as u64);
    cluster.client(async |client| {
        client.context = SnapContext { seq: SnapId(1), snaps: vec![SnapId(1)] };
        assert_eq!(client.op("o", &[Op::write(8192, &"y".repeat(8192))]).await.result, 0);
    });
    assert_eq!(cluster.stored(), before + 8192);
    cluster.client(async |client| {
        client.context = SnapContext { seq: SnapId(2), snaps: vec![SnapId(2), SnapId(1)] };
        let back = OsdOp::new(OpCode::ROLLBACK, OpArgs::Snap { snapid: SnapId(1) }, Bytes::new());
        assert_eq!(client.op("o", &[back]).await.result, 0);
    });
    assert_eq!(cluster.stored(), before + 8192);
    cluster.client(async |client| {
        for (snap, byte) in [(SnapId::HEAD, "x"), (SnapId(1), "x"), (SnapId(2), "y")] {
            client.snap = snap;
            let reply = client.op("o", &[Op::read(8192, 1)]).await;
            assert_eq!(crate::support::text(&reply, 0), byte, "{snap}");
        }
    });
}

#[test]
fn a_rollback_undoes_what_its_own_request_did() {
    let cluster = Cluster::start(6);
    let state = |value: &str| {
        Some(Object {
            data: value.to_owned().into_bytes(),
            xattrs: [("a".into(), value.to_owned().into())].into(),
            omap: [("k".into(), value.to_owned().into())].into(),
        })
    };
    let set = |value: &str| {
        [Op::write_full(value), Op::set_xattr("a", value), Op::set_omap(&[("k", value)])]
    };
    let back = || OsdOp::new(OpCode::ROLLBACK, OpArgs::Snap { snapid: SnapId(1) }, Bytes::new());
    cluster.client(async move |client| {
        assert_eq!(client.op("o1", &set("old")).await.result, 0);
        client.context = SnapContext { seq: SnapId(1), snaps: vec![SnapId(1)] };
        assert_eq!(client.op("o1", &set("new")).await.result, 0);
        let other = [Op::set_xattr("b", "1"), Op::set_omap(&[("l", "1")])];
        let [write, xattr, omap] = set("new");
        let requests = [
            [vec![write, xattr, omap], other.to_vec(), vec![back()]].concat(),
            vec![Op::plain(OpCode::DELETE), back()],
            [vec![Op::plain(OpCode::DELETE)], other.to_vec(), vec![back()]].concat(),
            vec![back(), back()],
        ];
        for (i, request) in requests.iter().enumerate() {
            assert_eq!(client.op("o1", request).await.result, 0, "{i}");
            assert_eq!(read(client, 1).await, state("old"), "{i}");
            assert_eq!(client.op("o1", &set("new")).await.result, 0);
            let later = [vec![back()], set("new").to_vec()].concat();
            assert_eq!(client.op("o1", &later).await.result, 0);
            assert_eq!(read(client, 1).await, state("new"), "{i}");
        }
    });
}

#[test]
fn an_object_may_have_very_many_clones() {
    const CLONES: u64 = 600;
    let cluster = Cluster::start(4);
    cluster.client(async |client| {
        for snap in 0..CLONES {
            let snaps: Vec<_> = (1..=snap).rev().map(SnapId).collect();
            client.context = SnapContext { seq: SnapId(snap), snaps };
            let ops = [Op::write(snap % 7, &format!("{snap:04}")), Op::set_xattr("x", "y")];
            assert_eq!(client.op("o", &ops).await.result, 0);
        }
    });
    cluster.restart();
    cluster.client(async |client| {
        for snap in 1..CLONES {
            client.snap = SnapId(snap);
            let reply = client.op("o", &[Op::read((snap - 1) % 7, 4)]).await;
            assert_eq!(crate::support::text(&reply, 0), format!("{:04}", snap - 1));
        }
    });
    (1..CLONES).for_each(|snap| cluster.remove_snap(SnapId(snap)));
    cluster.trimmed();
    let stats = cluster.stats();
    assert_eq!((stats.num_objects, stats.num_object_clones), (1, 0));
}

#[test]
fn trimming_follows_the_options() {
    use Trimming::{No, Runs, Waits};
    const OBJECTS: u64 = 64;
    let cluster = Cluster::start(5);
    let write = async |client: &mut Client| {
        for name in 0..OBJECTS {
            assert_eq!(client.op(&format!("o{name}"), &[Op::write_full("x")]).await.result, 0);
        }
    };
    cluster.client(async move |client| {
        write(client).await;
        client.context = SnapContext { seq: SnapId(1), snaps: vec![SnapId(1)] };
        write(client).await;
        client.context = SnapContext { seq: SnapId(2), snaps: vec![SnapId(2), SnapId(1)] };
        write(client).await;
    });
    let clones = || OBJECTS as i64 * 2 - cluster.stats().num_object_clones;
    let seconds = |n: u64| cluster.world.run_for(Duration::from_secs(n));
    let quiet = cluster.changed_at(2);
    assert_eq!(cluster.changed_at(0), quiet);
    cluster.set_options(&[
        ("osd_snap_trim_sleep_ssd", "10.0"),
        ("osd_pg_max_concurrent_snap_trims", "3"),
    ]);
    [1, 2].into_iter().for_each(|snap| cluster.remove_snap(SnapId(snap)));
    // Two PGs take three objects each.
    seconds(5);
    assert_eq!(cluster.trimming(), [(Runs, 2), (Runs, 2), (Waits, 2), (Waits, 2)]);
    let began = cluster.changed_at(0);
    assert!(began > quiet);
    seconds(1);
    assert_eq!(cluster.changed_at(0), began);
    assert_eq!(clones(), 6);
    seconds(10);
    assert_eq!(clones(), 12);
    cluster.set_flags(flags::NOSNAPTRIM);
    seconds(20);
    assert_eq!((cluster.trimming(), clones()), (vec![(No, 2); 4], 12));
    cluster.set_options(&[("osd_snap_trim_sleep", "1.0"), ("osd_max_trimming_pgs", "3")]);
    cluster.set_flags(0);
    seconds(2);
    let runs = cluster.trimming().iter().filter(|(trimming, _)| *trimming == Runs).count();
    assert_eq!(runs, 3);
    cluster.trimmed();
    seconds(1);
    assert_eq!((cluster.trimming(), clones()), (vec![(No, 0); 4], OBJECTS as i64 * 2));
}

#[test]
fn copies_tell_their_snapshots() {
    let cluster = Cluster::start(3);
    cluster.client(async |client| {
        assert_eq!(client.op("o", &[Op::write_full("x")]).await.result, 0);
        client.context = SnapContext { seq: SnapId(4), snaps: vec![SnapId(4), SnapId(2)] };
        assert_eq!(client.op("o", &[Op::write_full("yy")]).await.result, 0);
        let mut input = CopyCursor::default().to_bytes(F);
        100u64.encode(&mut input, F);
        let get = [OsdOp::new(OpCode::COPY_GET, OpArgs::default(), input.into())];
        for (snap, size, snaps, seq) in
            [(SnapId::HEAD, 2, vec![], 4), (SnapId(2), 1, vec![SnapId(4), SnapId(2)], 0)]
        {
            client.snap = snap;
            let reply = client.op("o", &get).await;
            let data = CopyData::from_bytes(&reply.ops[0].outdata.concat()).unwrap();
            assert_eq!((data.size, data.snaps, data.snap_seq), (size, snaps, SnapId(seq)));
        }
    });
}

/// A request under way when power was lost has happened as a whole, with its clone, or not at all.
fn lose_power_with_writes_in_flight(seed: u64) -> u64 {
    let cluster = Cluster::start(seed);
    let text = |version: u64| format!("{version:08}").repeat(1 + version as usize % 1500);
    let (mut head, mut made) = (0, 0);
    let mut taken: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..6 {
        made += 1;
        taken.insert(made, head);
        let snaps = taken.keys().rev().map(|s| SnapId(*s)).collect();
        let context = SnapContext { seq: SnapId(made), snaps };
        let first = head + 1;
        cluster.spawn_client(async move |client| {
            client.context = context;
            for version in first..first + 20 {
                client.send("o", &[Op::write_full(&text(version))]);
            }
            client.replies(20).await;
        });
        cluster.world.run_for(Duration::from_micros(cluster.world.random_u64() % 20_000));
        cluster.power_loss();
        let expected = taken.clone();
        let found = Rc::new(Cell::new(0));
        let version = found.clone();
        cluster.client(async move |client| {
            let read = Op::read(0, 0);
            for snap in expected.keys().map(|s| SnapId(*s)).chain([SnapId::HEAD]) {
                client.snap = snap;
                let reply = client.op("o", std::slice::from_ref(&read)).await;
                let data =
                    if reply.result == 0 { crate::support::text(&reply, 0) } else { "".into() };
                let number = data.get(..8).map_or(0, |v| v.parse().unwrap());
                assert!(number == 0 || data == text(number), "{seed}: torn at {snap}");
                match expected.get(&snap.0) {
                    Some(then) => assert_eq!(number, *then, "{seed}: at {snap}"),
                    None => version.set(number),
                }
            }
        });
        assert!((head..first + 20).contains(&found.get()), "{seed}: head is {}", found.get());
        head = found.get();
    }
    head
}

#[test]
fn clones_are_whole_after_power_loss() {
    let written: u64 = (300..306).map(lose_power_with_writes_in_flight).sum();
    assert!(written > 60, "only {written} requests were executed: nothing was tested");
}

#[test]
fn old_contexts_are_refused_where_their_order_matters() {
    let cluster = Cluster::start(1);
    cluster.client(async |client| {
        client.context = SnapContext { seq: SnapId(2), snaps: vec![SnapId(2)] };
        assert_eq!(client.op("o", &[Op::write_full("x")]).await.result, 0);
        client.context = SnapContext { seq: SnapId(1), snaps: vec![SnapId(1)] };
        assert_eq!(client.op("o", &[Op::write_full("y")]).await.result, 0);
        client.flags = spirula_wire::msg::osd_op::flag::ORDERSNAP;
        assert_eq!(client.op("o", &[Op::write_full("z")]).await.result, -85);
        client.context = SnapContext { seq: SnapId(1), snaps: vec![SnapId(1), SnapId(2)] };
        assert_eq!(client.op("o", &[Op::write_full("z")]).await.result, -22);
        client.snap = SnapId::DIR;
        assert_eq!(client.op("o", &[Op::stat()]).await.result, -22);
        client.snap = SnapId(1);
        assert_eq!(client.op("o", &[Op::plain(OpCode::LIST_SNAPS)]).await.result, -22);
        assert_eq!(client.op("o", &[Op::stat()]).await.result, -2);
        client.snap = SnapId(3);
        assert_eq!(client.op("o", &[Op::stat()]).await.result, 0);
    });
}
