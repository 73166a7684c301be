//! Every message captured from a real cluster decodes, and encodes to the same bytes.
//!
//! The format of the fixtures is in `fixtures/README.md`.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use spirula_wire::fuzzing::{check_raw, reencode};
use spirula_wire::{Header, Payload, RawMessage, msg};

fn unhex(text: &str) -> Bytes {
    let text = if text == "-" { "" } else { text };
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
}

fn parse(line: &str) -> RawMessage {
    let fields: Vec<&str> = line.split(' ').collect();
    let [type_, version, compat, front, middle, data] = fields[..] else { panic!("{line:.80}") };
    let header = Header {
        type_: type_.parse().unwrap(),
        version: version.parse().unwrap(),
        compat_version: compat.parse().unwrap(),
        tid: 7,
        ..Header::default()
    };
    let data = Some(unhex(data)).filter(|d| !d.is_empty()).into_iter().collect();
    RawMessage {
        header,
        payload: Payload { front: unhex(front), middle: unhex(middle), data, data_crc: None },
    }
}

fn fixtures() -> Vec<RawMessage> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    let text = paths.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect::<String>();
    text.lines().map(parse).collect()
}

#[test]
fn captured_messages_survive_a_round_trip() {
    let (mut seen, mut bad) = (BTreeSet::new(), Vec::new());
    for raw in fixtures() {
        let name = msg::name(raw.header.type_);
        seen.insert(name);
        match reencode(&raw).unwrap_or_else(|| panic!("{name} is not in `fuzzing`")) {
            Err(e) => bad.push(format!("{name}: {e}")),
            Ok(out) if out.payload.front != raw.payload.front => {
                let (a, b) = (&out.payload.front, &raw.payload.front);
                let at = a.iter().zip(b).position(|(x, y)| x != y);
                bad.push(format!("{name}: {} of {} bytes, differs at {at:?}", a.len(), b.len()));
            }
            Ok(out) => {
                let data_same = out.payload.data_bytes() == raw.payload.data_bytes();
                let header = |m: &RawMessage| (m.header.version, m.header.compat_version);
                if !data_same || out.payload.middle != raw.payload.middle {
                    bad.push(format!("{name}: data or middle differ"));
                }
                if header(&out) != header(&raw) {
                    bad.push(format!("{name}: {:?}, not {:?}", header(&out), header(&raw)));
                }
            }
        }
    }
    bad.dedup();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(seen.len() >= 40, "only {seen:?}");
}

/// A bit flip, a cut or a splice of the front; half of the data.
fn damage(raw: &mut RawMessage, at: usize, byte: u8, kind: u8) {
    let mut front = raw.payload.front.to_vec();
    let at = at % (front.len() + 1);
    match kind {
        0 if at < front.len() => front[at] ^= byte | 1,
        0 | 1 => front.truncate(at),
        2 => front.insert(at, byte),
        3 if front.len() - at >= 4 => front[at..at + 4].fill(0xff),
        _ => raw.header.version = byte.into(),
    }
    raw.payload.front = front.into();
    if byte & 1 == 1 {
        let data = raw.payload.data_bytes();
        raw.payload.data = vec![data.slice(..data.len() / 2)];
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_messages_never_panic(at: usize, byte: u8, kind in 0u8..5) {
        for mut raw in fixtures() {
            damage(&mut raw, at, byte, kind);
            check_raw(&raw);
        }
    }
}
