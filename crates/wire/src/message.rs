//! The frame-level shape of a message: header, three payload segments, and the trait that each
//! message type implements.
//!
//! Source of the format: Ceph's `include/msgr.h` (`ceph_msg_header2`) and `msg/Message.h`.

use bytes::Bytes;

use crate::denc::{Decode, DecodeError, Encode, Features, Reader};

/// Default priority of a message (`CEPH_MSG_PRIO_DEFAULT`).
pub const PRIO_DEFAULT: u16 = 127;
/// Priority of messages that keep the cluster alive (`CEPH_MSG_PRIO_HIGH`).
pub const PRIO_HIGH: u16 = 196;

/// [`Header::flags`] of every message sent: whole, and without checksums of its own (the frame has
/// them).
pub const FLAGS_SENT: u8 = 0x1 | 0x2;

/// `ceph_msg_header2`: 41 bytes, the first segment of a MESSAGE frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Header {
    pub seq: u64,
    pub tid: u64,
    pub type_: u16,
    pub priority: u16,
    pub version: u16,
    pub data_pre_padding_len: u32,
    pub data_off: u16,
    pub ack_seq: u64,
    pub flags: u8,
    pub compat_version: u16,
    pub reserved: u16,
}

impl Header {
    pub const SIZE: usize = 41;
}

impl Encode for Header {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.seq.encode(out, f);
        self.tid.encode(out, f);
        self.type_.encode(out, f);
        self.priority.encode(out, f);
        self.version.encode(out, f);
        self.data_pre_padding_len.encode(out, f);
        self.data_off.encode(out, f);
        self.ack_seq.encode(out, f);
        self.flags.encode(out, f);
        self.compat_version.encode(out, f);
        self.reserved.encode(out, f);
    }
}

impl Decode for Header {
    const MIN_SIZE: usize = Self::SIZE;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            seq: r.u64()?,
            tid: r.u64()?,
            type_: r.u16()?,
            priority: r.u16()?,
            version: r.u16()?,
            data_pre_padding_len: r.u32()?,
            data_off: r.u16()?,
            ack_seq: r.u64()?,
            flags: r.u8()?,
            compat_version: r.u16()?,
            reserved: r.u16()?,
        })
    }
}

/// The three segments behind a header. `data` is a gather list when sent and one buffer (or none)
/// when received, so that bulk bytes are never copied here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    pub front: Bytes,
    pub middle: Bytes,
    pub data: Vec<Bytes>,
    /// Standard CRC-32C of the data segment, when the sender knows it already.
    pub data_crc: Option<u32>,
}

impl Payload {
    pub fn data_len(&self) -> usize {
        self.data.iter().map(Bytes::len).sum()
    }

    /// The data segment as one buffer; free when it is at most one piece.
    pub fn data_bytes(&self) -> Bytes {
        match self.data.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.concat().into(),
        }
    }
}

/// A message as the messenger carries it, not decoded yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawMessage {
    pub header: Header,
    pub payload: Payload,
}

/// A message type of the Ceph protocol.
pub trait Message: Sized {
    /// Number in the header (`CEPH_MSG_*`, `MSG_*`).
    const TYPE: u16;
    const VERSION: u16;
    const COMPAT_VERSION: u16;
    const PRIORITY: u16 = PRIO_DEFAULT;

    fn encode_payload(&self, features: Features) -> Payload;

    /// `header.version` selects the layout.
    fn decode_payload(header: &Header, payload: &Payload) -> Result<Self, DecodeError>;

    fn to_raw(&self, tid: u64, features: Features) -> RawMessage {
        let header = Header {
            tid,
            type_: Self::TYPE,
            priority: Self::PRIORITY,
            flags: FLAGS_SENT,
            version: Self::VERSION,
            compat_version: Self::COMPAT_VERSION,
            ..Header::default()
        };
        RawMessage { header, payload: self.encode_payload(features) }
    }

    fn from_raw(raw: &RawMessage) -> Result<Self, DecodeError> {
        if raw.header.type_ != Self::TYPE {
            return Err(DecodeError::Invalid {
                what: "message type",
                value: raw.header.type_.into(),
            });
        }
        Self::decode_payload(&raw.header, &raw.payload)
    }
}

/// Refuses a message whose sender says that only a newer reader can understand it.
pub fn check_compat<M: Message>(what: &'static str, header: &Header) -> Result<(), DecodeError> {
    if header.compat_version > M::VERSION {
        return Err(DecodeError::Incompatible {
            what,
            compat: header.compat_version.min(0xff) as u8,
            supported: M::VERSION as u8,
        });
    }
    Ok(())
}
