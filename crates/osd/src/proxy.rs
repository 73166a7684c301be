//! Requests that a request makes of other objects: what a redirect leads to, and references to that.
//!
//! One connection leads to each OSD, this one too. A request is sent again whenever its object has moved
//! or the connection broke, under one request id: so it is executed once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use spirula_maps::OsdMap;
use spirula_msgr::{Target as Peer, on_xstream};
use spirula_wire::msg::osd::{OsdBackoff, backoff_op};
use spirula_wire::msg::osd_op::{OsdOpMsg, OsdOpReply};
use spirula_wire::msg::types;
use spirula_wire::types::{EntityAddr, EntityName, EntityType, HObject, ObjectLocator, RequestId};
use spirula_wire::types::{PgId, SpgId};
use spirula_wire::{Features, Message};
use spirula_xstream::sync::{OneshotReceiver, OneshotSender, oneshot};
use spirula_xstream::{Class, timeout};

use crate::boot::messenger_config;
use crate::errno::*;
use crate::pg::Pg;
use crate::target::Target;

const F: Features = Features::PACIFIC;
/// How long a broken connection waits before the next one.
const AGAIN: Duration = Duration::from_millis(500);

/// The connections of a target to OSDs.
#[derive(Default)]
pub struct Links {
    open: RefCell<BTreeMap<EntityAddr, Link>>,
    last_tid: Cell<u64>,
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

    fn send(
        &self,
        target: &Target,
        addr: &EntityAddr,
        msg: &OsdOpMsg,
    ) -> Option<OneshotReceiver<OsdOpReply>> {
        let tid = self.next_tid(target);
        let mut open = self.open.borrow_mut();
        open.retain(|_, link| !link.waits.borrow().closed);
        if !open.contains_key(addr) {
            open.insert(*addr, Link::open(target, *addr)?);
        }
        let link = &open[addr];
        let (sender, receiver) = oneshot();
        link.waits.borrow_mut().by_tid.insert(tid, sender);
        link.session.send(msg.to_raw(tid, F));
        Some(receiver)
    }

    /// Nobody gets an answer any more.
    pub fn close(&self) {
        self.open.borrow_mut().clear();
    }
}

struct Link {
    session: on_xstream::Session,
    waits: Rc<RefCell<Waits>>,
}

/// Who waits for an answer; dropped, they ask again.
#[derive(Default)]
struct Waits {
    closed: bool,
    by_tid: BTreeMap<u64, OneshotSender<OsdOpReply>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.session.close();
    }
}

impl Link {
    fn open(target: &Target, addr: EntityAddr) -> Option<Self> {
        let auth = target.mon().osd_authorizer();
        let auth = auth.inspect_err(|e| tracing::warn!("no ticket for OSDs yet: {e}")).ok()?;
        let waits = Rc::<RefCell<Waits>>::default();
        let waiting = waits.clone();
        let dispatch = move |session: &on_xstream::Session, event: on_xstream::Event| match event {
            on_xstream::Event::Message(incoming) => take(session, &waiting, &incoming.raw),
            on_xstream::Event::Closed(_) => {
                let gone = Waits { closed: true, ..Waits::default() };
                drop(waiting.replace(gone));
            }
            _ => {}
        };
        let peer = Peer { type_: EntityType::OSD, addr };
        let session =
            on_xstream::open(Class::Client, messenger_config(target), peer, auth, dispatch);
        Some(Self { session, waits })
    }
}

/// A message from the OSD at the other end.
fn take(session: &on_xstream::Session, waits: &RefCell<Waits>, raw: &spirula_wire::RawMessage) {
    if let Ok(reply) = OsdOpReply::from_raw(raw) {
        let waiting = waits.borrow_mut().by_tid.remove(&raw.header.tid);
        // Whoever asked may have given up.
        waiting.into_iter().for_each(|sender| drop(sender.send(reply.clone())));
    } else if raw.header.type_ == types::OSD_BACKOFF
        && let Ok(backoff) = OsdBackoff::from_raw(raw)
    {
        if backoff.op == backoff_op::BLOCK {
            let seen = OsdBackoff { op: backoff_op::ACK_BLOCK, ..backoff };
            session.send(seen.to_raw(0, F));
        } else {
            let again = std::mem::take(&mut waits.borrow_mut().by_tid);
            drop(again);
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
        let acting = found.acting;
        Ok(addr.map(|addr| Self { addr, pgid, acting, pg_num, last_force_op_resend, up_from }))
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
    object: HObject,
    msg: OsdOpMsg,
    sent: Option<(Place, OneshotReceiver<OsdOpReply>)>,
}

impl Asking {
    /// Sends at once what `msg` asks of `object`, so that requests leave in the order of their
    /// beginning. A request without an id gets one of this OSD.
    pub fn begin(target: &Target, object: HObject, msg: OsdOpMsg) -> Self {
        let mut asking = Self { target: target.clone(), object, msg, sent: None };
        if asking.msg.reqid == RequestId::default() {
            let name = EntityName::osd(target.config().osd_id.into());
            let tid = target.links().next_tid(target);
            asking.msg.reqid = RequestId { name, tid, inc: 0 };
        }
        // What fails now is met again by `answer`.
        let _ = asking.send_where_it_is();
        asking
    }

    /// Waits for the answer, on behalf of a request to `pg`.
    pub async fn answer(mut self, pg: &Pg) -> Result<OsdOpReply, Unanswered> {
        loop {
            if self.target.is_stopping() || !pg.active.get() {
                return Err(Unanswered::Dropped);
            }
            self.send_where_it_is().map_err(Unanswered::Errno)?;
            let target = self.target.clone();
            let news = pin!(timeout(AGAIN, target.map_changed()));
            let Some((_, reply)) = &mut self.sent else {
                let _ = news.await;
                continue;
            };
            match select(reply, news).await {
                Either::Left((Ok(reply), _)) => return Ok(reply),
                Either::Left((Err(_), news)) => {
                    self.sent = None;
                    let _ = news.await;
                }
                Either::Right(_) => {}
            }
        }
    }

    /// Sends the request unless it is under way to where its object is.
    fn send_where_it_is(&mut self) -> Result<(), i32> {
        let place = Place::of(&self.target.map(), &self.object)?;
        if self.sent.as_ref().map(|(at, _)| at) == place.as_ref() {
            return Ok(());
        }
        self.sent = None;
        if let Some(place) = place {
            self.msg.spgid = SpgId::whole(place.pgid);
            self.msg.hash = self.object.hash;
            self.msg.map_epoch = self.target.epoch();
            self.msg.locator = locator_of(&self.object);
            self.msg.oid = self.object.oid.clone();
            self.msg.features = F.0;
            let reply = self.target.links().send(&self.target, &place.addr, &self.msg);
            self.sent = reply.map(|reply| (place, reply));
        }
        Ok(())
    }
}
