//! Objects that only a dead OSD had: they are unfound, and an operator gives them up.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_osd::admin::{CommandResult, run_json};
use spirula_sim::{Client, Cluster, Spec};
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::types::{PgId, pg_state};
use spirula_xstream::Class;

use crate::Seed;

const PGID: PgId = PgId { pool: Cluster::POOL, seed: 0 };
const SOON: Duration = Duration::from_secs(300);

/// What a client's task comes to.
fn ask<T: 'static, F: Future<Output = T> + 'static>(
    cluster: &Cluster,
    task: impl FnOnce(Client) -> F + 'static,
) -> T {
    let (connector, slot) = (cluster.connector(), Rc::new(RefCell::new(None)));
    let into = slot.clone();
    let work = cluster.client.spawn(Class::Client, async move {
        let done = task(connector()).await;
        *into.borrow_mut() = Some(done);
    });
    assert!(cluster.world.run_until(SOON, || work.is_finished()), "it gets no answer");
    slot.take().expect("it is finished")
}

fn command(cluster: &Cluster, text: &'static str) {
    let reply = ask(cluster, move |client| async move { client.command(text).await });
    let reply = reply.expect("a monitor answers");
    assert_eq!(reply.r, 0, "{text}");
}

async fn write(client: Client, name: &'static str, data: &'static str) {
    let op = OsdOp::new(OpCode::WRITEFULL, OpArgs::extent(0, data.len() as u64), data.into());
    let done = client.op(Cluster::POOL, name, vec![op], true).await;
    assert_eq!(done.map(|reply| reply.result), Ok(0));
}

/// `None`: it does not exist.
async fn read(client: Client, name: &'static str) -> Option<Bytes> {
    let op = OsdOp::new(OpCode::READ, OpArgs::extent(0, 0), Bytes::new());
    let reply = client.op(Cluster::POOL, name, vec![op], false).await.expect("it is answered");
    (reply.result >= 0).then(|| reply.ops[0].outdata.concat().into())
}

/// A command to an OSD about the PG.
fn tell(cluster: &Cluster, id: usize, words: &str) -> CommandResult {
    let target = cluster.target(id).expect("it runs");
    let text = format!(r#"{{"prefix": "pg", "pgid": "{PGID}", {words}}}"#);
    let told = cluster.osd_host(id).block_on(async move { run_json(&target, &text) });
    told.expect("its host runs")
}

/// The OSD that leads the PG in this state (a bit), once there is one.
fn leader(cluster: &Cluster, state: u64) -> usize {
    let leads = |id: &usize| {
        let pg = cluster.target(*id).and_then(|target| target.pgs().get(PGID));
        pg.is_some_and(|pg| {
            let bits = pg.shard.machine.borrow().state_bits(cluster.world.now());
            pg.active.get() && bits & state != 0
        })
    };
    let found = || (0..cluster.osd_count()).find(leads);
    assert!(cluster.world.run_until(SOON, || found().is_some()), "{}", cluster.describe());
    found().expect("it was there just now")
}

/// Which of these leads the PG and finds that nobody has two of its objects.
fn leader_without_two(cluster: &Cluster, osds: &[usize]) -> usize {
    let unfound = |id: usize| {
        let target = cluster.target(id).expect("it runs");
        target.pgs().get(PGID).map_or(0, |pg| pg.shard.machine.borrow().unfound().len())
    };
    let found = || osds.iter().copied().find(|id| unfound(*id) == 2);
    assert!(cluster.world.run_until(SOON, || found().is_some()), "{}", cluster.describe());
    found().expect("it was there just now")
}

/// Three OSDs, of which all but one are away while two objects are written; then that one dies.
fn play(seed: u64, mode: &str, want: Option<&'static str>) {
    let cluster = Cluster::with(&Spec { osds: 3, size: 3, ..Spec::new(seed, 1) });
    cluster.start_mon();
    cluster.start_osds();
    command(&cluster, r#"{"prefix": "osd pool set", "pool": "p", "var": "min_size", "val": "1"}"#);
    ask(&cluster, |client| write(client, "old", "before"));
    let last = leader(&cluster, pg_state::CLEAN);
    let others: Vec<usize> = (0..3).filter(|id| *id != last).collect();
    for key in ["norecover", "noout"] {
        let text = format!(r#"{{"prefix": "osd set", "key": "{key}"}}"#);
        command(&cluster, text.leak());
    }
    others.iter().for_each(|id| cluster.osd_kill_of(*id));
    ask(&cluster, |client| write(client, "old", "after"));
    ask(&cluster, |client| write(client, "new", "after"));
    others.iter().for_each(|id| cluster.start_osd_of(*id));
    let peered = || {
        let pg = cluster.target(last).and_then(|target| target.pgs().get(PGID));
        pg.is_some_and(|pg| pg.active.get() && pg.shard.machine.borrow().members().len() == 2)
    };
    assert!(cluster.world.run_until(SOON, peered), "{}", cluster.describe());
    // So that they know that the interval has begun.
    cluster.world.run_for(Duration::from_secs(10));
    cluster.osd_kill_of(last);
    let primary = leader_without_two(&cluster, &others);
    leader(&cluster, pg_state::ACTIVE);
    let listed = String::from_utf8(tell(&cluster, primary, r#""cmd": "list_unfound""#).out);
    let listed = listed.expect("it is text");
    for part in ["\"num_unfound\": 2", "osd is down", "\"oid\": \"new\""] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let mark = format!(r#""cmd": "mark_unfound_lost", "mulcmd": "{mode}""#);
    let refused = tell(&cluster, primary, &mark);
    assert!(refused.r < 0 && refused.rs.contains("haven't probed all sources"), "{refused:?}");
    let text = format!(r#"{{"prefix": "osd lost", "id": {last}, "yes_i_really_mean_it": true}}"#);
    command(&cluster, text.leak());
    // A client waits for one of them.
    let (connector, answer) = (cluster.connector(), Rc::new(RefCell::new(None)));
    let into = answer.clone();
    let reads = cluster.client.spawn(Class::Client, async move {
        *into.borrow_mut() = Some(read(connector(), "old").await);
    });
    cluster.world.run_for(Duration::from_secs(20));
    assert!(!reads.is_finished(), "it is unfound, so nobody knows what it is");
    let said = tell(&cluster, primary, &mark);
    assert_eq!((said.r, &*said.rs), (0, "pg has 2 objects unfound and apparently lost marking"));
    assert!(cluster.world.run_until(SOON, || reads.is_finished()));
    let want = want.map(Bytes::from);
    assert_eq!(answer.take(), Some(want.clone()), "who waited is answered");
    assert_eq!(ask(&cluster, |client| read(client, "new")), None, "nobody ever had it");
    let none = tell(&cluster, primary, &mark);
    assert_eq!((none.r, &*none.rs), (0, "pg has no unfound objects"));
    command(&cluster, r#"{"prefix": "osd unset", "key": "norecover"}"#);
    // It comes back, with what was given up: that is not the PG's history any more.
    cluster.start_osd_of(last);
    let clean = leader(&cluster, pg_state::CLEAN);
    for id in [clean, (clean + 1) % 3] {
        assert_eq!(ask(&cluster, |client| read(client, "old")), want);
        assert_eq!(ask(&cluster, |client| read(client, "new")), None);
        // The next one to answer is a member that was told of it.
        cluster.osd_kill_of(id);
    }
    assert_eq!(ask(&cluster, |client| read(client, "old")), want);
}

#[test]
fn what_is_lost_goes_back_to_what_is_left_of_it() {
    for seed in 0..2 {
        let _named = Seed(seed);
        play(seed, "revert", Some("before"));
    }
}

#[test]
fn what_is_lost_is_removed() {
    for seed in 0..2 {
        let _named = Seed(seed);
        play(seed, "delete", None);
    }
}
