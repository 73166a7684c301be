//! One end of a simulated connection: what has arrived, and who waits for more.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use crate::buf::AlignedBuf;
use crate::driver::{Gather, Key, Output, Raw};

/// One end of a connection.
pub(super) struct End {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) other: Option<Raw>,
    pub(super) connecting: Option<Key>,
    pub(super) inbox: VecDeque<Bytes>,
    pub(super) ended: bool,
    pub(super) error: Option<i32>,
    pub(super) write_ended: bool,
    pub(super) receives: VecDeque<(Key, Receive)>,
    pub(super) sends: VecDeque<(Key, Gather)>,
    /// Bytes sent that the other end has not received.
    pub(super) unread: usize,
}

/// A receive that waits.
pub(in crate::sim) enum Receive {
    Some(BytesMut),
    Exact { buf: AlignedBuf, at: usize, end: usize },
}

impl End {
    pub(super) fn new(
        local: SocketAddr,
        peer: SocketAddr,
        other: Option<Raw>,
        connecting: Option<Key>,
    ) -> End {
        End {
            local,
            peer,
            other,
            connecting,
            inbox: VecDeque::new(),
            ended: false,
            error: None,
            write_ended: false,
            receives: VecDeque::new(),
            sends: VecDeque::new(),
            unread: 0,
        }
    }

    /// Copies arrived bytes to `out`; how many.
    fn take(&mut self, out: &mut [u8]) -> usize {
        let mut len = 0;
        while len < out.len()
            && let Some(front) = self.inbox.front_mut()
        {
            let piece = front.split_to(front.len().min(out.len() - len));
            out[len..len + piece.len()].copy_from_slice(&piece);
            len += piece.len();
            if front.is_empty() {
                self.inbox.pop_front();
            }
        }
        len
    }

    /// How the stream ended, if it has.
    fn over(&self) -> Option<io::Result<()>> {
        match self.error {
            Some(errno) => Some(Err(io::Error::from_raw_os_error(errno))),
            None => self.ended.then_some(Ok(())),
        }
    }
}

impl Receive {
    /// The outcome, or the receive that has to go on waiting.
    pub(super) fn serve(self, end: &mut End, taken: &mut usize) -> Result<Output, Receive> {
        match self {
            Receive::Some(mut buf) => {
                if end.inbox.is_empty() {
                    return match end.over() {
                        None => Err(Receive::Some(buf)),
                        Some(result) => Ok(Output::Received(result.map(|()| 0), buf)),
                    };
                }
                let old = buf.len();
                buf.resize(buf.capacity(), 0);
                let len = end.take(&mut buf[old..]);
                buf.truncate(old + len);
                *taken += len;
                Ok(Output::Received(Ok(len), buf))
            }
            Receive::Exact { mut buf, at, end: stop } => {
                let len = end.take(buf.range(at, stop));
                *taken += len;
                let at = at + len;
                if at == stop {
                    return Ok(Output::Filled(Ok(()), buf));
                }
                match end.over() {
                    None => Err(Receive::Exact { buf, at, end: stop }),
                    Some(Ok(())) => {
                        Ok(Output::Filled(Err(io::ErrorKind::UnexpectedEof.into()), buf))
                    }
                    Some(Err(error)) => Ok(Output::Filled(Err(error), buf)),
                }
            }
        }
    }

    pub(super) fn fail(self, error: io::Error) -> Output {
        match self {
            Receive::Some(buf) => Output::Received(Err(error), buf),
            Receive::Exact { buf, .. } => Output::Filled(Err(error), buf),
        }
    }
}
