//! Against a running Ceph: set `SPIRULA_REAL_MON=ip:port` and `SPIRULA_REAL_KEY` (of client.admin).
//! Without them these tests pass at once.

#[path = "support/keys.rs"]
mod keys;

use keys::connector;
use spirula_auth::{ConMode, CryptoKey};
use spirula_msgr::on_tokio::{Event, connect, now};
use spirula_msgr::{CloseReason, Config, Target};
use spirula_wire::msg::mon::{MonGetMap, MonMapMsg};
use spirula_wire::types::{EntityAddr, EntityName, EntityType};
use spirula_wire::{Features, Message};
use tokio::sync::mpsc;

fn monitor() -> Option<(EntityAddr, CryptoKey)> {
    let addr = std::env::var("SPIRULA_REAL_MON").ok()?.parse().unwrap();
    let key = std::env::var("SPIRULA_REAL_KEY").ok()?;
    Some((
        EntityAddr::msgr2(addr, 0),
        CryptoKey::from_base64(&key).unwrap(),
    ))
}

async fn check(mode: ConMode) {
    let Some((addr, key)) = monitor() else { return };
    let (tx, mut events) = mpsc::unbounded_channel();
    let config = Config::new(EntityName::client(-1), Default::default());
    let target = Target {
        type_: EntityType::MON,
        addr,
    };
    let auth = connector(key, mode, now().wall);
    let session = connect(config, target, auth, move |_, event| drop(tx.send(event))).await;
    let session = session.unwrap();
    session.send(MonGetMap::default().to_raw(1, Features::PACIFIC));
    session.keepalive();
    match events.recv().await.unwrap() {
        Event::Ready(peer) => {
            assert_eq!((peer.entity, peer.mode), (EntityName::mon(0), mode));
            assert!(peer.global_id > 0);
            assert_eq!(peer.grant.unwrap().tickets.len(), 4);
        }
        other => panic!("{other:?}"),
    }
    let Some(Event::Message(message)) = events.recv().await else {
        panic!("no answer")
    };
    let map = MonMapMsg::from_raw(&message.raw).unwrap();
    assert!(map.monmap.len() > 100);
    session.close();
    assert!(matches!(
        events.recv().await,
        Some(Event::Closed(CloseReason::Local))
    ));
}

#[tokio::test]
async fn a_real_monitor_in_crc_mode() {
    check(ConMode::Crc).await;
}

#[tokio::test]
async fn a_real_monitor_in_secure_mode() {
    check(ConMode::Secure).await;
}

#[tokio::test]
async fn a_real_monitor_refuses_a_wrong_key() {
    let Some((addr, _)) = monitor() else { return };
    let (tx, mut events) = mpsc::unbounded_channel();
    let config = Config::new(EntityName::client(-1), Default::default());
    let target = Target {
        type_: EntityType::MON,
        addr,
    };
    let wrong = CryptoKey::from_secret(now().wall, [9; 16]);
    let auth = connector(wrong, ConMode::Secure, now().wall);
    connect(config, target, auth, move |_, event| drop(tx.send(event)))
        .await
        .unwrap();
    let Some(Event::Closed(reason)) = events.recv().await else {
        panic!("no end")
    };
    assert!(
        reason.to_string().contains("refused method 2 with -13"),
        "{reason}"
    );
}
