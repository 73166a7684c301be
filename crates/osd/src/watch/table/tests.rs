//! Tables: events on watches and notifies, and what comes of them.

use spirula_wire::Decode;
use spirula_wire::types::EntityName;

use super::*;

/// What came of an event: messages as `link: kind cookie`, and watches to bury.
#[derive(Debug, Default)]
struct World {
    table: WatchTable,
    now: Duration,
}

fn place(name: &'static str) -> Place {
    Place { pgid: PgId::new(1, 2), object: Bytes::from_static(name.as_bytes()) }
}

/// A watch of client `4000 + cookie / 10`.
fn key(cookie: u64) -> WatchKey {
    WatchKey { cookie, entity: EntityName::client(4000 + cookie as i64 / 10) }
}

fn info(timeout_seconds: u32) -> WatchInfo {
    let addr = "10.0.0.1:0/7".parse().unwrap();
    WatchInfo { timeout_seconds, addr }
}

fn message_text(m: &WatchNotify) -> String {
    match m.opcode {
        watch_event::NOTIFY => {
            let payload = String::from_utf8_lossy(&m.payload);
            format!(
                "notify {} id {} v{} of {} {payload:?}",
                m.cookie, m.notify_id, m.ver, m.notifier_gid
            )
        }
        watch_event::NOTIFY_COMPLETE => {
            let mut r = spirula_wire::Reader::new(&m.acks);
            let acks = BTreeMap::<(u64, u64), Bytes>::decode(&mut r).unwrap();
            let missed = Vec::<(u64, u64)>::decode(&mut r).unwrap();
            assert!(r.is_empty());
            let acks: Vec<_> =
                acks.iter().map(|((gid, c), b)| format!("{gid}/{c}={}", b.len())).collect();
            let missed: Vec<_> = missed.iter().map(|(gid, c)| format!("{gid}/{c}")).collect();
            format!(
                "complete {} id {} rc {} acks [{}] missed [{}]",
                m.cookie,
                m.notify_id,
                m.return_code,
                acks.join(" "),
                missed.join(" ")
            )
        }
        _ => format!("disconnect {}", m.cookie),
    }
}

impl World {
    /// Lets `event` happen; what came of it.
    fn after(&mut self, event: impl FnOnce(&mut WatchTable, Duration)) -> Vec<String> {
        event(&mut self.table, self.now);
        let text = |action: Action| match action {
            Action::Send { link, message } => format!("{link}: {}", message_text(&message)),
            Action::Bury { key, .. } => format!("bury {}", key.cookie),
        };
        self.table.take_actions().into_iter().map(text).collect()
    }

    fn connect(&mut self, cookie: u64, timeout: u32, link: LinkId, pings: bool) -> Vec<String> {
        let watch = (key(cookie), info(timeout));
        self.after(|t, now| t.connect(now, &place("o"), watch, link, pings))
    }

    fn notify(&mut self, id: u64, timeout_seconds: u32) -> Vec<String> {
        let payload = Bytes::from_static(b"hi");
        let notice =
            Notice { id, link: 99, gid: 5, cookie: 77, version: 3, timeout_seconds, payload };
        self.after(|t, now| t.notify(now, &place("o"), notice))
    }

    fn ack(&mut self, client: i64, id: u64, cookie: Option<u64>) -> Vec<String> {
        let (entity, reply) = (EntityName::client(client), Bytes::from_static(b"ok"));
        self.after(|t, _| t.acknowledge(&place("o"), entity, id, cookie, &reply))
    }

    fn wait(&mut self, seconds: u64) -> Vec<String> {
        self.now += Duration::from_secs(seconds);
        self.after(|t, now| t.expire(now))
    }

    fn remove(&mut self, cookie: u64, tell: bool) -> Vec<String> {
        self.after(|t, _| t.remove(&place("o"), &key(cookie), tell))
    }

    /// Nothing is left behind: every timer and session entry belongs to something.
    fn is_empty(&self) -> bool {
        let t = &self.table;
        t.objects.is_empty() && t.notifies.is_empty() && t.links.is_empty() && t.timers.is_empty()
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_pinging_watch_lives_by_its_pings_alone() {
    let mut w = World::default();
    assert_eq!(w.connect(10, 30, 1, true), NOTHING);
    for _ in 0..5 {
        assert_eq!(w.wait(29), NOTHING);
        w.after(|t, now| t.ping(now, &place("o"), &key(10)));
    }
    // The end of its session neither prolongs nor shortens its life.
    assert_eq!(w.wait(20), NOTHING);
    assert_eq!(w.after(|t, now| t.disconnected(now, 1)), NOTHING);
    assert_eq!(w.table.connected(&place("o")), []);
    // A ping over another session counts only when it has reconnected.
    w.after(|t, now| t.ping(now, &place("o"), &key(10)));
    assert_eq!(w.wait(10), ["bury 10"]);
    assert!(w.table.is_dead(&place("o"), &key(10)));
    assert_eq!(w.remove(10, true), NOTHING);
    assert!(w.is_empty());
}

#[test]
fn a_legacy_watch_lives_by_its_session() {
    let mut w = World::default();
    w.connect(10, 30, 1, false);
    assert_eq!(w.wait(3600), NOTHING);
    w.after(|t, now| t.disconnected(now, 1));
    assert_eq!(w.wait(29), NOTHING);
    w.connect(10, 30, 2, false);
    assert_eq!(w.wait(3600), NOTHING);
    // The old session may end late; the watch is on another one by now.
    w.after(|t, now| t.disconnected(now, 1));
    assert_eq!(w.wait(3600), NOTHING);
    w.after(|t, now| t.disconnected(now, 2));
    assert_eq!(w.wait(30), ["bury 10"]);
}

#[test]
fn a_dead_watch_may_come_back_until_it_is_buried() {
    let mut w = World::default();
    w.connect(10, 5, 1, true);
    assert_eq!(w.wait(5), ["bury 10"]);
    w.connect(10, 5, 2, true);
    assert!(!w.table.is_dead(&place("o"), &key(10)));
    assert_eq!(w.wait(4), NOTHING);
    assert_eq!(w.wait(1), ["bury 10"]);
    // The store may be full.
    w.after(|t, now| t.keep(now, &place("o"), &key(10)));
    assert_eq!(w.wait(4), NOTHING);
    assert_eq!(w.wait(1), ["bury 10"]);
    assert_eq!(w.remove(10, true), ["2: disconnect 10"]);
    assert!(w.is_empty());
}

#[test]
fn watches_of_an_object_are_met_once() {
    let mut w = World::default();
    let watchers: Watchers = [(key(10), info(7)), (key(20), info(9))].into();
    w.after(|t, now| t.meet(now, &place("o"), &watchers));
    w.wait(6);
    w.after(|t, now| t.meet(now, &place("o"), &watchers));
    assert_eq!(w.wait(1), ["bury 10"]);
    w.connect(20, 9, 1, true);
    assert_eq!(w.wait(8), NOTHING);
    assert_eq!(w.wait(1), ["bury 20"]);
    w.after(|t, now| t.meet(now, &place("p"), &Watchers::new()));
    assert!(!w.table.knows(&place("p")));
}

#[test]
fn a_notify_ends_with_its_last_answer() {
    let mut w = World::default();
    assert_eq!(w.notify(1, 30), ["99: complete 77 id 1 rc 0 acks [] missed []"]);
    w.connect(10, 30, 1, true);
    w.connect(20, 30, 2, true);
    w.connect(21, 30, 2, true);
    let told = [
        "1: notify 10 id 2 v3 of 5 \"hi\"",
        "2: notify 20 id 2 v3 of 5 \"hi\"",
        "2: notify 21 id 2 v3 of 5 \"hi\"",
    ];
    assert_eq!(w.notify(2, 30), told);
    assert_eq!(w.ack(4001, 2, Some(99)), NOTHING);
    assert_eq!(w.ack(4001, 2, Some(10)), NOTHING);
    assert_eq!(w.ack(4001, 2, Some(10)), NOTHING);
    // Without a cookie: all watches of that client.
    let acks = "99: complete 77 id 2 rc 0 acks [4001/10=2 4002/20=2 4002/21=2] missed []";
    assert_eq!(w.ack(4002, 2, None), [acks]);
    assert_eq!(w.ack(4002, 2, None), NOTHING);
    for cookie in [10, 20, 21] {
        w.remove(cookie, false);
    }
    assert!(w.is_empty());
}

#[test]
fn a_notify_times_out_and_names_who_missed_it() {
    let mut w = World::default();
    w.connect(10, 30, 1, true);
    w.connect(20, 30, 2, true);
    w.notify(1, 5);
    w.ack(4001, 1, Some(10));
    let complete = "99: complete 77 id 1 rc -110 acks [4001/10=2] missed [4002/20]";
    assert_eq!(w.wait(5), [complete]);
    assert_eq!(w.ack(4002, 1, Some(20)), NOTHING);
}

#[test]
fn a_watch_that_goes_holds_up_no_notify() {
    let mut w = World::default();
    w.connect(10, 30, 1, true);
    w.connect(20, 2, 2, true);
    w.notify(1, 30);
    assert_eq!(w.ack(4001, 1, Some(10)), NOTHING);
    assert_eq!(w.wait(2), ["bury 20"]);
    let end = ["2: disconnect 20", "99: complete 77 id 1 rc 0 acks [4001/10=2] missed []"];
    assert_eq!(w.remove(20, true), end);
}

#[test]
fn an_unconnected_watch_is_told_when_it_comes_back() {
    let mut w = World::default();
    w.after(|t, now| t.meet(now, &place("o"), &[(key(10), info(30))].into()));
    assert_eq!(w.notify(1, 10), NOTHING);
    assert_eq!(w.connect(10, 30, 4, true), ["4: notify 10 id 1 v3 of 5 \"hi\""]);
    // On the session it has already nothing is repeated.
    assert_eq!(w.connect(10, 30, 4, true), NOTHING);
    w.after(|t, now| t.disconnected(now, 4));
    assert_eq!(w.connect(10, 30, 5, true), ["5: notify 10 id 1 v3 of 5 \"hi\""]);
    let end = ["99: complete 77 id 1 rc 0 acks [4001/10=2] missed []"];
    assert_eq!(w.ack(4001, 1, Some(10)), end);
}

#[test]
fn nobody_waits_for_a_watch_that_is_overdue() {
    let mut w = World::default();
    w.connect(10, 5, 1, true);
    // Its time is over, and the timer is late.
    w.now += Duration::from_secs(6);
    assert_eq!(w.notify(1, 30), ["99: complete 77 id 1 rc 0 acks [] missed []"]);
    assert_eq!(w.wait(0), ["bury 10"]);
    assert_eq!(w.remove(10, true), NOTHING);
    assert!(w.is_empty());
}

#[test]
fn blocklisted_watches_die_at_once() {
    let mut w = World::default();
    w.connect(10, 30, 1, true);
    assert_eq!(w.after(|t, _| t.expel(|addr| addr.nonce == 8)), NOTHING);
    assert_eq!(w.after(|t, _| t.expel(|addr| addr.nonce == 7)), ["bury 10"]);
    // The same map may come again before it is buried.
    assert_eq!(w.after(|t, _| t.expel(|addr| addr.nonce == 7)), NOTHING);
    assert_eq!(w.remove(10, true), ["1: disconnect 10"]);
    assert!(w.is_empty());
}

#[test]
fn a_pg_that_leaves_takes_everything_along_silently() {
    let mut w = World::default();
    w.connect(10, 30, 1, true);
    w.connect(20, 30, 2, false);
    w.notify(1, 30);
    assert_eq!(w.after(|t, _| t.discard(PgId::new(1, 3))), NOTHING);
    assert!(!w.is_empty());
    assert_eq!(w.after(|t, _| t.discard(PgId::new(1, 2))), NOTHING);
    assert!(w.is_empty());
}
