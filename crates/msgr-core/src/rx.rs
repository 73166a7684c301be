//! The receiving half: bytes to frames.
//!
//! Invariants: a length is checked against its limit before anything is waited for; segments are
//! slices of the receive buffer, never copies (but for a control segment split by 2.1 secure mode);
//! nothing of a frame is handed up before all of it was verified.

use bytes::{Buf, Bytes, BytesMut};

use crate::banner::Revision;
use crate::config::Limits;
use crate::crc::{DataCrc, segment_crc};
use crate::crypto::Opener;
use crate::error::{ApiMisuse, PeerMisbehaved, ProtocolError};
use crate::frame::{
    CRC_LEN, EPILOGUE_SECURE_LEN, GCM_TAG_LEN, INLINE_LEN, PREAMBLE_LEN, Preamble,
    SECURE_PREAMBLE_LEN, SEGMENTS, Tag, is_complete,
};

const DATA: usize = 3;

/// A verified frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) tag: Tag,
    pub(crate) segments: [Bytes; SEGMENTS],
    /// Standard CRC-32C per 4 KiB of the data segment.
    pub(crate) data_crcs: Vec<u32>,
}

/// What came of looking at the input.
#[derive(Debug)]
pub(crate) enum Step {
    /// The input must hold this many bytes.
    Need(usize),
    /// The dispatch throttle has no room for a message of this payload.
    Throttled,
    /// The data segment of this length comes next.
    Body(usize),
    Frame(Frame),
    /// The sender aborted a message of this payload length; the throttle took it already.
    Aborted(u64),
}

pub(crate) struct FrameReader {
    pub(crate) revision: Revision,
    pub(crate) opener: Option<Opener>,
    /// Handshake bytes for the signature; `None` once it is made.
    pub(crate) transcript: Option<Vec<u8>>,
    /// Whether MESSAGE frames may come.
    pub(crate) messages: bool,
    verify_data_crc: bool,
    limits: Limits,
    state: State,
}

enum State {
    Start,
    /// The preamble is read. `inline` is the opened start of segment 0 in 2.1 secure mode.
    Gate {
        pre: Preamble,
        inline: Bytes,
    },
    Rest {
        pre: Preamble,
        inline: Bytes,
    },
    /// CRC mode: segments 0 to 2 of a message whose data may be received into place.
    Prefix {
        pre: Preamble,
    },
    Body {
        pre: Preamble,
        segments: [Bytes; SEGMENTS],
    },
    Epilogue {
        pre: Preamble,
        segments: [Bytes; SEGMENTS],
        data: DataCrc,
    },
}

impl FrameReader {
    pub(crate) fn new(limits: Limits, verify_data_crc: bool) -> Self {
        Self {
            revision: Revision::R1,
            opener: None,
            transcript: Some(Vec::new()),
            messages: false,
            verify_data_crc,
            limits,
            state: State::Start,
        }
    }

    /// Advances by what `input` holds. `admit` is the dispatch throttle.
    pub(crate) fn poll(
        &mut self,
        input: &mut BytesMut,
        mut admit: impl FnMut(u64) -> bool,
    ) -> Result<Step, ProtocolError> {
        loop {
            match std::mem::replace(&mut self.state, State::Start) {
                State::Start => match self.start(input)? {
                    Ok(state) => self.state = state,
                    Err(need) => return Ok(Step::Need(need)),
                },
                State::Gate { pre, inline } => {
                    if pre.tag == Tag::Message && !admit(pre.payload_len()) {
                        self.state = State::Gate { pre, inline };
                        return Ok(Step::Throttled);
                    }
                    self.state = self.plan(pre, inline, input.len());
                }
                State::Rest { pre, inline } => {
                    let need = self.rest_len(&pre);
                    if input.len() < need {
                        self.state = State::Rest { pre, inline };
                        return Ok(Step::Need(need));
                    }
                    let rest = self.take(input, need)?;
                    return self.finish(pre, inline, rest);
                }
                State::Prefix { pre } => {
                    let need = pre.first_crc_len(self.revision) + pre.len(1) + pre.len(2);
                    if input.len() < need {
                        self.state = State::Prefix { pre };
                        return Ok(Step::Need(need));
                    }
                    let mut prefix = self.take(input, need)?.freeze();
                    let segments = self.split_crc(&pre, &mut prefix)?;
                    self.state = State::Body { pre, segments };
                }
                State::Body { pre, segments } => {
                    let len = pre.len(DATA);
                    self.state = State::Body { pre, segments };
                    if input.len() < len {
                        return Ok(Step::Body(len));
                    }
                    let body = self.take(input, len)?.freeze();
                    self.body(body)?;
                }
                State::Epilogue { pre, segments, data } => {
                    let need = pre.epilogue_crc_len(self.revision);
                    if input.len() < need {
                        self.state = State::Epilogue { pre, segments, data };
                        return Ok(Step::Need(need));
                    }
                    let epilogue = self.take(input, need)?;
                    return self.verify_crc(&pre, segments, data, &epilogue);
                }
            }
        }
    }

    /// Takes the data segment that [`Step::Body`] asked for.
    pub(crate) fn body(&mut self, body: Bytes) -> Result<(), ProtocolError> {
        match std::mem::replace(&mut self.state, State::Start) {
            State::Body { pre, mut segments } if pre.len(DATA) == body.len() => {
                let data = DataCrc::of(&body);
                segments[DATA] = body;
                self.state = State::Epilogue { pre, segments, data };
                Ok(())
            }
            _ => Err(ProtocolError::Misuse(ApiMisuse::UnwantedBody)),
        }
    }

    /// Reads a preamble; the inner `Err` is how many bytes it takes.
    fn start(&mut self, input: &mut BytesMut) -> Result<Result<State, usize>, ProtocolError> {
        let len = match (&self.opener, self.revision) {
            (Some(_), Revision::R1) => SECURE_PREAMBLE_LEN,
            _ => PREAMBLE_LEN,
        };
        let Some(head) = input.first_chunk::<PREAMBLE_LEN>().filter(|_| input.len() >= len) else {
            return Ok(Err(len));
        };
        let mut inline = Bytes::new();
        let pre = match (&mut self.opener, self.revision) {
            (None, _) => {
                let pre = Preamble::decode(head)?;
                self.record(&input[..PREAMBLE_LEN])?;
                input.advance(PREAMBLE_LEN);
                pre
            }
            // Stays in the input: the whole frame is one cipher text.
            (Some(opener), Revision::R0) => Preamble::decode(&opener.peek(head))?,
            (Some(opener), Revision::R1) => {
                let mut block = input.split_to(SECURE_PREAMBLE_LEN);
                opener.open(&mut block)?;
                let pre = Preamble::decode(&block)?;
                inline = block.freeze().slice(PREAMBLE_LEN..PREAMBLE_LEN + INLINE_LEN);
                pre
            }
        };
        self.check_limits(&pre)?;
        Ok(Ok(State::Gate { pre, inline }))
    }

    fn check_limits(&self, pre: &Preamble) -> Result<(), ProtocolError> {
        if pre.tag == Tag::Message && !self.messages {
            return Err(PeerMisbehaved::Unexpected(pre.tag).into());
        }
        let l = &self.limits;
        let max = [l.control_max, l.front_max, l.middle_max, l.data_max];
        for (segment, (&len, max)) in (0..).zip(pre.lens.iter().zip(max)) {
            if len > max {
                return Err(PeerMisbehaved::TooLong { segment, len, max }.into());
            }
        }
        Ok(())
    }

    /// Chooses between waiting for the whole frame and receiving its data into place.
    fn plan(&self, pre: Preamble, inline: Bytes, available: usize) -> State {
        let direct = self.opener.is_none()
            && pre.lens[DATA] >= self.limits.direct_body_min
            && available < pre.rest_crc_len(self.revision);
        if direct { State::Prefix { pre } } else { State::Rest { pre, inline } }
    }

    fn rest_len(&self, pre: &Preamble) -> usize {
        match (&self.opener, self.revision) {
            (None, revision) => pre.rest_crc_len(revision),
            (Some(_), Revision::R0) => pre.whole_secure_r0_len(),
            (Some(_), Revision::R1) => pre.first_secure_len() + pre.tail_secure_len(),
        }
    }

    fn take(&mut self, input: &mut BytesMut, len: usize) -> Result<BytesMut, ProtocolError> {
        let part = input.split_to(len);
        self.record(&part)?;
        Ok(part)
    }

    fn record(&mut self, part: &[u8]) -> Result<(), ProtocolError> {
        if let Some(transcript) = &mut self.transcript {
            let max = self.limits.handshake_max;
            if transcript.len() + part.len() > max {
                return Err(PeerMisbehaved::HandshakeTooLong { max }.into());
            }
            transcript.extend_from_slice(part);
        }
        Ok(())
    }

    fn finish(
        &mut self,
        pre: Preamble,
        inline: Bytes,
        rest: BytesMut,
    ) -> Result<Step, ProtocolError> {
        match (&mut self.opener, self.revision) {
            (None, _) => {
                let mut rest = rest.freeze();
                let mut segments = self.split_crc(&pre, &mut rest)?;
                segments[DATA] = rest.split_to(pre.len(DATA));
                let data = DataCrc::of(&segments[DATA]);
                self.verify_crc(&pre, segments, data, &rest)
            }
            (Some(opener), Revision::R0) => {
                let mut whole = rest;
                opener.open(&mut whole)?;
                let mut rest = whole.freeze().split_off(PREAMBLE_LEN);
                let mut segments: [Bytes; SEGMENTS] = Default::default();
                for (i, segment) in segments.iter_mut().enumerate() {
                    *segment = split_padded(&mut rest, pre.len(i));
                }
                self.opened(pre, segments, rest.first().copied())
            }
            (Some(opener), Revision::R1) => open_r1(opener, &pre, inline, rest)
                .and_then(|(segments, late)| self.opened(pre, segments, late)),
        }
    }

    /// Splits segments 0 to 2 off `rest`; 2.1 checks segment 0 at once.
    fn split_crc(
        &self,
        pre: &Preamble,
        rest: &mut Bytes,
    ) -> Result<[Bytes; SEGMENTS], ProtocolError> {
        let mut segments: [Bytes; SEGMENTS] = Default::default();
        segments[0] = rest.split_to(pre.len(0));
        if self.revision == Revision::R1 && pre.len(0) > 0 {
            if rest[..CRC_LEN] != segment_crc(&segments[0]).to_le_bytes() {
                return Err(PeerMisbehaved::SegmentCrc { segment: 0 }.into());
            }
            rest.advance(CRC_LEN);
        }
        segments[1] = rest.split_to(pre.len(1));
        segments[2] = rest.split_to(pre.len(2));
        Ok(segments)
    }

    fn verify_crc(
        &self,
        pre: &Preamble,
        segments: [Bytes; SEGMENTS],
        data: DataCrc,
        epilogue: &[u8],
    ) -> Result<Step, ProtocolError> {
        let Some((&late, crcs)) = epilogue.split_first() else {
            return Ok(frame(pre.tag, segments, data.chunks));
        };
        if !is_complete(self.revision, late)? {
            return aborted(pre, late);
        }
        let first = match self.revision {
            Revision::R0 => 0,
            Revision::R1 => 1,
        };
        for (i, want) in (first..pre.count).zip(crcs.chunks_exact(CRC_LEN)) {
            if i > 0 && !self.verify_data_crc {
                break;
            }
            let got = if i == DATA { data.segment } else { segment_crc(&segments[i]) };
            if got.to_le_bytes() != *want {
                return Err(PeerMisbehaved::SegmentCrc { segment: i as u8 }.into());
            }
        }
        Ok(frame(pre.tag, segments, data.chunks))
    }

    /// The end of a frame that AES-GCM has verified. `late` is absent when there is no epilogue.
    fn opened(
        &self,
        pre: Preamble,
        segments: [Bytes; SEGMENTS],
        late: Option<u8>,
    ) -> Result<Step, ProtocolError> {
        if let Some(late) = late
            && !is_complete(self.revision, late)?
        {
            return aborted(&pre, late);
        }
        let chunks = DataCrc::of(&segments[DATA]).chunks;
        Ok(frame(pre.tag, segments, chunks))
    }
}

fn frame(tag: Tag, segments: [Bytes; SEGMENTS], data_crcs: Vec<u32>) -> Step {
    Step::Frame(Frame { tag, segments, data_crcs })
}

/// Only messages are ever aborted.
fn aborted(pre: &Preamble, late: u8) -> Result<Step, ProtocolError> {
    match pre.tag {
        Tag::Message => Ok(Step::Aborted(pre.payload_len())),
        _ => Err(PeerMisbehaved::LateStatus(late).into()),
    }
}

/// Opens what follows the preamble block of a 2.1 frame.
fn open_r1(
    opener: &mut Opener,
    pre: &Preamble,
    inline: Bytes,
    mut rest: BytesMut,
) -> Result<([Bytes; SEGMENTS], Option<u8>), ProtocolError> {
    let mut segments: [Bytes; SEGMENTS] = Default::default();
    let first_len = pre.first_secure_len();
    segments[0] = if first_len == 0 {
        inline.slice(..pre.len(0))
    } else {
        let mut first = rest.split_to(first_len);
        opener.open(&mut first)?;
        let mut joined = BytesMut::with_capacity(INLINE_LEN + first_len);
        joined.extend_from_slice(&inline);
        joined.extend_from_slice(&first[..first_len - GCM_TAG_LEN]);
        joined.truncate(pre.len(0));
        joined.freeze()
    };
    if rest.is_empty() {
        return Ok((segments, None));
    }
    opener.open(&mut rest)?;
    let mut rest = rest.freeze();
    for (i, segment) in segments.iter_mut().enumerate().skip(1) {
        *segment = split_padded(&mut rest, pre.len(i));
    }
    debug_assert_eq!(rest.len(), EPILOGUE_SECURE_LEN + GCM_TAG_LEN);
    Ok((segments, rest.first().copied()))
}

fn split_padded(rest: &mut Bytes, len: usize) -> Bytes {
    let mut segment = rest.split_to(len.next_multiple_of(16));
    segment.truncate(len);
    segment
}
