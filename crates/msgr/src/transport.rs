//! What the driver needs of the world: a byte stream and clocks.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spirula_msgr_core::Now;

/// A connected byte stream. Buffers are owned by the operation until it completes; the driver keeps
/// at most one operation going in each direction and never drops one half way but to close.
pub trait Transport {
    /// Appends at least one byte to the spare capacity of `buf`; 0 is the end of the stream.
    fn recv(&self, buf: BytesMut) -> impl Future<Output = (io::Result<usize>, BytesMut)>;

    /// Receives a body of `len` bytes into a buffer fit for it; its first bytes are `start`.
    fn recv_body(&self, start: BytesMut, len: usize) -> impl Future<Output = io::Result<Bytes>>;

    /// Sends all of `bufs` in order.
    fn send(&self, bufs: Vec<Bytes>) -> impl Future<Output = io::Result<()>>;

    /// Ends the stream in both directions.
    fn shutdown(&self);

    fn now(&self) -> Now;

    /// Waits until the monotonic clock shows `deadline`.
    fn sleep_until(&self, deadline: Duration) -> impl Future<Output = ()>;

    /// Lets tasks that can run go first, so that what they send leaves together.
    fn settle(&self) -> impl Future<Output = ()>;
}
