//! Several monitors: what they owe each other when sessions break and processes end.

mod harness;

use std::time::Duration;

use harness::{Mons, Trap, sessions_of, tag};

const SECOND: Duration = Duration::from_secs(1);

/// A monitor that follows.
fn follower(mons: &mut Mons) -> (usize, usize) {
    let leader = mons.leader();
    (leader, (leader + 1) % mons.nodes.len())
}

fn set_key(key: &str, value: &str) -> String {
    format!(r#"{{"prefix": "config-key set", "key": "{key}", "val": "{value}"}}"#)
}

/// Only what the leader sends is lost; the way to it never broke.
#[test]
fn an_answer_that_is_lost_on_its_way_back_comes_again() {
    let mut mons = Mons::new(3);
    let (leader, other) = follower(&mut mons);
    let client = mons.admin(other);
    mons.trap = Some(Trap { from: leader, to: other, tag: tag::ROUTE });
    mons.send(other, client, 9, &set_key("k", "v"));
    assert!(mons.run_until(SECOND, |m| m.trap.is_none()), "no answer was on its way");
    assert!(mons.run_until(SECOND * 5, |m| m.answer(other, client, 9).is_some()), "it was lost");
    assert_eq!(mons.answer(other, client, 9).unwrap().r, 0);
}

/// The sessions of a monitor that crashed are gone with it, whether its end was seen or only that it
/// began anew.
#[test]
fn the_sessions_of_a_crashed_monitor_are_gone() {
    for told in [true, false] {
        let mut mons = Mons::new(3);
        let (leader, other) = follower(&mut mons);
        let client = mons.open(other, "client.x", "allow *");
        let osd = mons.open(other, "osd.7", "allow profile osd");
        mons.send(other, client, 1, r#"{"prefix": "fsid"}"#);
        assert!(mons.run_until(SECOND * 5, |m| m.answer(other, client, 1).is_some()));
        let known =
            |m: &Mons| ["client.x", "osd.7"].map(|name| sessions_of(m.service(leader), name));
        assert!(mons.run_until(SECOND * 5, |m| known(m) == [1, 1]));
        mons.crash(other, told);
        if !told {
            mons.run_for(SECOND / 5);
            mons.start(other);
        }
        assert!(mons.run_until(SECOND * 2, |m| known(m) == [0, 0]), "told {told}");
        assert!(mons.service(leader).live().osd_gone.contains_key(&7));
        let _ = osd;
    }
}

/// A session that only broke is opened again, with what was asked on it.
#[test]
fn the_sessions_of_a_monitor_that_reconnects_come_back() {
    let mut mons = Mons::new(3);
    let (leader, other) = follower(&mut mons);
    mons.open(other, "osd.7", "allow profile osd");
    let known = |m: &Mons| sessions_of(m.service(leader), "osd.7");
    assert!(mons.run_until(SECOND * 5, |m| known(m) == 1));
    for (from, to) in [(other, leader), (leader, other)] {
        mons.break_link(from, to);
        mons.run_for(SECOND / 10);
        assert!(mons.run_until(SECOND * 5, |m| known(m) == 1));
        mons.run_for(SECOND * 3);
        assert_eq!(known(&mons), 1);
        assert!(!mons.service(leader).live().osd_gone.contains_key(&7));
    }
}

