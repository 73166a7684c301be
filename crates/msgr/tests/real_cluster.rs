//! Against a running Ceph: set `SPIRULA_REAL_MON=ip:port` and `SPIRULA_REAL_KEY` (of client.admin).
//! Without them these tests pass at once. `SPIRULA_REAL_OSD=v2:ip:port/nonce` adds one with an OSD.

#[path = "support/keys.rs"]
mod keys;

use keys::connector;
use spirula_auth::{ConMode, CryptoKey, MonGrant, ServiceConnector};
use spirula_msgr::on_tokio::{Event, connect, now};
use spirula_msgr::{CloseReason, Config, Target};
use spirula_wire::msg::mon::{MonGetMap, MonMapMsg};
use spirula_wire::types::{EntityAddr, EntityName, EntityNameStr, EntityType};
use spirula_wire::{Features, Message};
use tokio::sync::mpsc;

fn monitor() -> Option<(EntityAddr, CryptoKey)> {
    let addr = std::env::var("SPIRULA_REAL_MON").ok()?.parse().unwrap();
    let key = std::env::var("SPIRULA_REAL_KEY").ok()?;
    Some((EntityAddr::msgr2(addr, 0), CryptoKey::from_base64(&key).unwrap()))
}

/// Opens a session with the monitor, asks for its map and returns what it granted.
async fn check(mode: ConMode) -> Option<MonGrant> {
    let (addr, key) = monitor()?;
    let (tx, mut events) = mpsc::unbounded_channel();
    let config = Config::new(EntityName::client(-1), Default::default());
    let target = Target { type_: EntityType::MON, addr };
    let auth = connector(key, mode, now().wall);
    let session = connect(config, target, auth, move |_, event| drop(tx.send(event))).await;
    let session = session.unwrap();
    session.send(MonGetMap::default().to_raw(1, Features::PACIFIC));
    session.keepalive();
    let Some(Event::Ready(peer)) = events.recv().await else { panic!("not ready") };
    assert_eq!((peer.entity, peer.mode), (EntityName::mon(0), mode));
    assert!(peer.global_id > 0);
    let grant = peer.grant.unwrap();
    assert_eq!(grant.tickets.len(), 4);
    let Some(Event::Message(message)) = events.recv().await else { panic!("no answer") };
    let map = MonMapMsg::from_raw(&message.raw).unwrap();
    assert!(map.monmap.len() > 100);
    session.close();
    assert!(matches!(events.recv().await, Some(Event::Closed(CloseReason::Local))));
    Some(*grant)
}

#[tokio::test]
async fn a_real_monitor_in_crc_mode() {
    let _ = check(ConMode::Crc).await;
}

#[tokio::test]
async fn a_real_monitor_in_secure_mode() {
    let _ = check(ConMode::Secure).await;
}

#[tokio::test]
async fn a_real_monitor_refuses_a_wrong_key() {
    let Some((addr, _)) = monitor() else { return };
    let (tx, mut events) = mpsc::unbounded_channel();
    let config = Config::new(EntityName::client(-1), Default::default());
    let target = Target { type_: EntityType::MON, addr };
    let wrong = CryptoKey::from_secret(now().wall, [9; 16]);
    let auth = connector(wrong, ConMode::Secure, now().wall);
    connect(config, target, auth, move |_, event| drop(tx.send(event))).await.unwrap();
    let Some(Event::Closed(reason)) = events.recv().await else { panic!("no end") };
    assert!(reason.to_string().contains("refused method 2 with -13"), "{reason}");
}

#[tokio::test]
async fn a_real_osd_in_both_modes() {
    let Ok(addr) = std::env::var("SPIRULA_REAL_OSD") else {
        return;
    };
    let Some(grant) = check(ConMode::Secure).await else {
        return;
    };
    for mode in [ConMode::Crc, ConMode::Secure] {
        let (tx, mut events) = mpsc::unbounded_channel();
        let name = EntityName::client(grant.global_id as i64);
        let config = Config::new(name, Default::default());
        let target = Target { type_: EntityType::OSD, addr: addr.parse().unwrap() };
        let own = EntityNameStr::new(EntityType::CLIENT, "admin");
        let auth = ServiceConnector::new(EntityType::OSD, &grant, &own, vec![mode], [4; 32]);
        let auth = Box::new(auth.unwrap());
        let session = connect(config, target, auth, move |_, event| drop(tx.send(event))).await;
        let Some(Event::Ready(peer)) = events.recv().await else { panic!("not ready") };
        assert_eq!((peer.entity.type_, peer.mode), (EntityType::OSD, mode));
        session.unwrap().close();
    }
}
