//! Random requests to a target that loses power at a random moment, again and again: afterwards
//! every object is as its last acknowledged request left it, or as the one under way then would.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::support::{Cluster, Op, text};
use spirula_wire::msg::ops::OpCode;
use spirula_wire::msg::osd_op::OsdOp;

const OBJECTS: u64 = 6;
const ROUNDS: usize = 4;

/// Content by object; `None` is an absent one.
type State = BTreeMap<u64, Option<String>>;

#[derive(Default)]
struct Ledger {
    acknowledged: State,
    /// What the object becomes if the request under way was executed.
    under_way: State,
    requests: u64,
}

/// One object's next request, and what it leaves.
fn step(random: u64, old: Option<&String>) -> (OsdOp, Option<String>) {
    let old = old.cloned();
    let size = (random >> 8) % 20_000;
    let data = format!("{:x}.", random >> 32).repeat(size as usize / 9 + 1);
    match random % 8 {
        0 if old.is_some() => (Op::plain(OpCode::DELETE), None),
        1 | 2 => (Op::append(&data), Some(old.unwrap_or_default() + &data)),
        3 => {
            let mut new = old.unwrap_or_default().into_bytes();
            let at = (random >> 40) as usize % (new.len() + 1);
            new.resize(new.len().max(at + data.len()), 0);
            new[at..at + data.len()].copy_from_slice(data.as_bytes());
            let new = String::from_utf8_lossy(&new).into_owned();
            (Op::write(at as u64, &data), Some(new))
        }
        _ => (Op::write_full(&data), Some(data)),
    }
}

fn run(seed: u64) -> u64 {
    let cluster = Cluster::start(seed);
    let ledger = Rc::new(RefCell::new(Ledger::default()));
    for _ in 0..ROUNDS {
        let (shared, world) = (ledger.clone(), cluster.world.clone());
        cluster.spawn_client(async move |c| {
            loop {
                let mut tids = BTreeMap::new();
                for object in 0..OBJECTS {
                    let mut l = shared.borrow_mut();
                    let old = l.acknowledged.get(&object).cloned().flatten();
                    let (op, new) = step(world.random_u64(), old.as_ref());
                    l.under_way.insert(object, new);
                    tids.insert(c.send(&format!("o{object}"), &[op]), object);
                }
                for (tid, reply) in c.replies(tids.len()).await {
                    assert_eq!(reply.result, 0);
                    let mut l = shared.borrow_mut();
                    let object = tids[&tid];
                    let new = l.under_way.remove(&object).unwrap();
                    l.acknowledged.insert(object, new);
                    l.requests += 1;
                }
            }
        });
        let micros = 1000 + cluster.world.random_u64() % 60_000;
        cluster.world.run_for(Duration::from_micros(micros));
        cluster.power_loss();
        let shared = ledger.clone();
        cluster.client(async move |c| {
            for object in 0..OBJECTS {
                let reply = c.op(&format!("o{object}"), &[Op::read(0, 0)]).await;
                let found = (reply.result == 0).then(|| text(&reply, 0));
                let mut l = shared.borrow_mut();
                let before = l.acknowledged.get(&object).cloned().flatten();
                let after = l.under_way.remove(&object);
                let fits = found == before || Some(&found) == after.as_ref();
                assert!(fits, "seed {seed}: o{object} is neither as before nor as after");
                l.acknowledged.insert(object, found);
            }
        });
    }
    ledger.take().requests
}

#[test]
fn objects_are_whole_after_power_loss() {
    let total: u64 = (100..106).map(run).sum();
    assert!(total > 100, "only {total} requests were acknowledged: nothing was tested");
}
