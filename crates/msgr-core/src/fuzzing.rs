//! Entry points for the fuzzer; each must return for any input.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spirula_auth::{AcceptAuth, AcceptStep, WallTime};
use spirula_wire::types::EntityName;

use crate::banner::{Banner, Revision};
use crate::config::{Config, Limits, Now};
use crate::connection::{Connection, Want};
use crate::control::Control;
use crate::crypto::{Side, secure_pair};
use crate::rx::{FrameReader, Step};

/// Frames in the layout that the first byte chooses, in pieces of the size that the second chooses,
/// and the control frames in them.
pub fn frames(data: &[u8]) {
    let [layout, piece, rest @ ..] = data else {
        return;
    };
    let mut reader = FrameReader::new(Limits::default(), layout & 8 == 0);
    reader.messages = layout & 4 == 0;
    reader.transcript = None;
    reader.revision = if layout & 1 == 0 {
        Revision::R1
    } else {
        Revision::R0
    };
    if layout & 2 != 0 {
        reader.opener = secure_pair(&[1; 64], reader.revision, Side::Accept)
            .ok()
            .map(|p| p.1);
    }
    let mut input = BytesMut::new();
    for part in rest.chunks(usize::from(*piece).max(1)) {
        input.extend_from_slice(part);
        loop {
            match reader.poll(&mut input, |_| true) {
                Ok(Step::Frame(frame)) => {
                    let _ = Control::decode(frame.tag, &frame.segments[0]);
                }
                Ok(Step::Body(len)) if layout & 16 != 0 && len <= 1 << 20 => {
                    let _ = reader.body(Bytes::from(vec![0; len]));
                }
                Ok(Step::Aborted(_)) => {}
                Ok(Step::Need(_) | Step::Body(_) | Step::Throttled) => break,
                Err(_) => return,
            }
        }
    }
}

/// The accepting side's handshake; a valid banner comes first if the first byte is even.
pub fn accept(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let config = Config::new(EntityName::osd(0), Default::default());
    let from = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let now = Now::default();
    let mut connection = Connection::accept(config, from, Box::new(Echo), now);
    let mut bytes = Vec::new();
    if first % 2 == 0 {
        Banner::default().encode(&mut bytes);
    }
    bytes.extend_from_slice(rest);
    let mut input = BytesMut::from(&bytes[..]);
    let _ = connection.handle_input(now, &mut input);
    while connection.poll_event().is_some() {}
    let _ = connection.poll_transmit(&mut Vec::new());
    if let Want::Bytes(n) = connection.wants() {
        assert!(n <= 1 << 20, "waits for {n} bytes before authentication");
    }
    let _ = connection.handle_timeout(Now {
        mono: Duration::from_secs(1000),
        ..now
    });
}

/// Never content.
struct Echo;

impl AcceptAuth for Echo {
    fn request(&mut self, _: WallTime, method: u32, modes: &[u32], payload: &[u8]) -> AcceptStep {
        if method.is_multiple_of(2) {
            return AcceptStep::More(payload.to_vec());
        }
        AcceptStep::Bad {
            result: -13,
            allowed_methods: vec![2],
            allowed_modes: modes.to_vec(),
        }
    }

    fn more(&mut self, _: WallTime, payload: &[u8]) -> AcceptStep {
        AcceptStep::More(payload.to_vec())
    }
}
