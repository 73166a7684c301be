//! A leader that is cut off: nobody hears from it what is not so any more.

use std::time::Duration;

use crate::harness::Mons;

/// Long enough for the others to elect a leader, and for that to step down and come back.
const CUT_FOR: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug)]
enum Cut {
    Both,
    /// The old leader hears the others.
    Out,
    /// The others hear the old leader.
    In,
    /// It is cut off from one of the others only.
    One,
}

/// A client at the old leader and one at another monitor, which changes the map as fast as it can.
struct Watch {
    old: usize,
    reader: u64,
    other: usize,
    writer: u64,
    tid: u64,
    /// The change under way.
    open: Option<u64>,
    /// The newest epoch that was acknowledged to anybody.
    acked: u32,
    /// Answers of the old leader, and changes, since the cut.
    answers: u64,
    changes: u64,
}

impl Watch {
    fn look(&mut self, mons: &mut Mons) {
        self.tid += 1;
        mons.send(self.old, self.reader, self.tid, r#"{"prefix": "osd dump", "format": "json"}"#);
        if let Some(ack) = mons.answer(self.old, self.reader, self.tid) {
            let text = String::from_utf8_lossy(&ack.outbl).into_owned();
            let rest = text.split("\"epoch\":").nth(1).expect("a dump has an epoch");
            let epoch: u32 = rest.split(',').next().unwrap().trim().parse().unwrap();
            assert!(epoch >= self.acked, "epoch {epoch} after {} was committed", self.acked);
            self.answers += 1;
        }
        mons.nodes[self.old].sent.clear();
    }

    fn change(&mut self, mons: &mut Mons) {
        if let Some(tid) = self.open {
            let Some(ack) = mons.answer(self.other, self.writer, tid) else { return };
            assert_eq!(ack.r, 0);
            mons.nodes[self.other].sent.clear();
            self.acked = mons.service(self.other).state().osd.epoch();
            self.changes += 1;
        }
        self.tid += 1;
        let verb = if self.changes.is_multiple_of(2) { "set" } else { "unset" };
        let text = format!(r#"{{"prefix": "osd {verb}", "key": "noout"}}"#);
        self.open = Some(self.tid);
        mons.send(self.other, self.writer, self.tid, &text);
    }
}

#[test]
fn a_leader_that_is_cut_off_tells_nothing_stale() {
    for cut in [Cut::Both, Cut::Out, Cut::In, Cut::One] {
        let mut mons = Mons::new(3);
        let old = mons.leader();
        let other = (old + 1) % 3;
        let (reader, writer) = (mons.admin(old), mons.admin(other));
        let (tid, open, acked, answers, changes) = (0, None, 0, 0, 0);
        let mut watch = Watch { old, reader, other, writer, tid, open, acked, answers, changes };
        let watched = |mons: &mut Mons, watch: &mut Watch, time: Duration| {
            let end = mons.mono + time;
            while mons.mono < end {
                mons.step();
                watch.change(mons);
                watch.look(mons);
            }
        };
        watched(&mut mons, &mut watch, Duration::from_secs(1));
        assert!(watch.answers > 50 && watch.changes > 10, "{} {}", watch.answers, watch.changes);
        (watch.answers, watch.changes) = (0, 0);
        for n in (0..3).filter(|n| *n != old) {
            match cut {
                Cut::Both => mons.isolate(old),
                Cut::Out => mons.cut(old, n),
                Cut::In => mons.cut(n, old),
                Cut::One if n != other => mons.cut(old, n),
                Cut::One => {}
            }
        }
        watched(&mut mons, &mut watch, CUT_FOR);
        assert!(watch.answers > 10, "{cut:?}: the lease was not used");
        assert!(watch.changes > 10, "{cut:?}: no new leader");
        mons.heal();
        watched(&mut mons, &mut watch, CUT_FOR);
    }
}
