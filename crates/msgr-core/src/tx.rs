//! The sending half: frames to a gather list.
//!
//! Invariants: preambles, headers, epilogues and small pieces go to one growing buffer; large
//! payload pieces enter the list as they are, uncopied, except that secure mode has to write its
//! cipher text somewhere.

use bytes::{BufMut, Bytes, BytesMut};
use spirula_wire::{Encode, Features, Header, Payload, RawMessage};

use crate::banner::Revision;
use crate::crc::{gather_crc, segment_crc};
use crate::crypto::Sealer;
use crate::error::ProtocolError;
use crate::frame::{EPILOGUE_SECURE_LEN, INLINE_LEN, PREAMBLE_LEN, Preamble, Tag, late_complete};

/// A piece up to this size is cheaper to copy than to describe.
const COPY_MAX: usize = 1024;
const BUFFER_LEN: usize = 16 * 1024;

/// What is to be sent, in order.
#[derive(Default)]
pub(crate) struct Gather {
    small: BytesMut,
    list: Vec<Bytes>,
}

impl Gather {
    pub(crate) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.list.is_empty()
    }

    pub(crate) fn drain_into(&mut self, out: &mut Vec<Bytes>) {
        self.flush();
        out.append(&mut self.list);
    }

    /// Makes room for `len` contiguous bytes.
    fn room(&mut self, len: usize) -> &mut BytesMut {
        if self.small.capacity() - self.small.len() < len {
            self.flush();
            self.small.reserve(len.max(BUFFER_LEN));
        }
        &mut self.small
    }

    fn put(&mut self, piece: &Bytes) {
        if piece.len() <= COPY_MAX {
            self.room(piece.len()).put_slice(piece);
        } else {
            self.flush();
            self.list.push(piece.clone());
        }
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.list.push(self.small.split().freeze());
        }
    }
}

pub(crate) struct FrameWriter {
    pub(crate) revision: Revision,
    pub(crate) sealer: Option<Sealer>,
    /// Handshake bytes for the signature; `None` once it is made.
    pub(crate) transcript: Option<Vec<u8>>,
    pub(crate) gather: Gather,
    data_crc: bool,
    /// The encoded header of the message in hand.
    header: Vec<u8>,
}

impl FrameWriter {
    pub(crate) fn new(data_crc: bool) -> Self {
        Self {
            revision: Revision::R1,
            sealer: None,
            transcript: Some(Vec::new()),
            gather: Gather::default(),
            data_crc,
            header: Vec::with_capacity(Header::SIZE),
        }
    }

    /// Sends bytes outside any frame: the banner.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.gather.room(bytes.len()).put_slice(bytes);
        self.record(bytes);
    }

    /// Sends a frame of one segment.
    pub(crate) fn control(&mut self, tag: Tag, payload: &[u8]) -> Result<(), ProtocolError> {
        let pre = Preamble::new(tag, [payload.len() as u32, 0, 0, 0]);
        if self.sealer.is_some() {
            return self.secure(&pre, payload, &[]);
        }
        let len = PREAMBLE_LEN + pre.rest_crc_len(self.revision);
        let mut frame = BytesMut::with_capacity(len);
        frame.put_slice(&pre.encode());
        frame.put_slice(payload);
        let crc = segment_crc(payload);
        match self.revision {
            Revision::R0 => {
                frame.put_u8(late_complete(Revision::R0));
                frame.put_u32_le(crc);
                frame.put_bytes(0, 12);
            }
            Revision::R1 if payload.is_empty() => {}
            Revision::R1 => frame.put_u32_le(crc),
        }
        debug_assert_eq!(frame.len(), len);
        self.raw(&frame);
        Ok(())
    }

    /// Sends a MESSAGE frame. The caller has set the header's sequence numbers.
    pub(crate) fn message(&mut self, raw: &RawMessage) -> Result<(), ProtocolError> {
        let mut header = std::mem::take(&mut self.header);
        header.clear();
        raw.header.encode(&mut header, Features::default());
        let p = &raw.payload;
        let lens = [Header::SIZE, p.front.len(), p.middle.len(), p.data_len()].map(|n| n as u32);
        let pre = Preamble::new(Tag::Message, lens);
        if self.sealer.is_some() {
            let front = std::slice::from_ref(&p.front);
            let middle = std::slice::from_ref(&p.middle);
            self.secure(&pre, &header, &[front, middle, &p.data])?;
            self.header = header;
            return Ok(());
        }
        let header_crc = segment_crc(&header);
        let head = self.gather.room(PREAMBLE_LEN + Header::SIZE + 4);
        head.put_slice(&pre.encode());
        head.put_slice(&header);
        if self.revision == Revision::R1 {
            head.put_u32_le(header_crc);
        }
        self.header = header;
        [&p.front, &p.middle].into_iter().chain(&p.data).for_each(|piece| self.gather.put(piece));
        self.epilogue(&pre, header_crc, raw);
        Ok(())
    }

    fn epilogue(&mut self, pre: &Preamble, header_crc: u32, raw: &RawMessage) {
        let len = pre.epilogue_crc_len(self.revision);
        if len == 0 {
            return;
        }
        let p = &raw.payload;
        let mut crcs = [header_crc, 0, 0, 0];
        if self.data_crc {
            for (i, crc) in crcs.iter_mut().enumerate().take(pre.count).skip(1) {
                *crc = match i {
                    1 => segment_crc(&p.front),
                    2 => segment_crc(&p.middle),
                    _ => data_crc(p),
                };
            }
        }
        let skip = match self.revision {
            Revision::R0 => 0,
            Revision::R1 => 1,
        };
        let revision = self.revision;
        let out = self.gather.room(len);
        out.put_u8(late_complete(revision));
        crcs.into_iter().skip(skip).for_each(|crc| out.put_u32_le(crc));
    }

    /// Sends a frame in secure mode: segment 0 and the pieces of each further segment.
    fn secure(
        &mut self,
        pre: &Preamble,
        first: &[u8],
        others: &[&[Bytes]],
    ) -> Result<(), ProtocolError> {
        let Some(sealer) = &mut self.sealer else {
            return Ok(());
        };
        let late = late_complete(self.revision);
        if self.revision == Revision::R0 {
            let out = self.gather.room(pre.whole_secure_r0_len());
            let start = out.len();
            out.put_slice(&pre.encode());
            put_padded(out, [first]);
            others.iter().for_each(|pieces| put_padded(out, pieces.iter().map(|p| &p[..])));
            put_late(out, late);
            seal_from(out, start, sealer)?;
            return Ok(());
        }
        let (inline, rest) = first.split_at(first.len().min(INLINE_LEN));
        let len =
            crate::frame::SECURE_PREAMBLE_LEN + pre.first_secure_len() + pre.tail_secure_len();
        let out = self.gather.room(len);
        let start = out.len();
        out.put_slice(&pre.encode());
        out.put_slice(inline);
        out.put_bytes(0, INLINE_LEN - inline.len());
        seal_from(out, start, sealer)?;
        if !rest.is_empty() {
            let start = out.len();
            put_padded(out, [rest]);
            seal_from(out, start, sealer)?;
        }
        if pre.count > 1 {
            let start = out.len();
            others.iter().for_each(|pieces| put_padded(out, pieces.iter().map(|p| &p[..])));
            put_late(out, late);
            seal_from(out, start, sealer)?;
        }
        Ok(())
    }

    fn record(&mut self, bytes: &[u8]) {
        if let Some(transcript) = &mut self.transcript {
            transcript.extend_from_slice(bytes);
        }
    }
}

/// The frame CRC of the data segment, from the sender's if it gave one.
fn data_crc(payload: &Payload) -> u32 {
    let read = || gather_crc(payload.data.iter().map(|b| &b[..]));
    debug_assert!(payload.data_crc.is_none_or(|crc| !crc == read()), "the sender's CRC is right");
    payload.data_crc.map_or_else(read, |crc| !crc)
}

fn put_padded<'a>(out: &mut BytesMut, pieces: impl IntoIterator<Item = &'a [u8]>) {
    let mut len: usize = 0;
    for piece in pieces {
        out.put_slice(piece);
        len += piece.len();
    }
    out.put_bytes(0, len.next_multiple_of(16) - len);
}

fn put_late(out: &mut BytesMut, late: u8) {
    out.put_u8(late);
    out.put_bytes(0, EPILOGUE_SECURE_LEN - 1);
}

fn seal_from(out: &mut BytesMut, start: usize, sealer: &mut Sealer) -> Result<(), ProtocolError> {
    let tag = sealer.seal(&mut out[start..])?;
    out.put_slice(&tag);
    Ok(())
}
