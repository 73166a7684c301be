//! A simulated host with a target on it, and a client that speaks `osd_op` to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_auth::{ConMode, CryptoKey, METHOD_NONE, MonGrant, ServiceConnector};
use spirula_bio::Device;
use spirula_maps::{NewCluster, OsdMap, PgPool, SnapIntervals, flags, osd_state};
use spirula_msgr::{Config, Target as Peer, on_xstream};
use spirula_osd::snap::trim::Trimming;
use spirula_osd::stats::{StatSum, pg_stat};
use spirula_osd::{Target, TargetConfig};
use spirula_store::{Expect, FormatOptions, Options, ScrubStatus, Store};
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd::{OsdBackoff, OsdMapMsg, WatchNotify, backoff_op};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpMsg, OsdOpReply, flag};
use spirula_wire::types::{
    AddrType, EntityAddr, EntityAddrVec, EntityName, EntityNameStr, EntityType, HObject,
    ObjectLocator, PgId, PgNlsResponse, SnapContext, SnapId, SpgId, UTime, Uuid,
};
use spirula_wire::{Decode, Encode, Features, Message, RawMessage};
use spirula_xstream::sim::{SimHost, SimWorld};
use spirula_xstream::sync::{QueueReceiver, queue};
use spirula_xstream::{Class, sleep, spawn, timeout};

pub(crate) const F: Features = Features::PACIFIC;
pub(crate) const POOL: i64 = 1;
const PG_NUM: u32 = 4;
const PORT: u16 = 6800;
const FSID: Uuid = Uuid([7; 16]);
/// How late a map comes that is late.
pub(crate) const MAP_DELAY: Duration = Duration::from_millis(100);
/// Of the clients' processes.
const NONCE: u32 = 9;
const DISK: &str = "/disk";

/// A target on a simulated host, and a host for its clients.
pub(crate) struct Cluster {
    pub(crate) world: SimWorld,
    osd: SimHost,
    clients: SimHost,
    map: Rc<RefCell<Option<OsdMap>>>,
    /// The target, on its own host.
    target: Rc<RefCell<Option<Target>>>,
    /// Snapshots that are being removed.
    removed: Rc<RefCell<SnapIntervals>>,
}

impl Cluster {
    pub(crate) fn start(seed: u64) -> Self {
        let world = SimWorld::new(seed);
        let (osd, clients) = (world.host("osd"), world.host("clients"));
        osd.disk(DISK, 256 << 20);
        let cluster = Self {
            world,
            osd,
            clients,
            map: Rc::default(),
            target: Rc::default(),
            removed: Rc::default(),
        };
        cluster.run(true, Duration::ZERO);
        cluster
    }

    /// Stops the target without a good-bye, and starts it again.
    pub(crate) fn restart(&self) {
        self.osd.kill();
        self.run(false, Duration::ZERO);
    }

    pub(crate) fn power_loss(&self) {
        self.osd.power_loss();
        self.clients.kill();
        self.run(false, Duration::ZERO);
    }

    /// As [`Self::restart`], but the target gets the map only a while after clients can connect.
    pub(crate) fn restart_with_late_map(&self) {
        self.osd.kill();
        self.run(false, MAP_DELAY);
    }

    fn run(&self, format: bool, map_delay: Duration) {
        let bind = SocketAddr::new(self.osd.ip(), PORT);
        let (map, running) = (self.map.clone(), self.target.clone());
        let removed = self.removed.borrow().clone();
        let epoch = map.take().map_or(1, |map| map.epoch);
        self.osd.spawn(Class::Client, async move {
            let store = open_store(format).await;
            let config = TargetConfig {
                osd_id: 0,
                fsid: FSID,
                osd_uuid: Uuid([1; 16]),
                key: CryptoKey::default(),
                auth_methods: vec![METHOD_NONE],
                mons: Vec::new(),
                bind,
                hostname: "osd".into(),
                metadata: Default::default(),
                options: Default::default(),
            };
            let started = |target: &Target, _: SocketAddr| {
                let mut new = map_of(target.addrs());
                let first = message_of(&new);
                (new.epoch, new.osds[0].info.up_thru) = (epoch, epoch);
                if !removed.is_empty() {
                    new.removed_snaps_queue.insert(POOL, removed);
                }
                let message = message_of(&new);
                *map.borrow_mut() = Some(new);
                let target = target.clone();
                *running.borrow_mut() = Some(target.clone());
                drop(spawn(Class::Client, async move {
                    sleep(map_delay).await;
                    target.handle_maps(&message);
                    if epoch > 1 {
                        // What it asks a monitor for, to catch up from there.
                        target.handle_maps(&first);
                        target.handle_maps(&message);
                    }
                }));
            };
            spirula_osd::run(config, store, started).await.unwrap();
        });
        let started = self.world.run_until(Duration::from_secs(60), || self.map.borrow().is_some());
        assert!(started, "the target did not start");
    }

    /// Runs a client beside everything else, until the target loses power.
    pub(crate) fn spawn_client(&self, body: impl AsyncFnOnce(&mut Client) + 'static) {
        let addr = SocketAddr::new(self.osd.ip(), PORT);
        let map = self.map.borrow().clone().unwrap();
        self.clients.spawn(Class::Client, async move {
            let mut client = Client::open(addr, map, F, NONCE);
            body(&mut client).await;
        });
    }

    /// Runs a client to its end.
    pub(crate) fn client(&self, body: impl AsyncFnOnce(&mut Client) + 'static) {
        self.client_as(F, NONCE, body);
    }

    /// As [`Self::client`], from another process.
    pub(crate) fn client_of_nonce(
        &self,
        nonce: u32,
        body: impl AsyncFnOnce(&mut Client) + 'static,
    ) {
        self.client_as(F, nonce, body);
    }

    /// The target gets a new map in a while; clients that begin after this know it at once.
    pub(crate) fn change_map(&self, after: Duration, change: impl FnOnce(&mut OsdMap)) -> OsdMap {
        let mut map = self.map.borrow().clone().unwrap();
        map.epoch += 1;
        change(&mut map);
        map.osds[0].info.up_thru = map.epoch;
        let maps = [(map.epoch, map.to_bytes(F).into())].into();
        let message = OsdMapMsg { fsid: FSID, maps, ..OsdMapMsg::default() };
        let target = self.target.borrow().clone().unwrap();
        self.osd.spawn(Class::Client, async move {
            sleep(after).await;
            target.handle_maps(&message);
        });
        map
    }

    /// A new map blocklists the clients of [`Self::client`].
    pub(crate) fn blocklist_clients(&self) {
        let socket = SocketAddr::new(self.clients.ip(), 0);
        let addr = EntityAddr { type_: AddrType::ANY, nonce: NONCE, addr: Some(socket) };
        self.change_map(Duration::ZERO, |map| {
            map.blocklist.insert(addr, UTime { sec: u32::MAX, nsec: 0 });
        });
    }

    /// Tells the target that a snapshot is removed; it may have begun to trim it.
    pub(crate) fn remove_snap(&self, snap: SnapId) {
        self.removed.borrow_mut().insert(snap.0, 1);
        let removed = self.removed.borrow().clone();
        self.set_map(|map| {
            map.removed_snaps_queue.insert(POOL, removed);
        });
    }

    /// Sets the map's flags.
    pub(crate) fn set_flags(&self, flags: u32) {
        let own = flags::SORTBITWISE | flags::RECOVERY_DELETES;
        self.set_map(|map| map.flags = map.flags & own | flags);
    }

    /// Gives the target a new map.
    fn set_map(&self, change: impl FnOnce(&mut OsdMap)) {
        let mut map = self.map.borrow().clone().unwrap();
        map.epoch += 1;
        change(&mut map);
        map.osds[0].info.up_thru = map.epoch;
        let maps = [(map.epoch, map.to_bytes(F).into())].into();
        let message = OsdMapMsg { fsid: FSID, maps, ..OsdMapMsg::default() };
        let target = self.target.borrow().clone().unwrap();
        *self.map.borrow_mut() = Some(map);
        let done = self.osd.block_on(async move {
            target.handle_maps(&message);
        });
        assert!(done.is_ok());
    }

    /// Sets options of the target.
    pub(crate) fn set_options(&self, options: &[(&str, &str)]) {
        let target = self.target.borrow().clone().unwrap();
        let options: Vec<_> =
            options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let done = self.osd.block_on(async move {
            target.change_options(|o| o.overrides.extend(options));
        });
        assert!(done.is_ok());
    }

    /// Since when a PG is reported to be in its state.
    pub(crate) fn changed_at(&self, seed: u32) -> UTime {
        let target = self.target.borrow().clone().unwrap();
        let pg = target.pgs().get(PgId::new(POOL, seed)).unwrap();
        let stat = async move {
            pg_stat(&pg, &ScrubStatus::default(), 1, 1, spirula_osd::stats::clocks()).last_change
        };
        self.osd.block_on(stat).unwrap()
    }

    /// What the PGs do about removed snapshots, and how many they have to trim.
    pub(crate) fn trimming(&self) -> Vec<(Trimming, u64)> {
        let target = self.target.borrow().clone().unwrap();
        let of = |pg: &Rc<spirula_osd::pg::Pg>| (pg.trimming.get(), pg.snap_trimq.borrow().count());
        target.pgs().all().iter().map(of).collect()
    }

    /// Waits until no PG has anything left to trim.
    pub(crate) fn trimmed(&self) {
        let target = self.target.borrow().clone().unwrap();
        let removed = self.removed.borrow().clone();
        let is_done = |target: &Target| {
            let done = |pg: &Rc<spirula_osd::pg::Pg>| pg.state.borrow().purged == removed;
            target.pgs().all().iter().all(done)
        };
        assert!(self.world.run_until(Duration::from_secs(60), || is_done(&target)), "not trimmed");
    }

    /// Writes the store's changed pages.
    pub(crate) fn checkpoint(&self) {
        let target = self.target.borrow().clone().unwrap();
        let done = self.osd.block_on(async move { target.store().checkpoint().await });
        assert!(done.is_ok_and(|written| written.is_ok()));
    }

    /// Bytes of data in the store.
    pub(crate) fn stored(&self) -> u64 {
        self.target.borrow().as_ref().map_or(0, |t| t.store().statfs().stored)
    }

    /// Waits until the store has no data.
    pub(crate) fn emptied(&self) -> bool {
        let target = self.target.borrow().clone().unwrap();
        self.world.run_until(Duration::from_secs(60), || target.store().statfs().stored == 0)
    }

    /// Sums of the target's counters.
    pub(crate) fn stats(&self) -> StatSum {
        let target = self.target.borrow().clone().unwrap();
        let mut sum = StatSum::default();
        target.pgs().all().iter().for_each(|pg| sum.add(&pg.state.borrow().stats));
        sum
    }

    /// As [`Self::client`], with only these features.
    pub(crate) fn client_with(
        &self,
        features: Features,
        body: impl AsyncFnOnce(&mut Client) + 'static,
    ) {
        self.client_as(features, NONCE, body);
    }

    fn client_as(
        &self,
        features: Features,
        nonce: u32,
        body: impl AsyncFnOnce(&mut Client) + 'static,
    ) {
        let addr = SocketAddr::new(self.osd.ip(), PORT);
        let map = self.map.borrow().clone().unwrap();
        let done = self.clients.block_on(async move {
            let mut client = Client::open(addr, map, features, nonce);
            body(&mut client).await;
        });
        assert!(done.is_ok());
    }
}

async fn open_store(format: bool) -> Store {
    if format {
        let device = Device::create(DISK, None).unwrap();
        let options = FormatOptions {
            fsid: FSID.0,
            osd_id: 0,
            osd_uuid: [1; 16],
            ..FormatOptions::default()
        };
        Store::format(&device, &options).await.unwrap();
    }
    let device = Device::open(DISK).unwrap();
    let expect = Expect { fsid: Some(FSID.0), osd_id: Some(0) };
    Store::open(&device, expect, Options::default()).await.unwrap()
}

fn message_of(map: &OsdMap) -> OsdMapMsg {
    let maps = [(map.epoch, map.to_bytes(F).into())].into();
    OsdMapMsg { fsid: FSID, maps, ..OsdMapMsg::default() }
}

fn map_of(addrs: &EntityAddrVec) -> OsdMap {
    let mut cluster = NewCluster::new(FSID, UTime::default());
    cluster.osds = vec![(Uuid([1; 16]), 0x1_0000)];
    cluster.failure_domain = "osd".into();
    let mut map = cluster.osdmap().unwrap();
    map.osds[0].state |= osd_state::UP;
    // No monitor is there to raise it.
    map.osds[0].info.up_thru = map.epoch;
    map.osds[0].client_addrs = addrs.clone();
    map.pools.insert(POOL, PgPool::replicated(1, 1, PG_NUM, 0));
    map.pool_names.insert(POOL, "p".into());
    map.pool_max = POOL as i32;
    map
}

/// What a session has sent and heard.
#[derive(Default)]
struct Sent {
    /// Requests without an answer, in the order of their tids.
    unanswered: BTreeMap<u64, (SpgId, RawMessage)>,
    /// What the target said of backoffs.
    backoffs: Vec<(u8, SpgId)>,
    /// Types of all messages that came.
    heard: Vec<u16>,
}

impl Sent {
    /// Whether the target has said BLOCK for a PG, and not UNBLOCK yet.
    fn is_blocked(&self, pgid: SpgId) -> bool {
        let last = self.backoffs.iter().rev().find(|(_, of)| *of == pgid);
        last.is_some_and(|(op, _)| *op == backoff_op::BLOCK)
    }

    /// Answers a backoff, and repeats at its end what it held up.
    fn back_off(&mut self, session: &on_xstream::Session, backoff: OsdBackoff) {
        self.backoffs.push((backoff.op, backoff.pgid));
        if backoff.op == backoff_op::BLOCK {
            session.send(OsdBackoff { op: backoff_op::ACK_BLOCK, ..backoff }.to_raw(0, F));
            return;
        }
        let held = self.unanswered.values().filter(|(pgid, _)| *pgid == backoff.pgid);
        held.for_each(|(_, message)| session.send(message.clone()));
    }
}

/// A client session with the target.
pub(crate) struct Client {
    session: on_xstream::Session,
    replies: QueueReceiver<(u64, OsdOpReply)>,
    events: QueueReceiver<WatchNotify>,
    sent: Rc<RefCell<Sent>>,
    map: OsdMap,
    last_tid: u64,
    /// What requests are about, and the context they carry.
    pub(crate) snap: SnapId,
    pub(crate) context: SnapContext,
    /// More flags of requests.
    pub(crate) flags: u32,
}

impl Client {
    fn open(addr: SocketAddr, map: OsdMap, features: Features, nonce: u32) -> Self {
        let grant = MonGrant { method: METHOD_NONE, global_id: 4100, ..MonGrant::default() };
        let name = EntityNameStr::new(EntityType::CLIENT, "admin");
        let auth =
            ServiceConnector::new(EntityType::OSD, &grant, &name, vec![ConMode::Crc], [3; 32]);
        let peer = Peer { type_: EntityType::OSD, addr: map.osds[0].client_addrs.front() };
        assert_eq!(peer.addr.addr, Some(addr));
        let mut config = Config::new(EntityName::client(4100), EntityAddrVec::default());
        config.nonce = nonce;
        config.supported = features;
        let (sender, replies) = queue();
        let (event_sender, events) = queue();
        let sent = Rc::<RefCell<Sent>>::default();
        let heard = sent.clone();
        let dispatch = move |session: &on_xstream::Session, event: on_xstream::Event| {
            let on_xstream::Event::Message(incoming) = event else {
                return;
            };
            heard.borrow_mut().heard.push(incoming.raw.header.type_);
            if let Ok(reply) = OsdOpReply::from_raw(&incoming.raw) {
                let tid = incoming.raw.header.tid;
                // What was repeated while its answer was on the way is answered twice.
                if heard.borrow_mut().unanswered.remove(&tid).is_some() {
                    let _ = sender.send((tid, reply));
                }
            } else if let Ok(backoff) = OsdBackoff::from_raw(&incoming.raw) {
                heard.borrow_mut().back_off(session, backoff);
            } else if let Ok(event) = WatchNotify::from_raw(&incoming.raw) {
                let _ = event_sender.send(event);
            }
        };
        let auth = Box::new(auth.unwrap());
        let session = on_xstream::open(Class::Client, config, peer, auth, dispatch);
        Self {
            session,
            replies,
            events,
            sent,
            map,
            // Another session must not seem to repeat the requests of an earlier one.
            last_tid: spirula_xstream::random_u64() >> 1,
            snap: SnapId::HEAD,
            context: SnapContext::default(),
            flags: 0,
        }
    }

    /// Sends and waits for the answer.
    pub(crate) async fn op(&mut self, name: &str, ops: &[OsdOp]) -> OsdOpReply {
        self.last_tid += 1;
        self.op_as(self.last_tid, name, ops).await
    }

    pub(crate) async fn op_as(&mut self, tid: u64, name: &str, ops: &[OsdOp]) -> OsdOpReply {
        self.send_as(tid, name, ops);
        let (answered, reply) = self.reply().await;
        assert_eq!(answered, tid);
        reply
    }

    /// Sends without waiting; the request's tid.
    pub(crate) fn send(&mut self, name: &str, ops: &[OsdOp]) -> u64 {
        self.last_tid += 1;
        self.send_as(self.last_tid, name, ops);
        self.last_tid
    }

    pub(crate) async fn replies(&mut self, count: usize) -> Vec<(u64, OsdOpReply)> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.reply().await);
        }
        all
    }

    /// Follows a new map.
    pub(crate) fn learn(&mut self, map: OsdMap) {
        self.map = map;
    }

    /// The next message about watches and notifies.
    pub(crate) async fn event(&mut self) -> WatchNotify {
        let event = timeout(Duration::from_secs(30), self.events.recv()).await;
        event.expect("no message").expect("the session ended")
    }

    async fn reply(&mut self) -> (u64, OsdOpReply) {
        let reply = timeout(Duration::from_secs(30), self.replies.recv()).await;
        reply.expect("no answer").expect("the session ended")
    }

    fn send_as(&self, tid: u64, name: &str, ops: &[OsdOp]) {
        let locator = ObjectLocator::pool(POOL);
        let raw = self.map.object_to_pg(&locator, name.as_bytes()).unwrap();
        let pgid = self.map.raw_pg_to_pg(raw).unwrap();
        self.send_to(pgid, raw.seed, tid, name, ops);
    }

    fn send_to(&self, pgid: PgId, hash: u32, tid: u64, name: &str, ops: &[OsdOp]) {
        let msg = OsdOpMsg {
            spgid: SpgId::whole(pgid),
            hash,
            map_epoch: self.map.epoch,
            flags: flag::ONDISK | flag::KNOWN_REDIR | self.flags,
            locator: ObjectLocator::pool(POOL),
            oid: name.to_owned().into(),
            ops: ops.to_vec(),
            snap: self.snap,
            snapc: self.context.clone(),
            features: F.0,
            ..OsdOpMsg::default()
        };
        let (pgid, message) = (msg.spgid, msg.to_raw(tid, F));
        let mut sent = self.sent.borrow_mut();
        sent.unanswered.insert(tid, (pgid, message.clone()));
        if !sent.is_blocked(pgid) {
            self.session.send(message);
        }
    }

    /// Types of the messages that came since this was asked last.
    pub(crate) fn heard(&self) -> Vec<u16> {
        std::mem::take(&mut self.sent.borrow_mut().heard)
    }

    /// What the target said of backoffs so far.
    pub(crate) fn backoffs(&self) -> Vec<(u8, SpgId)> {
        self.sent.borrow().backoffs.clone()
    }

    /// Names of all objects, read in pages.
    pub(crate) async fn list(&mut self, page: u64) -> Vec<String> {
        let mut names = Vec::new();
        for seed in 0..PG_NUM {
            let pgid = PgId::new(POOL, seed);
            let mut cursor = HObject { snap: SnapId::HEAD, ..HObject::at_hash(POOL, seed) };
            loop {
                let args = OpArgs::Pgls { count: page, start_epoch: 0 };
                let op = OsdOp::new(OpCode::PGNLS, args, cursor.to_bytes(F).into());
                self.last_tid += 1;
                self.send_to(pgid, seed, self.last_tid, "", &[op]);
                let (_, reply) = self.reply().await;
                assert!((0..=1).contains(&reply.result), "{}", reply.result);
                let listed = PgNlsResponse::from_bytes(&reply.ops[0].outdata.concat()).unwrap();
                assert!(listed.entries.len() as u64 <= page);
                let name = |oid: &Bytes| String::from_utf8_lossy(oid).into_owned();
                names.extend(listed.entries.iter().map(|e| name(&e.oid)));
                if reply.result == 1 {
                    break;
                }
                cursor = listed.handle;
            }
        }
        names
    }
}

/// Output of operation `i`.
pub(crate) fn text(reply: &OsdOpReply, i: usize) -> String {
    String::from_utf8_lossy(&reply.ops[i].outdata.concat()).into_owned()
}

/// Makes operations.
pub(crate) struct Op;

impl Op {
    pub(crate) fn with(code: OpCode, args: OpArgs, input: &str) -> OsdOp {
        OsdOp::new(code, args, input.to_owned().into())
    }

    pub(crate) fn plain(code: OpCode) -> OsdOp {
        OsdOp { code, ..OsdOp::default() }
    }

    pub(crate) fn stat() -> OsdOp {
        Self::plain(OpCode::STAT)
    }

    pub(crate) fn read(offset: u64, length: u64) -> OsdOp {
        Self::with(OpCode::READ, OpArgs::extent(offset, length), "")
    }

    pub(crate) fn write(offset: u64, data: &str) -> OsdOp {
        Self::with(OpCode::WRITE, OpArgs::extent(offset, data.len() as u64), data)
    }

    pub(crate) fn write_full(data: &str) -> OsdOp {
        Self::with(OpCode::WRITEFULL, OpArgs::extent(0, data.len() as u64), data)
    }

    pub(crate) fn append(data: &str) -> OsdOp {
        Self::with(OpCode::APPEND, OpArgs::extent(0, data.len() as u64), data)
    }

    pub(crate) fn set_xattr(name: &str, value: &str) -> OsdOp {
        Self::with(OpCode::SETXATTR, xattr_args(name, value), &format!("{name}{value}"))
    }

    pub(crate) fn get_xattr(name: &str) -> OsdOp {
        Self::with(OpCode::GETXATTR, xattr_args(name, ""), name)
    }

    pub(crate) fn cmp_xattr(name: &str, value: &str) -> OsdOp {
        Self::with(OpCode::CMPXATTR, xattr_args(name, value), &format!("{name}{value}"))
    }

    pub(crate) fn set_omap(pairs: &[(&str, &str)]) -> OsdOp {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        OsdOp::new(OpCode::OMAP_SET_VALS, OpArgs::default(), pairs.to_bytes(F).into())
    }

    pub(crate) fn omap_keys(after: &str, max: u64) -> OsdOp {
        let mut input = after.to_owned().to_bytes(F);
        max.encode(&mut input, F);
        OsdOp::new(OpCode::OMAP_GET_KEYS, OpArgs::default(), input.into())
    }
}

fn xattr_args(name: &str, value: &str) -> OpArgs {
    OpArgs::Xattr {
        name_len: name.len() as u32,
        value_len: value.len() as u32,
        cmp_op: 1,
        cmp_mode: 1,
    }
}
