//! One monitor for trying it with a real `ceph`: `mon_alone DIR PORT [OSDS]`.
//!
//! Makes a cluster in DIR (unless there is one), writes `DIR/ceph.conf` and `DIR/keyring`, serves
//! until interrupted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spirula_auth::CryptoKey;
use spirula_mon::{
    MkfsConfig, MonServer, MonServerConfig, NewOsd, NewPoolSpec, Now, RedbStorage, mkfs,
};
use spirula_wire::types::{EntityAddr, EntityAddrVec, Uuid};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(port)) = (args.next(), args.next()) else {
        return Err("usage: mon_alone DIR PORT [OSDS]".into());
    };
    let dir = PathBuf::from(dir);
    let osds = args.next().map_or(Ok(1), |n| n.parse::<u32>())?;
    let options = options();
    let store = dir.join("mon.a");
    if !store.exists() {
        make(&dir, port.parse()?, osds, &options)?;
    }
    let server = MonServer::start(MonServerConfig {
        name: "a".into(),
        fsid: None,
        storage: Box::new(RedbStorage::open(&store)?),
        options,
        admin_socket: Some(dir.join("mon.a.asok")),
    })
    .await?;
    println!("mon.a on {}; export CEPH_CONF={}", server.addr(), dir.join("ceph.conf").display());
    tokio::signal::ctrl_c().await?;
    server.stop().await;
    Ok(())
}

fn options() -> BTreeMap<String, String> {
    let pairs = [
        ("osd pool default size", "1"),
        ("osd pool default min size", "1"),
        ("osd pool default pg num", "32"),
        ("osd pool default pgp num", "32"),
        ("osd pool default pg autoscale mode", "off"),
        ("osd crush chooseleaf type", "0"),
        ("mon allow pool size one", "true"),
        ("mon allow pool delete", "true"),
        ("mon warn on pool no redundancy", "false"),
        ("mon osd reporter subtree level", "osd"),
    ];
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn make(
    dir: &std::path::Path,
    port: u16,
    osds: u32,
    options: &BTreeMap<String, String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mut key = || CryptoKey::generate(wall, &mut rng);
    let (admin_key, mgr_key) = (key(), key());
    let osd_keys: Vec<CryptoKey> = (0..osds).map(|_| key()).collect();
    let mut uuid = || {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Uuid::from_random(bytes)
    };
    let fsid = uuid();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let config = MkfsConfig {
        fsid,
        mon_name: "a".into(),
        mon_addrs: EntityAddrVec::one(EntityAddr::msgr2(addr, 0)),
        hostname: "vm".into(),
        admin_key: admin_key.clone(),
        mgrs: vec![("x".into(), mgr_key)],
        osds: osd_keys
            .into_iter()
            .map(|key| NewOsd { uuid: uuid(), key, bytes: 10 << 30 })
            .collect(),
        device_class: "ssd".into(),
        pools: vec![NewPoolSpec { name: "rbd".into(), pg_num: 32, application: "rbd".into() }],
        options: options.clone(),
        seed: [9; 32],
    };
    let mut storage = RedbStorage::create(&dir.join("mon.a"))?;
    mkfs(&config, Now { mono: Duration::ZERO, wall }, &mut storage)?;
    let keyring = dir.join("keyring");
    std::fs::write(&keyring, format!("[client.admin]\n\tkey = {}\n", admin_key.to_base64()))?;
    let conf = format!(
        "[global]\nfsid = {fsid}\nmon host = [v2:{addr}]\nkeyring = {}\n",
        keyring.display()
    );
    std::fs::write(dir.join("ceph.conf"), conf)?;
    Ok(())
}
