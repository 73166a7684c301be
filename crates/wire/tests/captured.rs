//! Every message captured from a real cluster decodes, and encodes to the same bytes.
//!
//! The format of the fixtures is in `fixtures/README.md`.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use spirula_wire::msg::{auth::*, command::*, mgr::*, mon::*, osd::*, osd_op::*};
use spirula_wire::{DecodeError, Features, Header, Message, Payload, RawMessage, msg};

fn again<M: Message>(raw: &RawMessage) -> Result<RawMessage, DecodeError> {
    Ok(M::from_raw(raw)?.to_raw(raw.header.tid, Features::PACIFIC))
}

macro_rules! table {
    ($($m:ident)*) => {
        fn round_trip(raw: &RawMessage) -> Option<Result<RawMessage, DecodeError>> {
            match raw.header.type_ {
                $($m::TYPE => Some(again::<$m>(raw)),)*
                _ => None,
            }
        }
    };
}
table! {
    Ping Command CommandReply Auth AuthReply MonGlobalId MonGetMap MonMapMsg MonSubscribe
    MonSubscribeAck MonCommand MonCommandAck MonGetVersion MonGetVersionReply Statfs StatfsReply
    GetPoolStats GetPoolStatsReply PoolOp PoolOpReply Config GetConfig Log LogAck OsdMapMsg OsdBoot
    OsdAlive OsdBeacon OsdFailure OsdMarkMeDown OsdMarkMeDead OsdFull OsdPgTemp OsdPgCreated
    OsdPgCreate2 PgStats PgStatsAck OsdBackoff WatchNotify OsdPing OsdOpMsg OsdOpReply MgrMapMsg
    ServiceMapMsg MgrBeacon MgrOpen MgrConfigure MgrReport MgrClose MgrCommand MgrCommandReply
    MonMgrReport MgrDigest
}

fn unhex(text: &str) -> Bytes {
    let text = if text == "-" { "" } else { text };
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).unwrap() as u8)
        .collect();
    digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
}

fn parse(line: &str) -> RawMessage {
    let fields: Vec<&str> = line.split(' ').collect();
    let [type_, version, compat, front, middle, data] = fields[..] else {
        panic!("{line:.80}")
    };
    let header = Header {
        type_: type_.parse().unwrap(),
        version: version.parse().unwrap(),
        compat_version: compat.parse().unwrap(),
        tid: 7,
        ..Header::default()
    };
    let data = Some(unhex(data))
        .filter(|d| !d.is_empty())
        .into_iter()
        .collect();
    RawMessage {
        header,
        payload: Payload {
            front: unhex(front),
            middle: unhex(middle),
            data,
        },
    }
}

#[test]
fn captured_messages_survive_a_round_trip() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (mut seen, mut bad) = (BTreeSet::new(), Vec::new());
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "txt") {
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let raw = parse(line);
            let name = msg::name(raw.header.type_);
            seen.insert(name);
            match round_trip(&raw).unwrap_or_else(|| panic!("{name} is not in the table")) {
                Err(e) => bad.push(format!("{name}: {e}")),
                Ok(out) if out.payload.front != raw.payload.front => {
                    let (a, b) = (&out.payload.front, &raw.payload.front);
                    let at = a.iter().zip(b).position(|(x, y)| x != y);
                    bad.push(format!(
                        "{name}: {} of {} bytes, differs at {at:?}",
                        a.len(),
                        b.len()
                    ));
                }
                Ok(out) => {
                    let data_same = out.payload.data_bytes() == raw.payload.data_bytes();
                    let header = |m: &RawMessage| (m.header.version, m.header.compat_version);
                    if !data_same || out.payload.middle != raw.payload.middle {
                        bad.push(format!("{name}: data or middle differ"));
                    }
                    if header(&out) != header(&raw) {
                        bad.push(format!(
                            "{name}: {:?}, not {:?}",
                            header(&out),
                            header(&raw)
                        ));
                    }
                }
            }
        }
    }
    bad.dedup();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(seen.len() >= 20, "only {seen:?}");
}
