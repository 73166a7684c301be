//! Answers of the admin socket: there is no place for an error number, so errors are text.

use std::io;

/// What a command came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AdminReply {
    /// 0 or a negative error number.
    pub(crate) code: i32,
    /// Status text; the socket carries it with errors only.
    pub(crate) status: String,
    pub(crate) out: Vec<u8>,
}

impl AdminReply {
    pub(crate) fn ok(out: impl Into<Vec<u8>>) -> Self {
        Self { code: 0, status: String::new(), out: out.into() }
    }

    /// `errno` is positive.
    pub(crate) fn refusal(errno: i32, status: impl Into<String>) -> Self {
        Self { code: -errno, status: status.into(), out: Vec::new() }
    }

    /// As it goes over the socket.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        if self.code >= 0 {
            return framed(&self.out);
        }
        let mut text = format!("ERROR: {}\n{}\n", describe(self.code), self.status).into_bytes();
        text.extend_from_slice(&self.out);
        framed(&text)
    }
}

/// `(22) Invalid argument`
pub(crate) fn describe(code: i32) -> String {
    let errno = code.saturating_neg();
    let text = io::Error::from_raw_os_error(errno).to_string();
    // Rust adds the number at the end.
    let text = text.rsplit_once(" (os error ").map_or(text.as_str(), |(text, _)| text);
    format!("({errno}) {text}")
}

pub(crate) fn framed(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(payload.len().saturating_add(4));
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&payload[..len as usize]);
    out
}
