//! Clients that write and read, and the ledger of what they were told.
//!
//! Each object has one writer at a time; some are redirects to others. Invariant: an object is as its
//! last acknowledged request left it, or, once its client was lost, as the request under way then would
//! leave it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_sim::{Client, Cluster};
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::types::{ObjectLocator, SnapId};
use spirula_wire::{Encode, Features};
use spirula_xstream::{Class, JoinHandle, random_u64, sleep, spawn};

pub(crate) const OBJECTS: u64 = 8;
/// The last of the objects lead to others.
const REDIRECTS: u64 = 3;
/// Between two requests of a worker.
const PAUSE_MAX: Duration = Duration::from_millis(50);
const ENOENT: i32 = -2;

/// An object's bytes; `None` is an absent one.
type Content = Option<Bytes>;

/// What the clients do and know, shared with the test.
#[derive(Clone, Default)]
pub(crate) struct Load(Rc<Ledger>);

#[derive(Default)]
struct Ledger {
    acknowledged: RefCell<BTreeMap<u64, Content>>,
    /// What the object becomes if the request under way is carried out.
    under_way: RefCell<BTreeMap<u64, Content>>,
    requests: Cell<u64>,
    stopping: Cell<bool>,
}

impl Load {
    pub(crate) fn requests(&self) -> u64 {
        self.0.requests.get()
    }

    /// Workers end after their present request.
    pub(crate) fn stop(&self) {
        self.0.stopping.set(true);
    }

    /// A new client and one worker per object; an earlier client must be gone.
    pub(crate) fn start(&self, cluster: &Cluster) -> Vec<JoinHandle<()>> {
        let connect = Rc::new(RefCell::new(None));
        let connector = cluster.connector();
        let made = connect.clone();
        let ready = cluster.client.block_on(async move {
            *made.borrow_mut() = Some(connector());
        });
        assert!(ready.is_ok());
        let client = connect.take();
        let workers = (0..OBJECTS).filter_map(|object| {
            let (load, client) = (self.clone(), client.clone()?);
            let work = async move { load.work(&client, object).await };
            Some(cluster.client.spawn(Class::Client, work))
        });
        workers.collect()
    }

    /// A client of its own reads everything.
    pub(crate) fn verify(&self, cluster: &Cluster, limit: Duration) {
        let (load, connector) = (self.clone(), cluster.connector());
        let done = cluster.client.spawn(Class::Client, async move {
            let client = connector();
            let reads = (0..OBJECTS).map(|object| {
                let (load, client) = (load.clone(), client.clone());
                spawn(Class::Client, async move {
                    load.resolve(&client, object).await;
                })
            });
            for read in reads.collect::<Vec<_>>() {
                assert!(read.await.is_ok());
            }
        });
        let world = &cluster.world;
        assert!(
            world.run_until(limit, || done.is_finished()),
            "the objects cannot be read any more"
        );
    }

    async fn work(&self, client: &Client, object: u64) {
        if object >= OBJECTS - REDIRECTS {
            set_redirect(client, object).await;
        }
        let mut known = self.resolve(client, object).await;
        while !self.0.stopping.get() {
            let random = random_u64();
            // Now one after the other, now many at once.
            sleep(PAUSE_MAX.mul_f64((random % 100) as f64 / 100.0)).await;
            if random.is_multiple_of(4) {
                let found = read(client, object).await;
                // Without its bytes, of which there are too many to look at.
                assert!(found == known, "object {object} is not as acknowledged");
                continue;
            }
            let (op, new) = step(random, known.as_ref());
            self.0.under_way.borrow_mut().insert(object, new.clone());
            let reply = client.op(Cluster::POOL, &name(object), vec![op], true).await;
            let result = reply.map(|reply| reply.result);
            assert_eq!(result, Ok(0), "object {object}");
            self.0.under_way.borrow_mut().remove(&object);
            self.0.acknowledged.borrow_mut().insert(object, new.clone());
            self.0.requests.set(self.0.requests.get() + 1);
            known = new;
        }
    }

    /// Reads an object, which must be as acknowledged or as the lost request would leave it.
    async fn resolve(&self, client: &Client, object: u64) -> Content {
        let found = read(client, object).await;
        let before = self.0.acknowledged.borrow().get(&object).cloned().flatten();
        let after = self.0.under_way.borrow_mut().remove(&object);
        let fits = found == before || after.as_ref() == Some(&found);
        let lens = [&found, &before].map(|c| c.as_ref().map(Bytes::len));
        assert!(fits, "object {object}: found and acknowledged lengths {lens:?}");
        self.0.acknowledged.borrow_mut().insert(object, found.clone());
        found
    }
}

fn name(object: u64) -> String {
    format!("object.{object}")
}

/// Changes nothing if the object is a redirect already.
async fn set_redirect(client: &Client, object: u64) {
    let create = OsdOp::new(OpCode::CREATE, OpArgs::default(), Bytes::new());
    let args =
        OpArgs::CopyFrom { snapid: SnapId::HEAD, src_version: 0, flags: 0, src_fadvise_flags: 0 };
    let mut input = format!("target.{object}").to_bytes(Features::PACIFIC);
    ObjectLocator::pool(Cluster::POOL).encode(&mut input, Features::PACIFIC);
    let ops = vec![create, OsdOp::new(OpCode::SET_REDIRECT, args, input.into())];
    let reply = client.op(Cluster::POOL, &name(object), ops, true).await;
    assert_eq!(reply.map(|reply| reply.result), Ok(0), "redirect {object}");
}

async fn read(client: &Client, object: u64) -> Content {
    let op = OsdOp::new(OpCode::READ, OpArgs::extent(0, 0), Bytes::new());
    let reply = client.op(Cluster::POOL, &name(object), vec![op], false).await;
    let Ok(reply) = reply else {
        panic!("object {object}: {reply:?}");
    };
    if reply.result == ENOENT {
        return None;
    }
    assert_eq!(reply.result, 0, "object {object}");
    Some(Bytes::from(reply.ops[0].outdata.concat()))
}

/// One object's next request, and what it leaves.
fn step(random: u64, old: Option<&Bytes>) -> (OsdOp, Content) {
    let size = match (random >> 8) % 8 {
        0 => 70_000 + (random >> 16) % 60_000,
        1 => 4096 * (1 + (random >> 16) % 4),
        _ => 1 + (random >> 16) % 9000,
    };
    let text = format!("{random:x}.");
    let data = text.bytes().cycle().take(size as usize).collect::<Bytes>();
    let args = |offset| OpArgs::extent(offset, size);
    match ((random >> 4) % 8, old) {
        (0, Some(_)) => {
            let op = OsdOp::new(OpCode::DELETE, OpArgs::default(), Bytes::new());
            (op, None)
        }
        // Done twice it would show.
        (1..=3, Some(old)) if old.len() < 500_000 => {
            let new = [&old[..], &data[..]].concat();
            (OsdOp::new(OpCode::APPEND, args(0), data), Some(new.into()))
        }
        (4 | 5, Some(old)) => {
            let at = (random >> 40) as usize % (old.len() + 1);
            let mut new = old.to_vec();
            new.resize(new.len().max(at + data.len()), 0);
            new[at..at + data.len()].copy_from_slice(&data);
            let op = OsdOp::new(OpCode::WRITE, args(at as u64), data);
            (op, Some(new.into()))
        }
        _ => {
            let op = OsdOp::new(OpCode::WRITEFULL, args(0), data.clone());
            (op, Some(data))
        }
    }
}
