//! Several monitors: what they owe each other when sessions break and processes end.

mod harness;
mod members;
mod reads;

use std::time::Duration;

use harness::{Mons, Trap, name_of, sessions_of, tag};
use spirula_mon::limits::COMPACT_EVERY;
use spirula_wire::Encode as _;

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

/// The number of a monitor, as the members' list of another says.
fn number_of(mons: &Mons, n: usize, name: &str) -> Vec<u64> {
    let members = &mons.service(n).state().members;
    members.iter().filter(|(_, m)| *m == name).map(|(id, _)| *id).collect()
}

/// The leader dies after the new store was let in, before anybody was told its name.
fn let_in_without_a_name() -> (Mons, usize, u64) {
    let mut mons = Mons::new(3);
    let (leader, lost) = follower(&mut mons);
    mons.crash(lost, true);
    let number = mons.blank(lost);
    mons.start(lost);
    let let_in = |m: &mut Mons| m.service(leader).voters().contains(&number);
    assert!(mons.run_until(SECOND * 10, let_in), "it was not let in");
    let votes = |m: &mut Mons| m.service(lost).voters() == m.service(leader).voters();
    assert!(mons.run_until(SECOND / 2, votes), "it does not know of it");
    assert!(number_of(&mons, leader, &name_of(lost)).is_empty(), "it is named already");
    mons.crash(leader, true);
    (mons, lost, number)
}

#[test]
fn a_monitor_that_joins_gets_its_name_from_the_next_leader() {
    let (mut mons, lost, number) = let_in_without_a_name();
    let leader = mons.leader();
    let named = |m: &mut Mons| number_of(m, leader, &name_of(lost)) == [number];
    assert!(mons.run_until(SECOND * 10, named), "it has no name");
}

#[test]
fn a_voter_that_nobody_knows_leaves() {
    let (mut mons, lost, stray) = let_in_without_a_name();
    let leader = (0..3).find(|n| mons.nodes[*n].service.is_none()).unwrap();
    mons.crash(lost, true);
    let number = mons.blank(lost);
    mons.start(leader);
    mons.start(lost);
    let other = 3 - leader - lost;
    let settled = |m: &mut Mons| {
        let voters = m.service(other).voters();
        voters.contains(&number) && !voters.contains(&stray) && voters.len() == 3
    };
    assert!(mons.run_until(SECOND * 30, settled), "{:?}", mons.service(other).voters());
    assert_eq!(number_of(&mons, other, &name_of(lost)), [number]);
}

fn view(term: u64, index: u64) -> Vec<u8> {
    let mut out = vec![tag::VIEW];
    let quorum: Vec<u64> = vec![1, 2, 3];
    term.encode(&mut out, harness::F);
    quorum.encode(&mut out, harness::F);
    0u64.encode(&mut out, harness::F);
    index.encode(&mut out, harness::F);
    out
}

/// What an earlier leadership said of how far it was does not let a follower answer.
#[test]
fn a_view_of_another_term_is_not_taken() {
    let mut mons = Mons::new(3);
    let (leader, other) = follower(&mut mons);
    let term = mons.service(leader).term();
    mons.isolate(other);
    mons.run_for(SECOND * 3);
    assert!(!mons.service(other).is_served(mons.now(other)));
    mons.mute = Some(tag::VIEW);
    mons.heal();
    mons.run_for(SECOND * 3);
    for wrong in [term - 1, term + 1] {
        mons.forge(leader, other, view(wrong, 0));
        assert!(!mons.service(other).is_served(mons.now(other)), "a view of term {wrong}");
    }
    mons.forge(leader, other, view(term, 0));
    assert!(mons.service(other).is_served(mons.now(other)));
}

/// A state of 20 MiB still gets to a monitor that has none.
#[test]
fn a_large_state_reaches_a_new_monitor() {
    let mut mons = Mons::new(3);
    let (leader, lost) = follower(&mut mons);
    mons.crash(lost, true);
    let value = "x".repeat(60_000);
    let client = mons.admin(leader);
    for n in 0..COMPACT_EVERY.max(350) {
        let value = if n < 350 { &value } else { "" };
        mons.send(leader, client, n, &set_key(&format!("k{n}"), value));
        assert!(mons.run_until(SECOND * 5, |m| m.answer(leader, client, n).is_some()));
    }
    let number = mons.blank(lost);
    mons.start(lost);
    let named = |m: &mut Mons| number_of(m, lost, &name_of(lost)) == [number];
    assert!(mons.run_until(SECOND * 30, named), "it did not come back");
    let states = [leader, lost].map(|n| mons.service(n).state().keys.len());
    assert_eq!(states[0], states[1]);
}
