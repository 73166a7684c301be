//! Inputs made of the crates' fixtures (what real daemons wrote), in the framing of each target.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;

use spirula_bio::{DeviceSet, Role, Superblock, wal};
use spirula_cls::fuzzing::Step;
use spirula_wire::msg::mon::MonCommand;
use spirula_wire::msg::osd_op::OsdOpMsg;
use spirula_wire::{Header, Message, Payload, RawMessage};

use crate::mutate;

/// Writes all seeds to `dir/<target>`, each named by its digest.
pub fn write(dir: &Path) -> Result<()> {
    messages(dir)?;
    maps(dir)?;
    class_calls(dir)?;
    for seed in spirula_msgr_core::fuzzing::session_seeds() {
        put(dir, "msgr_session", &seed)?;
    }
    for (target, seed) in spirula_wire::fuzzing::seeds() {
        put(dir, target, &seed)?;
    }
    for (target, seed) in spirula_vos::fuzzing::seeds() {
        put(dir, &format!("vos_{target}"), &seed)?;
    }
    for (target, seed) in spirula_mon::fuzzing::seeds() {
        put(dir, &format!("mon_{target}"), &seed)?;
    }
    for (target, seed) in spirula_osd::fuzzing::seeds() {
        put(dir, &format!("osd_{target}"), &seed)?;
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
    for family in ["auth", "command", "mgr", "mon", "osd", "osd_op", "pg"] {
        let text = fixture(&format!("wire/tests/fixtures/{family}.txt"))?;
        for line in String::from_utf8(text)?.lines() {
            let raw = message(line).with_context(|| format!("{family}: {line}"))?;
            if let Some(seed) = spirula_wire::fuzzing::input_of(&raw) {
                put(dir, &format!("wire_{family}"), &seed)?;
                if raw.header.type_ == OsdOpMsg::TYPE {
                    put(dir, "osd_plan", &seed)?;
                }
            }
            if let Some(seed) = spirula_pg::fuzzing::input_of(&raw) {
                put(dir, "pg_messages", &seed)?;
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

/// Measured calls on one object, for each object that meets a method that no other has met.
fn class_calls(dir: &Path) -> Result<()> {
    let measured = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/cls/tests/measured");
    let mut files: Vec<_> =
        std::fs::read_dir(&measured)?.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut met = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        for object in text.split("\nobject ") {
            let known = met.len();
            let seed = calls_on(object, &mut met).with_context(|| file.display().to_string())?;
            if met.len() > known {
                put(dir, "cls_methods", &seed)?;
            }
        }
    }
    Ok(())
}

/// The steps of one measured object, up to the size of a seed; `None` if they cannot be read.
fn calls_on(object: &str, met: &mut BTreeSet<String>) -> Option<Vec<u8>> {
    const SEED_MAX: usize = 2000;
    let name = |word: &str| match word.strip_prefix("0x") {
        Some(digits) => class_value(digits),
        None => Some(word.as_bytes().to_vec()),
    };
    let mut seed = Vec::new();
    for line in object.lines().skip(1) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["call", class, method, input] => {
                let input = &class_value(input)?;
                let (class_name, method_name) = (class.as_bytes(), method.as_bytes());
                Step::Call { class: class_name, method: method_name, input }.put(&mut seed);
                met.insert(format!("{class}.{method}"));
            }
            ["set", "omap", key, value] => {
                let (key, value) = (&name(key)?, &class_value(value)?);
                Step::SetOmap { key, value }.put(&mut seed);
            }
            ["set", "xattr", key, value] => {
                let (name, value) = (&name(key)?, &class_value(value)?);
                Step::SetXattr { name, value }.put(&mut seed);
            }
            ["set", "data", value] => Step::SetData { value: &class_value(value)? }.put(&mut seed),
            _ => {}
        }
        if seed.len() > SEED_MAX {
            break;
        }
    }
    Some(seed)
}

/// Hexadecimal parts joined by `+`, of which `xx*n` is a byte n times; `-` is no byte.
fn class_value(word: &str) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    for part in word.split('+').filter(|part| *part != "-") {
        match part.split_once('*') {
            Some((byte, count)) => value.extend(unhex(byte)?.repeat(count.parse().ok()?)),
            None => value.extend(unhex(part)?),
        }
    }
    Some(value)
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
