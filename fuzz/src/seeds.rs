//! Inputs made of the crates' fixtures (what real daemons wrote), in the framing of each target.

use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;

use spirula_bio::{DeviceSet, Role, Superblock, wal};
use spirula_wire::msg::mon::MonCommand;
use spirula_wire::msg::osd_op::OsdOpMsg;
use spirula_wire::{Header, Message, Payload, RawMessage};

use crate::mutate;

/// Writes all seeds to `dir/<target>`, each named by its digest.
pub fn write(dir: &Path) -> Result<()> {
    messages(dir)?;
    maps(dir)?;
    for seed in spirula_msgr_core::fuzzing::session_seeds() {
        put(dir, "msgr_session", &seed)?;
    }
    for (target, seed) in spirula_vos::fuzzing::seeds() {
        put(dir, &format!("vos_{target}"), &seed)?;
    }
    for (target, seed) in spirula_mon::fuzzing::seeds() {
        put(dir, &format!("mon_{target}"), &seed)?;
    }
    own_blocks(dir)
}

/// Blocks of a device, as `bio` writes them.
fn own_blocks(dir: &Path) -> Result<()> {
    let superblock = Superblock {
        fsid: [1; 16],
        osd_uuid: [2; 16],
        osd_id: 0,
        compatible: 0,
        device_bytes: 1 << 30,
        wal_bytes: 1 << 20,
        set: Default::default(),
    };
    put(dir, "bio_superblock", &superblock.encode()[..128])?;
    for (role, bytes) in [(Role::Main, 1 << 30), (Role::Wal, 1 << 20), (Role::Meta, 1 << 28)] {
        let set = DeviceSet { uuid: [3; 16], role, wal: true, meta_bytes: 1 << 28 };
        let superblock = Superblock { set, device_bytes: bytes, ..superblock };
        put(dir, "bio_superblock", &superblock.encode()[..128])?;
    }
    let batch = wal::encode_batch(1, 2, [&b"one"[..], b"two"].into_iter());
    put(dir, "bio_wal_batch", &batch[..128])
}

fn put(dir: &Path, target: &str, seed: &[u8]) -> Result<()> {
    let dir = dir.join(target);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join(mutate::name(seed)), seed)?;
    Ok(())
}

fn fixture(name: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(name);
    std::fs::read(&path).with_context(|| path.display().to_string())
}

/// The captured messages, one a line.
fn messages(dir: &Path) -> Result<()> {
    for family in ["auth", "command", "mgr", "mon", "osd", "osd_op"] {
        let text = fixture(&format!("wire/tests/fixtures/{family}.txt"))?;
        for line in String::from_utf8(text)?.lines() {
            let raw = message(line).with_context(|| format!("{family}: {line}"))?;
            if let Some(seed) = spirula_wire::fuzzing::input_of(&raw) {
                put(dir, &format!("wire_{family}"), &seed)?;
                if raw.header.type_ == OsdOpMsg::TYPE {
                    put(dir, "osd_plan", &seed)?;
                }
            }
            if let Ok(command) = MonCommand::from_raw(&raw) {
                put(dir, "mon_command", command.cmd.concat().as_bytes())?;
            }
        }
    }
    Ok(())
}

/// `type version compat front middle data`, the last three in hexadecimal or `-`.
fn message(line: &str) -> Option<RawMessage> {
    let mut words = line.split(' ');
    let header = Header {
        type_: words.next()?.parse().ok()?,
        version: words.next()?.parse().ok()?,
        compat_version: words.next()?.parse().ok()?,
        ..Header::default()
    };
    let payload = Payload {
        front: unhex(words.next()?)?,
        middle: unhex(words.next()?)?,
        data: vec![unhex(words.next()?)?],
        data_crc: None,
    };
    Some(RawMessage { header, payload })
}

fn unhex(word: &str) -> Option<Bytes> {
    if word == "-" {
        return Some(Bytes::new());
    }
    (0..word.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(word.get(at..at + 2)?, 16).ok())
        .collect()
}

fn maps(dir: &Path) -> Result<()> {
    for (target, file) in [
        ("crush_map", "weight-sets.crush"),
        ("maps_osdmap", "busy-cluster.119.osdmap"),
        ("maps_monmap", "one-mon.monmap"),
        ("maps_mgrmap", "none-active.mgrmap"),
        ("maps_mgrmap", "active.mgrmap"),
        ("maps_digest", "three-osds.digest"),
    ] {
        put(dir, target, &fixture(&format!("maps/tests/fixtures/{file}"))?)?;
    }
    for cluster in ["new-cluster", "busy-cluster"] {
        let all = fixture(&format!("maps/tests/fixtures/{cluster}.incrementals"))?;
        let mut rest = &all[..];
        while let Some((len, tail)) = rest.split_first_chunk() {
            let len = u32::from_le_bytes(*len) as usize;
            let (one, tail) = tail.split_at_checked(len).context("incrementals cut short")?;
            put(dir, "maps_incremental", one)?;
            rest = tail;
        }
    }
    Ok(())
}
