//! Making a new cluster: identity, keys and ports, decided once.

use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use spirula_auth::CryptoKey;

use crate::cluster_dir::{DeviceClass, Identity, OsdIdentity, VERSION};

/// What the user asked for.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) osds: u32,
    pub(crate) mons: u8,
    pub(crate) size: u8,
    pub(crate) port_base: Option<u16>,
    pub(crate) device_bytes: u64,
    pub(crate) wal_device_bytes: u64,
    pub(crate) meta_device_bytes: u64,
    pub(crate) class: DeviceClass,
}

/// A seed from the system's entropy; the cores get their randomness from it.
pub(crate) fn entropy() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("no entropy from the system: {e}"))?;
    Ok(seed)
}

/// A new identity for a cluster of `shape`.
pub(crate) fn new_identity(shape: &Shape) -> Result<Identity> {
    let mut rng = ChaCha20Rng::from_seed(entropy()?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("clock before 1970")?;
    let mut key = || CryptoKey::generate(now, &mut rng).to_base64();
    let (admin_key, mgr_key) = (key(), key());
    let osd_keys: Vec<String> = (0..shape.osds).map(|_| key()).collect();
    let osds = (0..)
        .zip(osd_keys)
        .map(|(id, key)| OsdIdentity { id, uuid: uuid(&mut rng), key })
        .collect();
    let mut listeners = vec![free_port(shape.port_base)?];
    for n in 1..u16::from(shape.mons) {
        // Behind the manager's and the OSDs'.
        let behind = |base: u16| base + 1 + shape.osds as u16 + n;
        listeners.push(free_port(shape.port_base.map(behind))?);
    }
    let ports: Vec<u16> =
        listeners.iter().map(|l| l.local_addr().map(|a| a.port())).collect::<Result<_, _>>()?;
    Ok(Identity {
        version: VERSION,
        fsid: uuid(&mut rng),
        mon_port: ports[0],
        more_mon_ports: ports[1..].to_vec(),
        port_base: shape.port_base,
        size: shape.size,
        device_bytes: shape.device_bytes,
        wal_device_bytes: shape.wal_device_bytes,
        meta_device_bytes: shape.meta_device_bytes,
        class: shape.class,
        admin_key,
        mgr_key,
        osds,
    })
}

/// The asked port, or one that is free now and stays so while it is held: the monitors' ports are
/// part of the cluster's identity.
fn free_port(asked: Option<u16>) -> Result<TcpListener> {
    let asked = asked.unwrap_or(0);
    TcpListener::bind(("127.0.0.1", asked))
        .with_context(|| format!("port {asked} is in use; choose another with --port"))
}

/// A random (version 4) UUID.
fn uuid(rng: &mut ChaCha20Rng) -> String {
    let mut b: [u8; 16] = rng.random();
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = free_port(Some(port)).unwrap_err();
        assert_eq!(error.to_string(), format!("port {port} is in use; choose another with --port"));
    }
}
