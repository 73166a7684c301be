//! What a monitor hands to a principal: session key and tickets.

use std::collections::BTreeMap;

use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::crypto::CryptoKey;
use crate::handshake::WallTime;

/// A ticket that only the service can open, with the secret's number (`CephXTicketBlob`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TicketBlob {
    pub secret_id: u64,
    pub blob: Vec<u8>,
}

impl Encode for TicketBlob {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        1u8.encode(out, f);
        self.secret_id.encode(out, f);
        self.blob.as_slice().encode(out, f);
    }
}

impl Decode for TicketBlob {
    const MIN_SIZE: usize = 13;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u8()?;
        Ok(Self {
            secret_id: r.u64()?,
            blob: r.blob("ticket")?.to_vec(),
        })
    }
}

/// A ticket as its owner holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub session_key: CryptoKey,
    pub blob: TicketBlob,
    pub renew_after: WallTime,
    pub expires: WallTime,
}

/// The outcome of authenticating to a monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonGrant {
    pub global_id: u64,
    /// By service (`EntityType` bit).
    pub tickets: BTreeMap<u32, Ticket>,
}
