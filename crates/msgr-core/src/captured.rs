//! Real sessions, taken apart and put together again bit by bit.
#![cfg(test)]

use bytes::{Bytes, BytesMut};
use spirula_wire::{Decode, Header, Payload, RawMessage, Reader};

use crate::banner::{Banner, Revision};
use crate::config::Limits;
use crate::control::Control;
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
fn check(session: &str, direction: char) -> Vec<Tag> {
    let all: Vec<u8> = session
        .lines()
        .filter_map(|line| line.strip_prefix(direction))
        .flat_map(|line| hex(line.trim()))
        .collect();
    let mut input = BytesMut::from(&all[..]);
    let mut reader = FrameReader::new(Limits::default(), true);
    reader.messages = true;
    let mut writer = FrameWriter::new(true);
    let banner = Banner::take(&mut input, &mut Vec::new()).unwrap().unwrap();
    assert_eq!(Banner::default().agree(&banner), Ok(Revision::R1));
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
    let sent = check(session, '>');
    let opening =
        [Tag::Hello, Tag::AuthRequest, Tag::AuthRequestMore, Tag::AuthSignature, Tag::ClientIdent];
    assert_eq!(sent[..5], opening);
    assert!(sent[5..].iter().all(|&t| t == Tag::Message));
    let received = check(session, '<');
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
            assert!(check(session, direction).contains(&Tag::Message));
        }
    }
}
