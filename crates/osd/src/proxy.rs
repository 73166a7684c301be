//! Requests that a request makes of other objects: what manifests lead to, and references to that.
//!
//! A request is sent again whenever its object has moved or the connection broke, under one request id:
//! so it is executed once. Requests for one object leave in the order of their beginning, also when they
//! are sent again: one place sends all of them, the oldest first.
//!
//! One connection leads to each OSD, this one too, for each step of a way from manifest to manifest: an OSD
//! takes in so many requests of a connection at a time, and each may wait for the next step.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use spirula_maps::{OsdMap, pool_flags};
use spirula_msgr::{Target as Peer, on_xstream};
use spirula_wire::msg::osd::{OsdBackoff, backoff_op};
use spirula_wire::msg::osd_op::{OsdOpMsg, OsdOpReply};
use spirula_wire::msg::types;
use spirula_wire::types::{EntityAddr, EntityName, EntityType, HObject, ObjectLocator, RequestId};
use spirula_wire::types::{PgId, SpgId};
use spirula_wire::{Features, Message};
use spirula_xstream::sync::{Notify, OneshotReceiver, OneshotSender, oneshot};
use spirula_xstream::{Class, timeout};

use crate::boot::messenger_config;
use crate::errno::*;
use crate::pg::Pg;
use crate::target::{Target, TargetError};

const F: Features = Features::PACIFIC;
/// How long a broken connection waits before the next one.
const AGAIN: Duration = Duration::from_millis(500);

/// The requests of a target to OSDs, and the connections that they are on.
#[derive(Default)]
pub struct Links {
    /// By the step as well.
    open: RefCell<BTreeMap<(EntityAddr, i32), Link>>,
    waiting: Rc<Waiting>,
    last_tid: Cell<u64>,
    /// Somebody sends again what has to be.
    driven: Cell<bool>,
}

/// Requests without an answer, in the order of their beginning.
#[derive(Default)]
struct Waiting {
    by_tid: RefCell<BTreeMap<u64, Pending>>,
    /// Something has to be sent again.
    woken: Notify,
}

struct Pending {
    object: HObject,
    msg: OsdOpMsg,
    answer: OneshotSender<Result<OsdOpReply, i32>>,
    sent: Option<Sent>,
}

/// Where a request is under way to, by the map of an epoch.
struct Sent {
    epoch: u32,
    place: Place,
    line: Rc<RefCell<Line>>,
}

struct Link {
    session: on_xstream::Session,
    line: Rc<RefCell<Line>>,
}

/// What the other end of a connection said of it.
#[derive(Default)]
struct Line {
    closed: bool,
    /// Objects whose requests have to wait, by the id of the backoff.
    blocked: BTreeMap<u64, (HObject, HObject)>,
}

impl Line {
    fn takes(&self, object: &HObject) -> bool {
        !self.closed && !self.blocked.values().any(|range| covers(range, object))
    }
}

/// Whether the object is in a backoff's range.
fn covers((begin, end): &(HObject, HObject), object: &HObject) -> bool {
    begin == object || begin < object && object < end
}

impl Drop for Link {
    fn drop(&mut self) {
        self.session.close();
    }
}

impl Links {
    /// Ids of requests start at the time, so that a restarted OSD repeats none.
    fn next_tid(&self, target: &Target) -> u64 {
        if self.last_tid.get() == 0 {
            self.last_tid.set(target.wall_nanos());
        }
        self.last_tid.set(self.last_tid.get() + 1);
        self.last_tid.get()
    }

    /// Sends what is not under way to where its object is, the oldest first. A connection that broke
    /// is made anew only if it `mends`.
    fn send_all(&self, target: &Target, mends: bool) {
        let (map, epoch) = (target.map(), target.epoch());
        let mut refused = Vec::new();
        for (tid, pending) in self.waiting.by_tid.borrow_mut().iter_mut() {
            if pending.sent.as_ref().is_some_and(|s| s.epoch == epoch && !s.line.borrow().closed) {
                continue;
            }
            match Place::of(&map, &pending.object) {
                Err(errno) => refused.push((*tid, errno)),
                Ok(None) => pending.sent = None,
                Ok(Some(place)) => self.send(target, *tid, pending, place, mends),
            }
        }
        for (tid, errno) in refused {
            self.waiting.end(tid, Err(errno));
        }
    }

    fn send(&self, target: &Target, tid: u64, pending: &mut Pending, place: Place, mends: bool) {
        let epoch = target.epoch();
        if let Some(sent) = &mut pending.sent
            && sent.place == place
            && !sent.line.borrow().closed
        {
            sent.epoch = epoch;
            return;
        }
        pending.sent = None;
        let key = (place.addr, pending.msg.retry_attempt);
        let mut open = self.open.borrow_mut();
        if mends && open.get(&key).is_some_and(|link| link.line.borrow().closed) {
            open.remove(&key);
        }
        let link = match open.entry(key) {
            Entry::Occupied(link) => link.into_mut(),
            Entry::Vacant(free) => match Link::open(target, place.addr, &self.waiting) {
                Some(link) => free.insert(link),
                None => return,
            },
        };
        if link.line.borrow().takes(&pending.object) {
            pending.msg.spgid = SpgId::whole(place.pgid);
            pending.msg.map_epoch = epoch;
            link.session.send(pending.msg.to_raw(tid, F));
            pending.sent = Some(Sent { epoch, place, line: link.line.clone() });
        }
    }

    /// Sends again for as long as anybody waits.
    async fn drive(target: Target) -> Result<(), TargetError> {
        let links = target.links();
        while !links.waiting.by_tid.borrow().is_empty() && !target.is_stopping() {
            let news = pin!(timeout(AGAIN, target.map_changed()));
            let mends = match select(pin!(links.waiting.woken.notified()), news).await {
                Either::Left(_) => false,
                Either::Right((changed, _)) => changed.is_err(),
            };
            links.send_all(&target, mends);
        }
        links.driven.set(false);
        Ok(())
    }

    /// Nobody gets an answer any more.
    pub fn close(&self) {
        self.open.borrow_mut().clear();
        let waiting = std::mem::take(&mut *self.waiting.by_tid.borrow_mut());
        drop(waiting);
    }
}

impl Waiting {
    fn end(&self, tid: u64, answer: Result<OsdOpReply, i32>) {
        let pending = self.by_tid.borrow_mut().remove(&tid);
        // Whoever asked may have given up.
        pending.into_iter().for_each(|pending| drop(pending.answer.send(answer.clone())));
    }

    /// What was asked of these objects on the connection has to be sent again.
    fn repeat(&self, line: &Rc<RefCell<Line>>, range: &(HObject, HObject)) {
        for pending in self.by_tid.borrow_mut().values_mut() {
            let on_line = pending.sent.as_ref().is_some_and(|sent| Rc::ptr_eq(&sent.line, line));
            if on_line && covers(range, &pending.object) {
                pending.sent = None;
            }
        }
        self.woken.notify_one();
    }
}

impl Link {
    fn open(target: &Target, addr: EntityAddr, waiting: &Rc<Waiting>) -> Option<Self> {
        let auth = target.mon().osd_authorizer();
        let auth = auth.inspect_err(|e| tracing::warn!("no ticket for OSDs yet: {e}")).ok()?;
        let line = Rc::<RefCell<Line>>::default();
        let (waiting, noted) = (waiting.clone(), line.clone());
        let dispatch = move |session: &on_xstream::Session, event: on_xstream::Event| match event {
            on_xstream::Event::Message(incoming) => take(session, &waiting, &noted, &incoming.raw),
            on_xstream::Event::Closed(_) => noted.borrow_mut().closed = true,
            _ => {}
        };
        let peer = Peer { type_: EntityType::OSD, addr };
        let session =
            on_xstream::open(Class::Client, messenger_config(target), peer, auth, dispatch);
        Some(Self { session, line })
    }
}

/// A message from the OSD at the other end.
fn take(
    session: &on_xstream::Session,
    waiting: &Waiting,
    line: &Rc<RefCell<Line>>,
    raw: &spirula_wire::RawMessage,
) {
    if let Ok(reply) = OsdOpReply::from_raw(raw) {
        waiting.end(raw.header.tid, Ok(reply));
    } else if raw.header.type_ == types::OSD_BACKOFF
        && let Ok(backoff) = OsdBackoff::from_raw(raw)
    {
        if backoff.op == backoff_op::BLOCK {
            let range = (backoff.begin.clone(), backoff.end.clone());
            line.borrow_mut().blocked.insert(backoff.id, range);
            let seen = OsdBackoff { op: backoff_op::ACK_BLOCK, ..backoff };
            session.send(seen.to_raw(0, F));
        } else if let Some(range) = line.borrow_mut().blocked.remove(&backoff.id) {
            waiting.repeat(line, &range);
        }
    }
}

/// Where an object is, and what else makes clients send again what has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub addr: EntityAddr,
    pub pgid: PgId,
    acting: Vec<i32>,
    pg_num: u32,
    last_force_op_resend: u32,
    /// Epoch since which the primary is up.
    up_from: u32,
    /// Writes to a full pool are dropped; they are repeated when it is full no more.
    full: bool,
}

impl Place {
    /// `None`: nobody serves it now. An error (negative): there is no such pool.
    pub fn of(map: &OsdMap, object: &HObject) -> Result<Option<Self>, i32> {
        let pgid = map.raw_pg_to_pg(PgId::new(object.pool, object.hash)).ok_or(-ENOENT)?;
        let found = map.pg_to_up_acting(pgid);
        let addr = map.client_addrs(found.acting_primary).and_then(|addrs| addrs.msgr2());
        let pool = map.pool(object.pool).ok_or(-ENOENT)?;
        let (pg_num, last_force_op_resend) = (pool.pg_num, pool.last_force_op_resend);
        let up_from = map.osd(found.acting_primary).map_or(0, |osd| osd.info.up_from);
        let full = pool.has_flag(pool_flags::FULL) || map.has_flag(spirula_maps::flags::FULL);
        let acting = found.acting;
        let place = |addr| Self { addr, pgid, acting, pg_num, last_force_op_resend, up_from, full };
        Ok(addr.map(place))
    }
}

/// The object of a name; `None` if its pool does not exist.
pub fn object_of(map: &OsdMap, locator: ObjectLocator, name: bytes::Bytes) -> Option<HObject> {
    let hash = map.object_to_pg(&locator, &name)?.seed;
    let ObjectLocator { pool, key, nspace, .. } = locator;
    let key = if key == name { bytes::Bytes::new() } else { key };
    let snap = spirula_wire::types::SnapId::HEAD;
    Some(HObject { key, oid: name, snap, hash, max: false, nspace, pool })
}

/// The locator that leads to `object`.
pub fn locator_of(object: &HObject) -> ObjectLocator {
    let (pool, key, nspace) = (object.pool, object.key.clone(), object.nspace.clone());
    ObjectLocator { pool, key, nspace, ..ObjectLocator::default() }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The PG that asks is no longer served here, or the target stops.
    Dropped,
    /// A (negative) error.
    Errno(i32),
}

/// A request on its way.
pub struct Asking {
    target: Target,
    tid: u64,
    answer: OneshotReceiver<Result<OsdOpReply, i32>>,
}

impl Asking {
    /// Sends at once what `msg` asks of `object`. A request without an id gets one of this OSD.
    pub fn begin(target: &Target, object: HObject, mut msg: OsdOpMsg) -> Self {
        let links = target.links();
        let tid = links.next_tid(target);
        if msg.reqid == RequestId::default() {
            let name = EntityName::osd(target.config().osd_id.into());
            msg.reqid = RequestId { name, tid, inc: 0 };
        }
        msg.hash = object.hash;
        msg.locator = locator_of(&object);
        msg.oid = object.oid.clone();
        msg.features = F.0;
        let (sender, answer) = oneshot();
        let pending = Pending { object, msg, answer: sender, sent: None };
        links.waiting.by_tid.borrow_mut().insert(tid, pending);
        links.send_all(target, false);
        if !links.driven.replace(true) {
            target.spawn(Class::Client, Links::drive);
        }
        Self { target: target.clone(), tid, answer }
    }

    /// Waits for the answer, on behalf of a request to `pg`.
    pub async fn answer(mut self, pg: &Pg) -> Result<OsdOpReply, Unanswered> {
        let target = self.target.clone();
        while !target.is_stopping() && pg.active.get() {
            let news = pin!(timeout(AGAIN, target.map_changed()));
            match select(&mut self.answer, news).await {
                Either::Left((Ok(answer), _)) => return answer.map_err(Unanswered::Errno),
                Either::Left((Err(_), _)) => break,
                Either::Right(_) => {}
            }
        }
        Err(Unanswered::Dropped)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.target.links().waiting.by_tid.borrow_mut().remove(&self.tid);
    }
}
