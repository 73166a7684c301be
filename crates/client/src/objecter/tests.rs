//! The objecter against scripted maps, resets and answers.

use bytes::Bytes;
use spirula_maps::{Incremental, NewCluster, OsdMap, PgPool, flags as map_flag, osd_state};
use spirula_wire::msg::command::{Command, CommandReply};
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd::{OsdBackoff, OsdMapMsg, backoff_op};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpMsg, OsdOpReply};
use spirula_wire::msg::types;
use spirula_wire::types::{HObject, SnapContext, SnapId, UTime, Uuid};
use spirula_wire::{Encode as _, Features, Message as _};

use super::*;

const F: Features = Features::PACIFIC;
const POOL: i64 = 1;
const EIO: i32 = -5;

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn addr(osd: i32) -> EntityAddr {
    EntityAddr::msgr2(([127, 0, 0, 1], 6800 + osd as u16).into(), 1)
}

/// Three OSDs, all up, and one pool of a single PG.
fn cluster() -> OsdMap {
    let mut new = NewCluster::new(Uuid([7; 16]), UTime { sec: 1, nsec: 0 });
    new.osds = (0..3).map(|i| (Uuid([i + 1; 16]), 0x1_0000)).collect();
    new.failure_domain = "osd".to_owned();
    let mut map = new.osdmap().unwrap();
    for (id, osd) in map.osds.iter_mut().enumerate() {
        osd.state = osd_state::EXISTS | osd_state::UP;
        osd.weight = spirula_maps::WEIGHT_IN;
        osd.client_addrs = addr(id as i32).into();
    }
    map.pools.insert(POOL, PgPool::replicated(1, 1, 1, 0));
    map.pool_names.insert(POOL, "p".to_owned());
    map
}

struct Play {
    objecter: Objecter,
    map: OsdMap,
    now: Duration,
    actions: Vec<Action>,
}

impl Play {
    fn new() -> Self {
        let mut play =
            Self { objecter: Objecter::new(), map: cluster(), now: secs(1), actions: Vec::new() };
        play.publish(|_| {});
        play
    }

    /// The next epoch, as a whole map.
    fn publish(&mut self, change: impl FnOnce(&mut OsdMap)) {
        self.map.epoch += 1;
        change(&mut self.map);
        let message = whole(&self.map);
        self.objecter.handle_map(self.now, &message);
        self.collect();
    }

    fn collect(&mut self) {
        let actions = std::iter::from_fn(|| self.objecter.poll_action());
        self.actions.extend(actions);
    }

    fn submit(&mut self, flags: u32, deadline: Option<Duration>) -> u64 {
        let request = OpRequest {
            target: OpTarget::Object {
                locator: ObjectLocator::pool(POOL),
                oid: Bytes::from_static(b"obj"),
            },
            ops: vec![OsdOp::new(OpCode::STAT, OpArgs::default(), Bytes::new())],
            flags,
            snap: SnapId::HEAD,
            snapc: SnapContext::default(),
            mtime: UTime::default(),
        };
        let tid = self.objecter.submit(self.now, Work::Op(request), deadline);
        self.collect();
        tid
    }

    fn read(&mut self) -> u64 {
        self.submit(flag::READ, None)
    }

    fn primary(&self) -> i32 {
        let pg = self.map.object_to_pg(&ObjectLocator::pool(POOL), b"obj");
        self.map.pg_to_up_acting(pg.unwrap()).acting_primary
    }

    /// Answers the oldest request for a connection.
    fn connected(&mut self) -> (SessionId, i32) {
        let (session, osd) = self.connecting().expect("nothing wants to connect");
        self.objecter.handle_connected(self.now, session);
        self.collect();
        (session, osd)
    }

    fn connecting(&mut self) -> Option<(SessionId, i32)> {
        let is_connect = |a: &Action| matches!(a, Action::Connect { .. });
        let at = self.actions.iter().position(is_connect)?;
        match self.actions.remove(at) {
            Action::Connect { session, osd, addr: to } => {
                assert_eq!(to, addr(osd));
                Some((session, osd))
            }
            _ => None,
        }
    }

    /// Takes the requests sent on a session: tid and attempt.
    fn sent(&mut self, on: SessionId) -> Vec<(u64, i32)> {
        let mut sent = Vec::new();
        self.actions.retain(|action| match action {
            Action::Send { session, message } if message.header.type_ == types::OSD_OP => {
                assert_eq!(*session, on);
                let op = OsdOpMsg::from_raw(message).unwrap();
                sent.push((message.header.tid, op.retry_attempt));
                false
            }
            _ => true,
        });
        sent
    }

    fn reply(&mut self, session: SessionId, tid: u64, attempt: i32, result: i32) {
        let reply = OsdOpReply { result, retry_attempt: attempt, ..OsdOpReply::default() };
        let raw = reply.to_raw(tid, F);
        self.objecter.handle_message(self.now, session, &raw);
        self.collect();
    }

    fn closed(&mut self, session: SessionId) {
        self.objecter.handle_closed(self.now, session);
        self.collect();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.objecter.handle_timeout(self.now);
        self.collect();
    }

    /// Takes what was completed.
    fn done(&mut self) -> Vec<(u64, Result<i32, Failure>)> {
        let mut done = Vec::new();
        self.actions.retain(|action| match action {
            Action::Done { tid, result } => {
                let result = result.as_ref().map(|reply| match reply {
                    Reply::Op(reply) => reply.result,
                    Reply::Command(reply) => reply.r,
                });
                done.push((*tid, result.map_err(|e| *e)));
                false
            }
            _ => true,
        });
        done
    }

    fn wanted_maps(&mut self) -> Vec<u32> {
        let mut wanted = Vec::new();
        self.actions.retain(|action| match action {
            Action::WantMap { start } => {
                wanted.push(*start);
                false
            }
            _ => true,
        });
        wanted
    }

    fn asked_newest(&mut self) -> bool {
        let before = self.actions.len();
        self.actions.retain(|a| !matches!(a, Action::AskNewest));
        self.actions.len() < before
    }
}

fn whole(map: &OsdMap) -> OsdMapMsg {
    OsdMapMsg {
        fsid: map.fsid,
        maps: [(map.epoch, map.to_bytes(F).into())].into(),
        newest_map: map.epoch,
        ..OsdMapMsg::default()
    }
}

#[test]
fn requests_go_to_the_primary_once_the_session_is_open() {
    let mut play = Play::new();
    let (a, b) = (play.read(), play.read());
    let (session, osd) = play.connected();
    assert_eq!(osd, play.primary());
    assert_eq!(play.sent(session), [(a, 0), (b, 0)]);
    assert_eq!(play.connecting(), None);
    play.reply(session, b, 0, 0);
    play.reply(session, b, 0, 0);
    play.reply(session, a, 0, EIO);
    assert_eq!(play.done(), [(b, Ok(0)), (a, Ok(EIO))]);
    assert_eq!(play.objecter.poll_timeout(), None);
}

#[test]
fn what_a_copy_does_not_answer_goes_to_the_primary() {
    let mut play = Play::new();
    let pg = play.map.object_to_pg(&ObjectLocator::pool(POOL), b"obj").unwrap();
    let acting = [vec![2, 0], vec![2, 0, 1]];
    let acting = acting.into_iter().find(|a| !(pg.seed as usize).is_multiple_of(a.len())).unwrap();
    play.publish(|map| drop(map.pg_temp.insert(PgId::new(POOL, 0), acting.clone())));
    let copy = acting[pg.seed as usize % acting.len()];
    assert_ne!(copy, play.primary(), "of {acting:?}");
    let write = play.submit(flag::WRITE | flag::BALANCE_READS, None);
    let (session, osd) = play.connected();
    assert_eq!((osd, play.sent(session)), (play.primary(), vec![(write, 0)]));
    let read = play.submit(flag::READ | flag::LOCALIZE_READS, None);
    let (at_copy, osd) = play.connected();
    assert_eq!((osd, play.sent(at_copy)), (copy, vec![(read, 0)]));
    play.reply(at_copy, read, 0, -11);
    assert_eq!(play.sent(session), [(read, 1)]);
    play.reply(session, read, 1, 0);
    assert_eq!(play.done(), [(read, Ok(0))]);
}

#[test]
fn a_reset_session_is_opened_again_and_unanswered_requests_keep_their_identity() {
    let mut play = Play::new();
    let (a, b) = (play.read(), play.read());
    let (first, _) = play.connected();
    play.sent(first);
    play.reply(first, a, 0, 0);
    play.closed(first);
    assert_eq!(play.wanted_maps(), [play.map.epoch + 1]);
    let (second, _) = play.connected();
    assert_eq!(play.sent(second), [(b, 1)]);
    // What the old session still brings is not heard.
    play.reply(first, b, 0, 0);
    play.reply(second, b, 0, 0);
    assert_eq!(play.done(), [(a, Ok(0))]);
    play.reply(second, b, 1, 0);
    assert_eq!(play.done(), [(b, Ok(0))]);
}

#[test]
fn attempts_to_connect_are_spaced_out_and_end_with_the_requests() {
    let mut play = Play::new();
    let tid = play.read();
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let (session, _) = play.connecting().unwrap();
        play.closed(session);
        let next = play.objecter.sessions.values().find_map(|s| s.retry_at());
        let pause = next.map_or(Duration::ZERO, |at| at - play.now);
        pauses.push(pause.as_millis());
        play.pass(pause);
    }
    assert_eq!(pauses, [0, 200, 400, 800]);
    let (session, _) = play.connecting().unwrap();
    play.objecter.cancel(tid);
    play.closed(session);
    play.pass(secs(60));
    assert_eq!(play.connecting(), None);
    assert_eq!(play.done(), []);
}

#[test]
fn operations_go_out_again_when_maps_were_skipped() {
    let mut play = Play::new();
    let tid = play.read();
    let (session, _) = play.connected();
    assert_eq!(play.sent(session), [(tid, 0)]);
    play.publish(|_| {});
    assert_eq!(play.sent(session), [], "nothing changed for it");
    play.publish(|map| map.epoch += 1);
    assert_eq!(play.sent(session), [(tid, 1)], "its PG may have been elsewhere");
    play.reply(session, tid, 1, 0);
    assert_eq!(play.done(), [(tid, Ok(0))]);
}

#[test]
fn operations_go_out_again_when_pgs_are_split_or_merged() {
    let mut play = Play::new();
    let tid = play.read();
    let (session, osd) = play.connected();
    assert_eq!(play.sent(session), [(tid, 0)]);
    // One OSD has all PGs, and sooner or later the object stays in its PG.
    let mut attempt = 0;
    for pg_num in [2, 3, 4, 3, 2, 1] {
        play.publish(|map| {
            map.pools.get_mut(&POOL).unwrap().pg_num = pg_num;
            for (id, other) in map.osds.iter_mut().enumerate() {
                other.weight = if id as i32 == osd { spirula_maps::WEIGHT_IN } else { 0 };
            }
        });
        attempt += 1;
        assert_eq!(play.sent(session), [(tid, attempt)], "with {pg_num} PGs");
    }
}

#[test]
fn a_new_primary_gets_what_the_old_one_did_not_answer() {
    let mut play = Play::new();
    let tid = play.read();
    let (old_session, old) = play.connected();
    play.sent(old_session);
    play.publish(|map| {
        map.osds[old as usize].state = osd_state::EXISTS;
        map.osds[old as usize].weight = 0;
    });
    let close = |a: &Action| matches!(a, Action::Close { session } if *session == old_session);
    assert!(play.actions.iter().any(close));
    let (new_session, new) = play.connected();
    assert_ne!(new, old);
    assert_eq!(play.sent(new_session), [(tid, 1)]);
    play.reply(old_session, tid, 0, EIO);
    play.reply(new_session, tid, 1, 0);
    assert_eq!(play.done(), [(tid, Ok(0))]);
}

/// The other end may be gone without a word: only who sends something learns of it.
#[test]
fn sessions_that_owe_an_answer_are_pinged() {
    let mut play = Play::new();
    let pings = |play: &mut Play, on: SessionId| {
        let before = play.actions.len();
        play.actions.retain(|action| match action {
            Action::Send { session, message } if message.header.type_ == types::PING => {
                assert_eq!(*session, on);
                false
            }
            _ => true,
        });
        before - play.actions.len()
    };
    let tid = play.read();
    let (session, _) = play.connected();
    assert_eq!(play.sent(session), [(tid, 0)]);
    play.pass(TICK);
    assert_eq!(pings(&mut play, session), 0);
    play.pass(TICK);
    assert_eq!(pings(&mut play, session), 1);
    play.reply(session, tid, 0, 0);
    play.pass(TICK);
    assert_eq!(pings(&mut play, session), 0);
}

#[test]
fn without_a_primary_requests_wait_for_maps() {
    let mut play = Play::new();
    play.publish(|map| map.osds.iter_mut().for_each(|o| o.state = osd_state::EXISTS));
    let tid = play.read();
    assert_eq!(play.wanted_maps(), [play.map.epoch + 1]);
    assert_eq!(play.connecting(), None);
    play.pass(TICK);
    assert_eq!(play.wanted_maps(), [play.map.epoch + 1]);
    let up = osd_state::EXISTS | osd_state::UP;
    play.publish(|map| map.osds.iter_mut().for_each(|o| o.state = up));
    let (session, _) = play.connected();
    assert_eq!(play.sent(session), [(tid, 0)]);
}

#[test]
fn a_paused_or_full_cluster_holds_requests_back() {
    let mut play = Play::new();
    play.publish(|map| map.flags |= map_flag::PAUSEWR | map_flag::FULL);
    let read = play.read();
    let write = play.submit(flag::WRITE, None);
    let (session, _) = play.connected();
    assert_eq!(play.sent(session), [(read, 0)]);
    play.publish(|map| map.flags &= !map_flag::PAUSEWR);
    assert_eq!(play.sent(session), []);
    let tried = play.submit(flag::WRITE | flag::FULL_TRY, None);
    assert_eq!(play.sent(session), [(tried, 0)]);
    play.publish(|map| map.flags &= !map_flag::FULL);
    assert_eq!(play.sent(session), [(write, 0)]);
}

#[test]
fn an_unknown_pool_fails_only_by_the_newest_map() {
    let mut play = Play::new();
    play.publish(|map| {
        map.pools.clear();
    });
    let (a, b) = (play.read(), play.read());
    assert!(play.asked_newest());
    assert!(!play.asked_newest());
    // There is a newer map; it has the pool.
    let newest = play.map.epoch + 1;
    play.objecter.handle_newest(play.now, newest);
    play.collect();
    assert_eq!(play.done(), []);
    play.publish(|map| {
        map.pools.insert(POOL, PgPool::replicated(1, 1, 1, 0));
    });
    let (session, _) = play.connected();
    assert_eq!(play.sent(session), [(a, 0), (b, 0)]);
    play.publish(|map| map.pools.clear());
    assert_eq!(play.done(), [(a, Err(Failure::NoPool)), (b, Err(Failure::NoPool))]);
}

#[test]
fn deadlines_end_requests_wherever_they_are() {
    let mut play = Play::new();
    let tid = play.submit(flag::READ, Some(secs(3)));
    let other = play.read();
    let (session, _) = play.connected();
    play.sent(session);
    assert_eq!(play.objecter.poll_timeout(), Some(secs(3)));
    play.pass(secs(2));
    assert_eq!(play.done(), [(tid, Err(Failure::TimedOut))]);
    play.reply(session, tid, 0, 0);
    play.reply(session, other, 0, 0);
    assert_eq!(play.done(), [(other, Ok(0))]);
}

#[test]
fn backoffs_are_acknowledged_and_honoured() {
    let mut play = Play::new();
    let before = play.read();
    let (session, osd) = play.connected();
    play.sent(session);
    let pgid = SpgId::whole(PgId::new(POOL, 0));
    let mut backoff = OsdBackoff {
        pgid,
        map_epoch: play.map.epoch,
        op: backoff_op::BLOCK,
        id: 9,
        begin: HObject::min(),
        end: HObject::max(),
    };
    let raw = backoff.to_raw(0, F);
    play.objecter.handle_message(play.now, session, &raw);
    play.collect();
    let acks = play.actions.iter().filter_map(|a| match a {
        Action::Send { message, .. } => OsdBackoff::from_raw(message).ok(),
        _ => None,
    });
    let acks: Vec<_> = acks.map(|ack| (ack.op, ack.id)).collect();
    assert_eq!(acks, [(backoff_op::ACK_BLOCK, 9)]);
    let held = play.read();
    assert_eq!(play.sent(session), []);
    backoff.op = backoff_op::UNBLOCK;
    let raw = backoff.to_raw(0, F);
    play.objecter.handle_message(play.now, session, &raw);
    play.collect();
    assert_eq!(play.sent(session), [(before, 1), (held, 0)]);
    assert_eq!(osd, play.primary());
}

#[test]
fn a_slow_answer_makes_us_ask_for_maps() {
    let mut play = Play::new();
    play.read();
    let (session, _) = play.connected();
    play.sent(session);
    play.pass(TICK);
    assert!(play.wanted_maps().is_empty());
    play.pass(TICK);
    assert_eq!(play.wanted_maps(), [play.map.epoch + 1]);
}

#[test]
fn maps_follow_one_another() {
    let mut play = Play::new();
    let fsid = play.map.fsid;
    let inc = |epoch| {
        let mut inc = Incremental::new(fsid, epoch, UTime::default());
        inc.new_flags = Some(map_flag::NOOUT);
        let bytes: Bytes = inc.to_bytes(F).into();
        (epoch, bytes)
    };
    let from = play.map.epoch;
    let mut message = OsdMapMsg {
        fsid,
        incremental_maps: [inc(from + 1), inc(from + 2)].into(),
        ..OsdMapMsg::default()
    };
    play.objecter.handle_map(play.now, &message);
    assert_eq!(play.objecter.epoch(), from + 2);
    // One is missing in between.
    message.incremental_maps = [inc(from + 4)].into();
    play.objecter.handle_map(play.now, &message);
    play.collect();
    assert_eq!(play.objecter.epoch(), from + 2);
    assert_eq!(play.wanted_maps(), [from + 3]);
    // A broken one is made good for by a whole map.
    message.incremental_maps = [(from + 3, Bytes::from_static(b"junk"))].into();
    play.objecter.handle_map(play.now, &message);
    play.collect();
    assert_eq!(play.wanted_maps(), [0]);
    let other =
        OsdMapMsg { fsid: Uuid([9; 16]), ..whole(&OsdMap { epoch: from + 9, ..play.map.clone() }) };
    play.objecter.handle_map(play.now, &other);
    assert_eq!(play.objecter.epoch(), from + 2);
}

#[test]
fn commands_find_their_osd() {
    let mut play = Play::new();
    let work = |osd| Work::Command {
        target: CommandTarget::Osd(osd),
        cmd: "{}".to_owned(),
        inbl: Bytes::new(),
    };
    let tid = play.objecter.submit(play.now, work(2), None);
    let absent = play.objecter.submit(play.now, work(7), None);
    play.collect();
    assert_eq!(play.done(), [(absent, Err(Failure::NoOsd))]);
    let (session, osd) = play.connected();
    assert_eq!(osd, 2);
    let sent = play.actions.iter().any(|a| match a {
        Action::Send { message, .. } => Command::from_raw(message).is_ok(),
        _ => false,
    });
    assert!(sent);
    let reply = CommandReply { r: EIO, ..CommandReply::default() };
    let raw = reply.to_raw(tid, F);
    play.objecter.handle_message(play.now, session, &raw);
    play.collect();
    assert_eq!(play.done(), [(tid, Ok(EIO))]);
}

#[test]
fn junk_closes_the_session() {
    let mut play = Play::new();
    let tid = play.read();
    let (session, _) = play.connected();
    play.sent(session);
    let mut raw = OsdOpReply::default().to_raw(tid, F);
    raw.payload.front = Bytes::from_static(b"\xff\xff");
    play.objecter.handle_message(play.now, session, &raw);
    play.collect();
    let close = |a: &Action| matches!(a, Action::Close { session: s } if *s == session);
    assert!(play.actions.iter().any(close));
    let (second, _) = play.connected();
    assert_eq!(play.sent(second), [(tid, 1)]);
}
