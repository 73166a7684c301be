//! The `ceph` tool of a real Ceph as the connecting side: set `SPIRULA_REAL_CLI=ceph`. Without it
//! these tests pass at once.

#[path = "support/keys.rs"]
mod keys;

use std::process::Stdio;
use std::time::Duration;

use keys::*;
use spirula_auth::ConMode;
use spirula_msgr::on_tokio::{Event, Session, now, serve};
use spirula_msgr::{Accepted, Config};
use spirula_wire::msg::mon::MonGetMap;
use spirula_wire::types::{EntityAddr, EntityName, EntityType};
use spirula_wire::{Features, Message};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;

async fn check(mode: ConMode, mode_name: &str) {
    let Ok(cli) = std::env::var("SPIRULA_REAL_CLI") else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = EntityAddr::msgr2(listener.local_addr().unwrap(), 0);
    let (tx, mut events) = mpsc::unbounded_channel();
    tokio::spawn(serve(listener, move |_| {
        let tx = tx.clone();
        let mut config = Config::new(EntityName::mon(0), addr.into());
        // As a monitor of that release has it.
        config.required = Features(0x0c01_0210_4204_0000);
        Some(Accepted {
            config,
            auth: acceptor(true, now().wall),
            dispatch: move |_: &Session, event: Event| drop(tx.send(event)),
        })
    }));
    let mut client = Command::new(cli)
        .args(["--conf", "/dev/null", "--id", "admin", "--connect-timeout", "3"])
        .arg(format!("--mon-host=v2:{}", addr.addr.unwrap()))
        .arg(format!("--key={}", client_key().to_base64()))
        .args([&format!("--ms_mon_client_mode={mode_name}"), "status"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let wait = Duration::from_secs(10);
    let ready = tokio::time::timeout(wait, events.recv()).await.unwrap();
    let Some(Event::Ready(peer)) = ready else { panic!("{ready:?}") };
    assert_eq!((peer.entity.type_, peer.mode), (EntityType::CLIENT, mode));
    assert_eq!(peer.auth.unwrap().name.to_string(), "client.admin");
    let first = tokio::time::timeout(wait, events.recv()).await.unwrap();
    let Some(Event::Message(message)) = first else { panic!("{first:?}") };
    MonGetMap::from_raw(&message.raw).unwrap();
    client.kill().await.unwrap();
}

#[tokio::test]
async fn a_real_client_in_crc_mode() {
    check(ConMode::Crc, "crc").await;
}

#[tokio::test]
async fn a_real_client_in_secure_mode() {
    check(ConMode::Secure, "secure").await;
}
