//! The simulated network: TCP as a program sees it.
//!
//! Bytes of one direction of a connection arrive in order, in segments of random size; different
//! connections are independent, so what was sent later on one may arrive earlier than what was sent
//! on another. A lost segment shows as a delay, as TCP would have it. A partition holds packets
//! back until it heals or TCP gives up on them (`ETIMEDOUT` at the sender, nothing at the
//! receiver). A host without power answers nothing; once it is back, old connections are reset. A
//! killed process resets its connections. A reset may destroy what had arrived and was not read.
//!
//! A connection may *stall*: what is sent on it from then on, one way, waits, while other connections go
//! on, so that packets of two connections are reordered over seconds. It may be *left behind*: its
//! sender's end breaks, but the other end does not notice before `stall` is over, and what was under way
//! still arrives until then; whoever connects anew has two connections with the same peer meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::core::{Core, Event, HostId};
use crate::driver::{Gather, Key, Output, Raw, Shutdown, cancelled};
use crate::limits::SIM_WINDOW_BYTES_MAX;

mod end;

use end::End;

pub(super) use end::Receive;

/// How the network behaves.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// One way, per segment.
    pub latency: Range<Duration>,
    /// Segments lost, in millionths; each loss costs `retransmit`.
    pub loss_per_million: u32,
    pub retransmit: Duration,
    /// Connections reset, in millionths of segments.
    pub reset_per_million: u32,
    /// Connections that stall one way, in millionths of segments, and for how long.
    pub stall_per_million: u32,
    pub stall: Range<Duration>,
    /// Connections of which one end breaks long before the other, in millionths of segments.
    pub left_behind_per_million: u32,
    /// When TCP gives up on a peer that does not answer.
    pub give_up: Duration,
    pub segment_bytes_max: usize,
}

impl Default for NetConfig {
    fn default() -> NetConfig {
        NetConfig {
            latency: Duration::from_micros(20)..Duration::from_micros(300),
            loss_per_million: 0,
            retransmit: Duration::from_millis(200),
            reset_per_million: 0,
            stall_per_million: 0,
            stall: Duration::from_millis(10)..Duration::from_secs(5),
            left_behind_per_million: 0,
            give_up: Duration::from_secs(60),
            segment_bytes_max: 64 << 10,
        }
    }
}

/// All sockets of a world.
pub(super) struct Net {
    pub(super) config: NetConfig,
    sockets: BTreeMap<Raw, Sock>,
    wires: BTreeMap<Raw, Wire>,
    /// Directions in which nothing passes.
    blocked: BTreeSet<(HostId, HostId)>,
    last_raw: Raw,
    last_port: u16,
}

struct Sock {
    host: HostId,
    kind: Kind,
}

enum Kind {
    Fresh,
    Listener(Listener),
    End(End),
}

struct Listener {
    local: SocketAddr,
    ready: VecDeque<Raw>,
    accepts: VecDeque<Key>,
}

/// What travels from one end to the other; outlives its sender.
struct Wire {
    to: Raw,
    from_host: HostId,
    to_host: HostId,
    packets: VecDeque<Packet>,
    last_due: Duration,
}

struct Packet {
    due: Duration,
    sent: Duration,
    content: Content,
}

enum Content {
    Data(Bytes),
    End,
    Reset,
}

/// How a host went down.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Down {
    Killed,
    PowerLost,
}

impl Net {
    pub(super) fn new() -> Net {
        Net {
            config: NetConfig::default(),
            sockets: BTreeMap::new(),
            wires: BTreeMap::new(),
            blocked: BTreeSet::new(),
            last_raw: 0,
            last_port: 20_000,
        }
    }

    pub(super) fn block(&mut self, from: HostId, to: HostId) {
        self.blocked.insert((from, to));
    }

    pub(super) fn unblock(&mut self, from: HostId, to: HostId) {
        self.blocked.remove(&(from, to));
    }

    pub(super) fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    pub(super) fn listen(
        &mut self,
        core: &Core,
        host: HostId,
        mut local: SocketAddr,
    ) -> io::Result<Raw> {
        let own = core.hosts[host].ip;
        if !(local.ip().is_unspecified() || local.ip().is_loopback() || local.ip() == own) {
            return Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        }
        if local.port() == 0 {
            local.set_port(self.free_port());
        } else if self.find_listener(host, local).is_some() {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        let listener = Listener { local, ready: VecDeque::new(), accepts: VecDeque::new() };
        Ok(self.add(host, Kind::Listener(listener)))
    }

    pub(super) fn socket(&mut self, host: HostId) -> Raw {
        self.add(host, Kind::Fresh)
    }

    pub(super) fn local_addr(&self, raw: Raw) -> io::Result<SocketAddr> {
        match self.sockets.get(&raw).map(|sock| &sock.kind) {
            Some(Kind::Listener(listener)) => Ok(listener.local),
            Some(Kind::End(end)) => Ok(end.local),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(super) fn peer_addr(&self, raw: Raw) -> io::Result<SocketAddr> {
        match self.sockets.get(&raw).map(|sock| &sock.kind) {
            Some(Kind::End(end)) if end.connecting.is_none() => Ok(end.peer),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(super) fn accept(&mut self, core: &mut Core, raw: Raw, key: Key) {
        if let Some(Sock { kind: Kind::Listener(listener), .. }) = self.sockets.get_mut(&raw) {
            listener.accepts.push_back(key);
        }
        self.serve_accepts(core, raw);
    }

    pub(super) fn connect(&mut self, core: &mut Core, raw: Raw, key: Key, peer: SocketAddr) {
        let port = self.free_port();
        let Some(sock) = self.sockets.get_mut(&raw) else {
            return;
        };
        let host = sock.host;
        let ip = if peer.ip().is_loopback() { peer.ip() } else { core.hosts[host].ip };
        sock.kind = Kind::End(End::new(SocketAddr::new(ip, port), peer, None, Some(key)));
        let at = core.now + self.latency(core);
        core.schedule(at, Event::Syn { from: raw, since: core.now });
    }

    pub(super) fn send(&mut self, core: &mut Core, raw: Raw, key: Key, bufs: Gather) {
        if let Some(end) = self.end_mut(raw) {
            end.sends.push_back((key, bufs));
        }
        self.pump(core, raw);
    }

    pub(super) fn receive(&mut self, core: &mut Core, raw: Raw, key: Key, receive: Receive) {
        if let Some(end) = self.end_mut(raw) {
            end.receives.push_back((key, receive));
        }
        self.serve_receives(core, raw);
    }

    /// Ends an operation that nobody waits for.
    pub(super) fn cancel(&mut self, core: &mut Core, raw: Raw, key: Key) {
        let Some(sock) = self.sockets.get_mut(&raw) else {
            return;
        };
        let host = sock.host;
        match &mut sock.kind {
            Kind::Fresh => {}
            Kind::Listener(listener) => {
                if take_by_key(&mut listener.accepts, |waiting| *waiting == key).is_some() {
                    core.complete(host, key, Output::Accepted(Err(cancelled())));
                }
            }
            Kind::End(end) => {
                if end.connecting == Some(key) {
                    end.connecting = None;
                    core.complete(host, key, Output::Connected(Err(cancelled())));
                } else if let Some((_, receive)) =
                    take_by_key(&mut end.receives, |(waiting, _)| *waiting == key)
                {
                    core.complete(host, key, receive.fail(cancelled()));
                } else if take_by_key(&mut end.sends, |(waiting, _)| *waiting == key).is_some() {
                    core.complete(host, key, Output::Sent(Err(cancelled())));
                }
            }
        }
    }

    pub(super) fn shutdown(&mut self, core: &mut Core, raw: Raw, how: Shutdown) -> io::Result<()> {
        let Some(end) = self.end_mut(raw) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        end.write_ended = true;
        if how == Shutdown::Both {
            end.ended = true;
        }
        self.pump(core, raw);
        self.transmit(core, raw, Content::End);
        self.serve_receives(core, raw);
        Ok(())
    }

    pub(super) fn close(&mut self, core: &mut Core, raw: Raw) {
        let Some(sock) = self.sockets.remove(&raw) else {
            return;
        };
        match sock.kind {
            Kind::Fresh => {}
            Kind::Listener(listener) => {
                for end in listener.ready {
                    self.transmit(core, end, Content::Reset);
                    self.sockets.remove(&end);
                }
            }
            Kind::End(end) => {
                let unread = !end.inbox.is_empty();
                let last = if unread { Content::Reset } else { Content::End };
                if unread || !end.write_ended {
                    self.transmit(core, raw, last);
                } else if self.wires.get(&raw).is_some_and(|wire| wire.packets.is_empty()) {
                    self.wires.remove(&raw);
                }
            }
        }
    }

    /// Removes all sockets of a host; what their peers notice depends on how it went down.
    pub(super) fn host_down(&mut self, core: &mut Core, host: HostId, how: Down) {
        let of_host: Vec<Raw> = self
            .sockets
            .iter()
            .filter(|(_, sock)| sock.host == host)
            .map(|(raw, _)| *raw)
            .collect();
        for raw in of_host {
            match how {
                Down::Killed => {
                    if core.rng.coin() {
                        self.transmit(core, raw, Content::Reset);
                    }
                    self.close(core, raw);
                }
                Down::PowerLost => {
                    self.sockets.remove(&raw);
                    self.wires.remove(&raw);
                }
            }
        }
    }

    /// The first packet of a wire is due.
    pub(super) fn on_wire(&mut self, core: &mut Core, from: Raw) {
        let Some(wire) = self.wires.get_mut(&from) else {
            return;
        };
        let Some(first) = wire.packets.front() else {
            return;
        };
        let (to, sent) = (wire.to, first.sent);
        let path = (wire.from_host, wire.to_host);
        if self.blocked.contains(&path) || !core.hosts[path.1].powered {
            if core.now.saturating_sub(sent) >= self.config.give_up {
                self.wires.remove(&from);
                self.fail(core, from, libc::ETIMEDOUT);
            } else {
                core.schedule(core.now + self.config.retransmit, Event::Wire { from });
            }
            return;
        }
        let Some(packet) = wire.packets.pop_front() else {
            return;
        };
        match wire.packets.front() {
            Some(next) => core.schedule(next.due, Event::Wire { from }),
            None if !self.sockets.contains_key(&from) => {
                self.wires.remove(&from);
            }
            None => {}
        }
        self.deliver(core, from, to, packet.content);
    }

    fn deliver(&mut self, core: &mut Core, from: Raw, to: Raw, content: Content) {
        let Some(end) = self.end_mut(to) else {
            if matches!(content, Content::Data(_)) && self.sockets.contains_key(&from) {
                let at = core.now + self.latency(core);
                core.schedule(at, Event::Reset { sock: from });
            }
            return;
        };
        match content {
            Content::Data(bytes) => end.inbox.push_back(bytes),
            Content::End => end.ended = true,
            Content::Reset => return self.on_reset(core, to),
        }
        self.serve_receives(core, to);
    }

    pub(super) fn on_reset(&mut self, core: &mut Core, raw: Raw) {
        self.fail(core, raw, libc::ECONNRESET);
    }

    /// A connection request arrives at its target.
    pub(super) fn on_syn(&mut self, core: &mut Core, from: Raw, since: Duration) {
        let Some(Sock { host, kind: Kind::End(end) }) = self.sockets.get(&from) else {
            return;
        };
        let (client, peer, local) = (*host, end.peer, end.local);
        let target =
            if peer.ip().is_loopback() { Some(client) } else { core.host_by_ip(peer.ip()) };
        let reachable = |target: &HostId| {
            core.hosts[*target].powered
                && !self.blocked.contains(&(client, *target))
                && !self.blocked.contains(&(*target, client))
        };
        let answer = match target {
            None => Some(libc::EHOSTUNREACH),
            Some(target) if !reachable(&target) => {
                if core.now.saturating_sub(since) < self.config.give_up {
                    let at = core.now + Duration::from_secs(1);
                    return core.schedule(at, Event::Syn { from, since });
                }
                Some(libc::ETIMEDOUT)
            }
            Some(target) => match self.find_listener(target, peer) {
                None => Some(libc::ECONNREFUSED),
                Some(listener) => {
                    self.establish(core, (from, client, local), (listener, target, peer));
                    None
                }
            },
        };
        let at = core.now + self.latency(core);
        core.schedule(at, Event::Connected { sock: from, errno: answer });
    }

    /// Makes the server's end and both wires.
    fn establish(
        &mut self,
        core: &mut Core,
        client: (Raw, HostId, SocketAddr),
        server: (Raw, HostId, SocketAddr),
    ) {
        let end = End::new(server.2, client.2, Some(client.0), None);
        let raw = self.add(server.1, Kind::End(end));
        if let Some(end) = self.end_mut(client.0) {
            end.other = Some(raw);
        }
        self.wires.insert(client.0, Wire::new(raw, client.1, server.1));
        self.wires.insert(raw, Wire::new(client.0, server.1, client.1));
        if let Some(Sock { kind: Kind::Listener(listener), .. }) = self.sockets.get_mut(&server.0) {
            listener.ready.push_back(raw);
        }
        self.serve_accepts(core, server.0);
    }

    pub(super) fn on_connected(&mut self, core: &mut Core, raw: Raw, errno: Option<i32>) {
        let Some(Sock { host, kind: Kind::End(end) }) = self.sockets.get_mut(&raw) else {
            return;
        };
        let Some(key) = end.connecting.take() else {
            return;
        };
        let result = match errno.or(end.error) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        };
        core.complete(*host, key, Output::Connected(result));
    }

    fn serve_accepts(&mut self, core: &mut Core, raw: Raw) {
        let Some(Sock { host, kind: Kind::Listener(listener) }) = self.sockets.get_mut(&raw) else {
            return;
        };
        while !listener.ready.is_empty() && !listener.accepts.is_empty() {
            if let (Some(end), Some(key)) =
                (listener.ready.pop_front(), listener.accepts.pop_front())
            {
                core.complete(*host, key, Output::Accepted(Ok(end)));
            }
        }
    }

    /// Hands arrived bytes to waiting receives, then lets the sender go on.
    fn serve_receives(&mut self, core: &mut Core, raw: Raw) {
        let Some(Sock { host, kind: Kind::End(end) }) = self.sockets.get_mut(&raw) else {
            return;
        };
        let (host, other) = (*host, end.other);
        let mut taken = 0;
        while let Some((key, receive)) = end.receives.pop_front() {
            match receive.serve(end, &mut taken) {
                Ok(output) => core.complete(host, key, output),
                Err(receive) => {
                    end.receives.push_front((key, receive));
                    break;
                }
            }
        }
        if taken > 0
            && let Some(other) = other
            && let Some(sender) = self.end_mut(other)
        {
            sender.unread -= taken;
            self.pump(core, other);
        }
    }

    /// Moves bytes of waiting sends onto the wire, as far as the window allows.
    fn pump(&mut self, core: &mut Core, raw: Raw) {
        loop {
            let Some(Sock { host, kind: Kind::End(end) }) = self.sockets.get_mut(&raw) else {
                return;
            };
            let host = *host;
            let Some((key, mut bufs)) = end.sends.pop_front() else {
                return;
            };
            if let Some(errno) = end.error.or(end.write_ended.then_some(libc::EPIPE)) {
                let error = io::Error::from_raw_os_error(errno);
                core.complete(host, key, Output::Sent(Err(error)));
                continue;
            }
            let window = SIM_WINDOW_BYTES_MAX - end.unread;
            let segment_max = self.config.segment_bytes_max.max(1) as u64;
            let segment = 1 + core.rng.below(segment_max) as usize;
            let piece = match window.min(segment) {
                0 => None,
                len => bufs.take_piece(len),
            };
            end.unread += piece.as_ref().map_or(0, Bytes::len);
            let finished = bufs.remaining() == 0;
            let stuck = piece.is_none() && !finished;
            if finished {
                core.complete(host, key, Output::Sent(Ok(())));
            } else {
                end.sends.push_front((key, bufs));
            }
            if let Some(piece) = piece {
                self.transmit(core, raw, Content::Data(piece));
            }
            if stuck {
                return;
            }
        }
    }

    fn transmit(&mut self, core: &mut Core, from: Raw, content: Content) {
        let mut latency = self.latency(core);
        while core.rng.chance(self.config.loss_per_million) {
            latency += self.config.retransmit;
        }
        let data = matches!(content, Content::Data(_));
        let reset = data && core.rng.chance(self.config.reset_per_million);
        // No chance is taken of what is off: seeds keep their meaning.
        let chance = |core: &mut Core, share: u32| data && share > 0 && core.rng.chance(share);
        if chance(core, self.config.stall_per_million) {
            latency += core.rng.duration(&self.config.stall);
        }
        if !reset && chance(core, self.config.left_behind_per_million) {
            return self.leave_behind(core, from, content, latency);
        }
        let Some(wire) = self.wires.get_mut(&from) else {
            return;
        };
        let due = wire.last_due.max(core.now + latency);
        wire.last_due = due;
        if wire.packets.is_empty() {
            core.schedule(due, Event::Wire { from });
        }
        let content = if reset { Content::Reset } else { content };
        wire.packets.push_back(Packet { due, sent: core.now, content });
        if reset {
            core.schedule(core.now + latency, Event::Reset { sock: from });
        }
    }

    /// The sender's end breaks now, the other one only when its reset arrives, after all else.
    fn leave_behind(&mut self, core: &mut Core, from: Raw, content: Content, latency: Duration) {
        let late = core.rng.duration(&self.config.stall);
        let Some(wire) = self.wires.get_mut(&from) else {
            return;
        };
        if wire.packets.is_empty() {
            core.schedule(wire.last_due.max(core.now + latency), Event::Wire { from });
        }
        for (content, latency) in [(content, latency), (Content::Reset, latency + late)] {
            let due = wire.last_due.max(core.now + latency);
            wire.last_due = due;
            wire.packets.push_back(Packet { due, sent: core.now, content });
        }
        core.schedule(core.now, Event::Reset { sock: from });
    }

    /// Breaks one end: what waits on it fails, what comes later too.
    fn fail(&mut self, core: &mut Core, raw: Raw, errno: i32) {
        let Some(Sock { host, kind: Kind::End(end) }) = self.sockets.get_mut(&raw) else {
            return;
        };
        end.error = Some(errno);
        if core.rng.coin() {
            end.inbox.clear();
        }
        if let Some(key) = end.connecting.take() {
            let error = io::Error::from_raw_os_error(errno);
            core.complete(*host, key, Output::Connected(Err(error)));
        }
        self.pump(core, raw);
        self.serve_receives(core, raw);
    }

    fn latency(&self, core: &mut Core) -> Duration {
        core.rng.duration(&self.config.latency)
    }

    fn add(&mut self, host: HostId, kind: Kind) -> Raw {
        self.last_raw += 1;
        self.sockets.insert(self.last_raw, Sock { host, kind });
        self.last_raw
    }

    fn end_mut(&mut self, raw: Raw) -> Option<&mut End> {
        match self.sockets.get_mut(&raw) {
            Some(Sock { kind: Kind::End(end), .. }) => Some(end),
            _ => None,
        }
    }

    fn find_listener(&self, host: HostId, addr: SocketAddr) -> Option<Raw> {
        let matches =
            |ip: IpAddr| ip.is_unspecified() || addr.ip().is_unspecified() || ip == addr.ip();
        self.sockets.iter().find_map(|(raw, sock)| match &sock.kind {
            Kind::Listener(listener)
                if sock.host == host
                    && listener.local.port() == addr.port()
                    && matches(listener.local.ip()) =>
            {
                Some(*raw)
            }
            _ => None,
        })
    }

    fn free_port(&mut self) -> u16 {
        self.last_port = if self.last_port == u16::MAX { 20_001 } else { self.last_port + 1 };
        self.last_port
    }
}

impl Wire {
    fn new(to: Raw, from_host: HostId, to_host: HostId) -> Wire {
        Wire { to, from_host, to_host, packets: VecDeque::new(), last_due: Duration::ZERO }
    }
}

/// The address of the `number`th host.
pub(super) fn host_ip(number: usize) -> IpAddr {
    let [_, high, mid, low] = (number as u32 + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, high, mid, low))
}

fn take_by_key<T>(queue: &mut VecDeque<T>, is_it: impl FnMut(&T) -> bool) -> Option<T> {
    let index = queue.iter().position(is_it)?;
    queue.remove(index)
}
