//! Real sessions, taken apart and put together again bit by bit.
#![cfg(test)]

use bytes::{Bytes, BytesMut};
use spirula_wire::{Decode, Header, Payload, RawMessage, Reader};

use crate::banner::Banner;
use crate::config::Limits;
use crate::control::Control;
use crate::crypto::{Side, secure_pair};
use crate::frame::Tag;
use crate::rx::{FrameReader, Step};
use crate::tx::FrameWriter;

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Decodes one direction and returns its tags, having checked that encoding gives the same bytes.
fn check(session: &str, direction: char, ours: Banner) -> Vec<Tag> {
    let all: Vec<u8> = session
        .lines()
        .filter_map(|line| line.strip_prefix(direction))
        .flat_map(|line| hex(line.trim()))
        .collect();
    let secret = session.lines().find_map(|line| line.strip_prefix("secret ")).map(hex);
    let mut input = BytesMut::from(&all[..]);
    let mut reader = FrameReader::new(Limits::default(), true);
    reader.messages = true;
    let mut writer = FrameWriter::new(true);
    let banner = Banner::take(&mut input, &mut Vec::new()).unwrap().unwrap();
    let revision = ours.agree(&banner).unwrap();
    (reader.revision, writer.revision) = (revision, revision);
    let mut raw = Vec::new();
    banner.encode(&mut raw);
    writer.raw(&raw);
    let mut tags = Vec::new();
    loop {
        let frame = match reader.poll(&mut input, |_| true).unwrap() {
            Step::Frame(frame) => frame,
            Step::Need(_) => break,
            other => panic!("{other:?}"),
        };
        tags.push(frame.tag);
        match Control::decode(frame.tag, &frame.segments[0]).unwrap() {
            Some(control) => writer.control(control.tag(), &control.encode()).unwrap(),
            None => {
                let [header, front, middle, data] = frame.segments;
                let header = Header::decode(&mut Reader::new(&header)).unwrap();
                let payload = Payload { front, middle, data: vec![data], data_crc: None };
                writer.message(&RawMessage { header, payload }).unwrap();
            }
        }
        // The last that each side says in the clear.
        if let (Some(secret), Tag::AuthRequestMore | Tag::AuthDone) = (&secret, frame.tag) {
            let (sends, receives) = match direction {
                '>' => (Side::Connect, Side::Accept),
                _ => (Side::Accept, Side::Connect),
            };
            writer.sealer = Some(secure_pair(secret, revision, sends).unwrap().0);
            reader.opener = Some(secure_pair(secret, revision, receives).unwrap().1);
        }
    }
    assert_eq!(input.len(), 0, "the session ends with a whole frame");
    let mut out: Vec<Bytes> = Vec::new();
    writer.gather.drain_into(&mut out);
    assert_eq!(out.concat(), all);
    tags
}

#[test]
fn a_client_and_a_monitor() {
    let session = include_str!("../tests/fixtures/mon_bootstrap_crc.txt");
    let sent = check(session, '>', Banner::default());
    let opening =
        [Tag::Hello, Tag::AuthRequest, Tag::AuthRequestMore, Tag::AuthSignature, Tag::ClientIdent];
    assert_eq!(sent[..5], opening);
    assert!(sent[5..].iter().all(|&t| t == Tag::Message));
    let received = check(session, '<', Banner::default());
    let opening =
        [Tag::Hello, Tag::AuthReplyMore, Tag::AuthDone, Tag::AuthSignature, Tag::ServerIdent];
    assert_eq!(received[..5], opening);
    assert!(received[5..].iter().all(|&t| t == Tag::Message));
}

#[test]
fn a_client_and_an_osd() {
    for session in [
        include_str!("../tests/fixtures/osd_put_crc.txt"),
        include_str!("../tests/fixtures/osd_setxattr_crc.txt"),
    ] {
        for direction in ['<', '>'] {
            assert!(check(session, direction, Banner::default()).contains(&Tag::Message));
        }
    }
}

#[test]
fn a_client_and_an_osd_in_revision_2_0() {
    let old = Banner { supported: 0, required: 0 };
    for session in [
        include_str!("../tests/fixtures/osd_put_crc_r0.txt"),
        include_str!("../tests/fixtures/osd_put_secure_r0.txt"),
    ] {
        let sent = check(session, '>', old);
        assert_eq!(
            sent[..4],
            [Tag::Hello, Tag::AuthRequest, Tag::AuthRequestMore, Tag::AuthSignature]
        );
        let received = check(session, '<', old);
        assert_eq!(
            received[..4],
            [Tag::Hello, Tag::AuthReplyMore, Tag::AuthDone, Tag::AuthSignature]
        );
        for tags in [sent, received] {
            assert!(tags.ends_with(&[Tag::Message]), "{tags:?}");
        }
    }
}
