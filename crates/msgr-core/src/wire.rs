//! Both halves of the connection's byte stream, and what the handshake does to both at once:
//! agreeing on a revision, signing what was said, switching to secure mode.

use ring::hmac;
use spirula_auth::{ConMode, CryptoKey};

use crate::banner::Revision;
use crate::config::Config;
use crate::control::{Control, SIGNATURE_LEN};
use crate::crypto::{Side, secure_pair};
use crate::error::ProtocolError;
use crate::rx::FrameReader;
use crate::tx::FrameWriter;

pub(crate) struct Wire {
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
}

impl Wire {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            reader: FrameReader::new(config.limits, config.data_crc),
            writer: FrameWriter::new(config.data_crc),
        }
    }

    pub(crate) fn send(&mut self, control: &Control) -> Result<(), ProtocolError> {
        self.writer.control(control.tag(), &control.encode())
    }

    pub(crate) fn agree(&mut self, revision: Revision) {
        self.reader.revision = revision;
        self.writer.revision = revision;
    }

    /// Authentication is done: enters the mode, sends our signature over all that we received and
    /// returns the one to expect, over all that we sent.
    pub(crate) fn authenticated(
        &mut self,
        side: Side,
        mode: ConMode,
        session_key: &CryptoKey,
        secret: &[u8],
    ) -> Result<[u8; SIGNATURE_LEN], ProtocolError> {
        let received = self.reader.transcript.take().unwrap_or_default();
        let sent = self.writer.transcript.take().unwrap_or_default();
        if mode == ConMode::Secure {
            let (sealer, opener) = secure_pair(secret, self.reader.revision, side)?;
            self.writer.sealer = Some(sealer);
            self.reader.opener = Some(opener);
        }
        self.send(&Control::AuthSignature(sign(session_key, &received)))?;
        Ok(sign(session_key, &sent))
    }
}

/// Compares without telling by time where the difference is.
pub(crate) fn same_signature(a: &[u8; SIGNATURE_LEN], b: &[u8; SIGNATURE_LEN]) -> bool {
    a.iter().zip(b).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

/// Without a session key (auth `none`) the signature is zero.
fn sign(session_key: &CryptoKey, transcript: &[u8]) -> [u8; SIGNATURE_LEN] {
    let mut out = [0; SIGNATURE_LEN];
    if !session_key.is_empty() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, session_key.secret());
        out.copy_from_slice(hmac::sign(&key, transcript).as_ref());
    }
    out
}
