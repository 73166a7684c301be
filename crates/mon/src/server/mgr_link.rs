//! The session to the active manager: a monitor tells it of its options, as other daemons do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spirula_auth::{ConMode, ServiceConnector};
use spirula_msgr::on_tokio::{self, Event, Session};
use spirula_msgr::{Config, Target};
use spirula_wire::denc::encode_versioned;
use spirula_wire::msg::mgr::{DaemonConfig, MgrOpen, MgrReport};
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityNameStr, EntityType};
use spirula_wire::{Encode as _, Features, Message};
use tokio::sync::mpsc;
use tracing::debug;

use super::Shared;
use crate::options;

const F: Features = Features::PACIFIC;
/// How often to report, and to look for a manager (`mgr_stats_period`).
const PERIOD: Duration = Duration::from_secs(5);
/// How often to look for a manager that there is not.
const RETRY: Duration = Duration::from_secs(1);

/// Reports to whichever manager is active, for ever.
pub(super) async fn run(shared: Arc<Shared>, entity: EntityName, addrs: EntityAddrVec) {
    let mut global_seq = 0;
    loop {
        tokio::time::sleep(RETRY).await;
        let Some(manager) = active(&shared) else { continue };
        let Some(auth) = authorizer(&shared) else { continue };
        global_seq += 1;
        let config = Config { global_seq, ..Config::new(entity, addrs.clone()) };
        let target = Target { type_: EntityType::MGR, addr: manager };
        let (sender, events) = mpsc::unbounded_channel();
        // Nobody listens once the session is given up.
        let dispatch = move |_: &Session, event: Event| _ = sender.send(event);
        let session = on_tokio::open(config, target, Box::new(auth), dispatch);
        report(&shared, manager, &session, events).await;
        session.close();
    }
}

/// Returns when the session ends or another manager is active.
async fn report(
    shared: &Shared,
    manager: EntityAddr,
    session: &Session,
    mut events: mpsc::UnboundedReceiver<Event>,
) {
    let mut told: Option<DaemonConfig> = None;
    let mut turns = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Ready(_)) => {
                    let (open, config) = open_message(shared);
                    session.send(open.to_raw(0, F));
                    told = Some(config);
                }
                Some(Event::Closed(reason)) => return debug!("manager session ended: {reason}"),
                Some(_) => {}
                None => return,
            },
            _ = turns.tick() => {
                if active(shared) != Some(manager) {
                    return;
                }
                // Not before it is open.
                if let Some(told) = &mut told {
                    session.send(report_message(shared, told).to_raw(0, F));
                }
            }
        }
    }
}

fn active(shared: &Shared) -> Option<EntityAddr> {
    let core = shared.lock();
    let map = core.service.state().mgr.map();
    map.active_addrs.msgr2().filter(|_| map.available)
}

fn authorizer(shared: &Shared) -> Option<ServiceConnector> {
    let (grant, seed) = shared
        .with(|core, now| Some((core.service.own_grant(now, EntityType::MGR)?, core.seed())))?;
    let name = EntityNameStr::default();
    let modes = vec![ConMode::Crc, ConMode::Secure];
    ServiceConnector::new(EntityType::MGR, &grant, &name, modes, seed).ok()
}

fn open_message(shared: &Shared) -> (MgrOpen, DaemonConfig) {
    let core = shared.lock();
    let config = core.service.settings().report();
    let defaults: BTreeMap<String, String> = options::defaults();
    let open = MgrOpen {
        daemon_name: core.service.live().name.clone(),
        config: config.to_bytes(F).into(),
        config_defaults: defaults.to_bytes(F).into(),
        ..MgrOpen::default()
    };
    (open, config)
}

/// With the options if they are others than `told`.
fn report_message(shared: &Shared, told: &mut DaemonConfig) -> MgrReport {
    // No counters are declared; the manager wants the envelope of their values all the same.
    let mut packed = Vec::new();
    encode_versioned(&mut packed, 1, 1, |_| {});
    let core = shared.lock();
    let config = core.service.settings().report();
    let changed = *told != config;
    let bytes = if changed { config.to_bytes(F).into() } else { Bytes::new() };
    *told = config;
    MgrReport {
        daemon_name: core.service.live().name.clone(),
        packed: packed.into(),
        config: bytes,
        ..MgrReport::default()
    }
}
