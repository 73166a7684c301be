//! The ways to the other monitors: a session to each, opened again whenever it ends. What is sent
//! while there is none is lost, which the quorum expects. What comes back on one is the answer to a
//! question for the monitor map.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spirula_auth::{ConMode, METHOD_CEPHX, MonConnectConfig, MonConnector, MonGrant, Principal};
use spirula_msgr::on_tokio::{self, Event, Session};
use spirula_msgr::{Config, Target, Timeouts};
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityNameStr, EntityType};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{Instrument as _, debug};

use super::{Shared, now};

/// How often to look for monitors that came or went.
const LOOK: Duration = Duration::from_millis(500);
/// Between two attempts to reach one.
const RETRY: Duration = Duration::from_millis(200);
/// A peer that says nothing for this long is tried anew; it answers a keepalive each second.
const IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(1);

/// Keeps a way to every other monitor, for ever.
pub(super) async fn run(shared: Arc<Shared>, entity: EntityName, addrs: EntityAddrVec) {
    let mut links = JoinSet::new();
    let mut linked: BTreeMap<String, EntityAddr> = BTreeMap::new();
    loop {
        for (name, addr) in others(&shared) {
            if linked.get(&name) != Some(&addr) {
                linked.insert(name.clone(), addr);
                let link = link(shared.clone(), name, addr, entity, addrs.clone());
                links.spawn(link.in_current_span());
            }
        }
        linked.retain(|name, addr| others(&shared).get(name) == Some(addr));
        tokio::time::sleep(LOOK).await;
        while links.try_join_next().is_some() {}
    }
}

fn others(shared: &Shared) -> BTreeMap<String, EntityAddr> {
    let core = shared.lock();
    let own = &core.service.live().name;
    let map = core.service.monmap();
    let others = map.by_rank().filter(|m| m.name != *own);
    others.filter_map(|m| Some((m.name.clone(), m.public_addrs.msgr2()?))).collect()
}

/// Keeps the way to one monitor while it is at this address.
async fn link(
    shared: Arc<Shared>,
    name: String,
    addr: EntityAddr,
    entity: EntityName,
    addrs: EntityAddrVec,
) {
    let mut global_seq = 0;
    while others(&shared).get(&name) == Some(&addr) {
        if let Some(auth) = connector(&shared) {
            global_seq += 1;
            let timeouts = Timeouts { idle: IDLE, ..Timeouts::default() };
            let config = Config { global_seq, timeouts, ..Config::new(entity, addrs.clone()) };
            let target = Target { type_: EntityType::MON, addr };
            let (sender, events) = mpsc::unbounded_channel();
            // Nobody listens once the session is given up.
            let dispatch = move |_: &Session, event: Event| _ = sender.send(event);
            let session = on_tokio::open(config, target, Box::new(auth), dispatch);
            keep(&shared, &name, &session, events).await;
            session.close();
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Returns when the session ends.
async fn keep(
    shared: &Shared,
    name: &str,
    session: &Session,
    mut events: mpsc::UnboundedReceiver<Event>,
) {
    let mut beat = tokio::time::interval(KEEPALIVE);
    let mut ready = false;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Ready(_)) => {
                    ready = true;
                    shared.with(|core, now| {
                        core.peers.insert(name.to_owned(), session.clone());
                        core.service.peer_connected(now, name);
                    });
                }
                Some(Event::Closed(reason)) => {
                    debug!("the way to mon.{name} ended: {reason}");
                    shared.lock().peers.remove(name);
                    return;
                }
                Some(Event::Message(incoming)) => {
                    shared.with(|core, _| core.service.peer_answer(&incoming.raw));
                }
                Some(_) => {}
                None => return,
            },
            _ = beat.tick() => if ready { session.keepalive() },
        }
    }
}

/// Proves this monitor by the key that all monitors share.
fn connector(shared: &Shared) -> Option<MonConnector> {
    let mut core = shared.lock();
    let name = EntityNameStr::new(EntityType::MON, "");
    let key = core.service.auth_of(&name)?.key;
    let config = MonConnectConfig {
        principal: Principal { name, key },
        methods: vec![METHOD_CEPHX],
        modes: vec![ConMode::Secure, ConMode::Crc],
        want: 0,
    };
    let seed = core.seed();
    Some(MonConnector::new(config, &MonGrant::default(), now().wall, seed))
}
