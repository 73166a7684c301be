//! CPU time of the core per request: a request with data in, a small reply out, no I/O.
#![allow(unreachable_pub)]

#[path = "../tests/support/ends.rs"]
mod ends;

use std::time::Instant;

use bytes::BytesMut;
use ends::*;
use spirula_auth::ConMode;
use spirula_msgr_core::Event;

/// Requests that arrive in one receive.
const BATCH: usize = 16;

fn main() {
    for (mode, name) in [(ConMode::Crc, "crc"), (ConMode::Secure, "secure")] {
        for (front, data, rounds) in [(250, 0, 200_000), (250, 4096, 20_000), (250, 4 << 20, 40)] {
            let ns = measure(mode, front, data, rounds);
            println!("{name:>6} mode, {data:>7} bytes of data: {ns:>8} ns per request and reply");
        }
    }
}

fn measure(mode: ConMode, front: usize, data: usize, rounds: usize) -> u128 {
    let mut pair = Pair::of(mode, true);
    if pair.run(usize::MAX).is_err() {
        return 0;
    }
    let batch = if data > 1 << 20 { 1 } else { BATCH };
    let (request, reply) = (message(42, front, 0, &[data]), message(43, 150, 0, &[]));
    let mut out = Vec::new();
    let mut spent = 0;
    for _ in 0..rounds {
        (0..batch).for_each(|_| pair.client.conn.send(request.clone()));
        let mut input = BytesMut::from(&pair.client.transmit()[..]);
        pair.client.sent.clear();
        let start = Instant::now();
        let server = &mut pair.server.conn;
        let _ = server.handle_input(NOW, &mut input);
        while let Some(Event::Message(message)) = server.poll_event() {
            server.release(1, message.cost);
            server.send(reply.clone());
        }
        let _ = server.poll_transmit(&mut out);
        out.clear();
        spent += start.elapsed().as_nanos();
    }
    spent / (rounds * batch) as u128
}
