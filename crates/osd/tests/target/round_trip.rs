//! A target and a client in a simulated world: requests over the messenger, onto a simulated disk,
//! through restarts and power loss. The map is put in by hand instead of by a monitor.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::support::{Cluster, F, MAP_DELAY, Op, text};
use spirula_maps::osd_state;
use spirula_wire::Features;
use spirula_wire::features::RADOS_BACKOFF;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd::backoff_op::{BLOCK, UNBLOCK};
use spirula_wire::types::EVersion;
use spirula_xstream::sleep;

const ENOENT: i32 = -2;

#[test]
fn an_object_is_written_read_changed_and_removed() {
    let cluster = Cluster::start(1);
    cluster.client(async |c| {
        let reply = c.op("o1", &[Op::write_full("hello")]).await;
        assert_eq!((reply.result, reply.user_version), (0, 1));
        assert_eq!(reply.replay_version, EVersion::new(1, 1));
        let reply = c.op("o1", &[Op::read(0, 100), Op::stat()]).await;
        assert_eq!((reply.result, text(&reply, 0)), (0, "hello".to_owned()));
        assert_eq!((reply.replay_version, reply.user_version), (EVersion::default(), 1));
        let big = "x".repeat(300_000);
        assert_eq!(c.op("o1", &[Op::write(5, &big)]).await.result, 0);
        let reply = c.op("o1", &[Op::read(0, 0)]).await;
        assert_eq!(text(&reply, 0), format!("hello{big}"));
        assert_eq!(c.op("o1", &[Op::set_xattr("a", "1")]).await.result, 0);
        assert_eq!(text(&c.op("o1", &[Op::get_xattr("a")]).await, 0), "1");
        assert_eq!(c.op("o1", &[Op::set_omap(&[("k", "v"), ("l", "w")])]).await.result, 0);
        let listed = c.op("o1", &[Op::omap_keys("", 10)]).await;
        assert_eq!(listed.ops[0].outdata.concat().len(), 4 + 5 + 5 + 1);
        assert_eq!(c.op("o1", &[Op::plain(OpCode::DELETE)]).await.result, 0);
        assert_eq!(c.op("o1", &[Op::read(0, 1)]).await.result, ENOENT);
        let reply = c.op("o1", &[Op::plain(OpCode::DELETE)]).await;
        assert_eq!((reply.result, reply.user_version), (ENOENT, 5));
        let reply = c.op("o1", &[Op::write_full("again")]).await;
        assert_eq!(reply.result, 0);
        assert!(reply.user_version > 5);
        let reply = c.op("o1", &[Op::omap_keys("", 10)]).await;
        assert_eq!(reply.ops[0].outdata.concat(), [0; 5], "nothing of the old object is left");
        for (class, result) in [("otp", -95), ("nonsense", -1)] {
            let args =
                OpArgs::Cls { class_len: class.len() as u8, method_len: 1, argc: 0, indata_len: 0 };
            let call = Op::with(OpCode::CALL, args, &format!("{class}m"));
            assert_eq!(c.op("o1", &[call]).await.result, result);
        }
    });
}

/// The messenger's checksums are those of the input; what is stored may be made of it, and as long.
#[test]
fn data_that_is_made_of_the_input_has_its_own_checksums() {
    let cluster = Cluster::start(1);
    cluster.client(async |c| {
        let args = OpArgs::WriteSame { offset: 22_880, length: 4096, data_length: 8 };
        let same = Op::with(OpCode::WRITESAME, args, "abcdefgh");
        assert_eq!(c.op("same", &[same]).await.result, 0);
        let reply = c.op("same", &[Op::read(22_880, 0)]).await;
        assert_eq!((reply.result, text(&reply, 0)), (0, "abcdefgh".repeat(512)));

        // What was sent before a truncation is written only as far as the object goes.
        assert_eq!(c.op("cut", &[Op::write_full(&"x".repeat(4000))]).await.result, 0);
        let args = OpArgs::Extent { offset: 3000, length: 0, truncate_size: 3000, truncate_seq: 2 };
        assert_eq!(c.op("cut", &[Op::with(OpCode::TRIMTRUNC, args, "")]).await.result, 0);
        let late = "y".repeat(3500);
        let args = OpArgs::Extent { offset: 0, length: 3500, truncate_size: 0, truncate_seq: 1 };
        assert_eq!(c.op("cut", &[Op::with(OpCode::WRITE, args, &late)]).await.result, 0);
        let reply = c.op("cut", &[Op::read(0, 0)]).await;
        assert_eq!((reply.result, text(&reply, 0)), (0, late[..3000].to_owned()));
    });
}

#[test]
fn a_listing_has_every_object_once_whatever_the_page() {
    let cluster = Cluster::start(2);
    cluster.client(async |c| {
        let mut names: Vec<String> = (0..60).map(|i| format!("object {i}")).collect();
        for name in &names {
            assert_eq!(c.op(name, &[Op::plain(OpCode::CREATE)]).await.result, 0);
        }
        names.sort();
        for page in [1, 7, 1000] {
            let mut listed = c.list(page).await;
            listed.sort();
            assert_eq!(listed, names, "pages of {page}");
        }
    });
}

#[test]
fn a_repeated_request_is_executed_once() {
    let cluster = Cluster::start(3);
    cluster.client(async |c| {
        c.op("o", &[Op::write_full("a")]).await;
        let first = c.op_as(77, "o", &[Op::append("b")]).await;
        for _ in 0..2 {
            let again = c.op_as(77, "o", &[Op::append("b")]).await;
            assert_eq!((again.result, again.replay_version), (0, first.replay_version));
        }
        let failed = c.op_as(78, "none", &[Op::plain(OpCode::DELETE)]).await;
        c.op("none", &[Op::write_full("now it is there")]).await;
        let again = c.op_as(78, "none", &[Op::plain(OpCode::DELETE)]).await;
        assert_eq!((failed.result, again.result), (ENOENT, ENOENT));
    });
    cluster.restart();
    cluster.client(async |c| {
        assert_eq!(c.op_as(77, "o", &[Op::append("b")]).await.result, 0);
        assert_eq!(text(&c.op("o", &[Op::read(0, 0)]).await, 0), "ab");
        assert_eq!(c.op_as(78, "none", &[Op::plain(OpCode::DELETE)]).await.result, ENOENT);
    });
}

#[test]
fn acknowledged_writes_survive_power_loss() {
    let cluster = Cluster::start(4);
    cluster.client(async |c| {
        for i in 0..50 {
            let data = format!("{i}").repeat(i * 97);
            assert_eq!(c.op(&format!("o{i}"), &[Op::write_full(&data)]).await.result, 0);
        }
    });
    cluster.power_loss();
    cluster.client(async |c| {
        for i in 0..50 {
            let reply = c.op(&format!("o{i}"), &[Op::read(0, 0)]).await;
            assert_eq!((reply.result, text(&reply, 0)), (0, format!("{i}").repeat(i * 97)));
        }
        assert_eq!(c.list(10).await.len(), 50);
    });
}

#[test]
fn requests_on_one_object_keep_their_order() {
    let cluster = Cluster::start(5);
    cluster.client(async |c| {
        for i in 0..40 {
            c.send("o", &[Op::append(&format!("{i},"))]);
        }
        c.send("o", &[Op::read(0, 0)]);
        c.send("o", &[Op::append("end")]);
        let mut replies = c.replies(42).await;
        replies.sort_by_key(|(tid, _)| *tid);
        let expected: String = (0..40).map(|i| format!("{i},")).collect();
        assert_eq!(text(&replies[40].1, 0), expected);
        let versions: Vec<u64> = replies.iter().map(|r| r.1.replay_version.version).collect();
        assert_eq!(versions[..40], (1..=40).collect::<Vec<_>>());
    });
}

#[test]
fn what_was_sent_before_the_target_was_the_primary_is_dropped() {
    let cluster = Cluster::start(6);
    cluster.change_map(Duration::from_secs(1), |map| map.osds[0].state &= !osd_state::UP);
    let back = cluster.change_map(Duration::from_secs(2), |map| map.epoch += 1);
    cluster.client(async move |c| {
        assert_eq!(c.op("o", &[Op::write_full("before")]).await.result, 0);
        sleep(Duration::from_secs(3)).await;
        // Late, by the client's old map.
        c.send("o", &[Op::write_full("late")]);
        c.send("o", &[Op::read(0, 0)]);
        c.learn(back);
        // The next answer is that to this.
        assert_eq!(text(&c.op("o", &[Op::read(0, 0)]).await, 0), "before");
    });
}

#[test]
fn a_failed_guard_changes_nothing() {
    let cluster = Cluster::start(6);
    cluster.client(async |c| {
        c.op("o", &[Op::write_full("one"), Op::set_xattr("v", "1")]).await;
        let reply = c.op("o", &[Op::cmp_xattr("v", "2"), Op::write_full("two")]).await;
        assert_eq!(reply.result, -125);
        let reply = c.op("o", &[Op::cmp_xattr("v", "1"), Op::write_full("two")]).await;
        assert_eq!(reply.result, 0);
        let guard = Op::with(OpCode::CMPEXT, OpArgs::extent(0, 3), "two");
        assert_eq!(c.op("o", &[guard, Op::append("!")]).await.result, 0);
        assert_eq!(text(&c.op("o", &[Op::read(0, 0)]).await, 0), "two!");
    });
}

#[test]
fn requests_to_a_pg_that_loads_are_all_answered_and_keep_their_order() {
    let blocked = Rc::new(Cell::new(0));
    for seed in 0..24 {
        let cluster = Cluster::start(seed);
        cluster.client(async |c| {
            assert_eq!(c.op("o", &[Op::write_full("")]).await.result, 0);
        });
        cluster.restart_with_late_map();
        // Peers without backoffs wait in the target instead.
        let backs_off = seed % 4 != 0;
        let features = if backs_off { F } else { Features(F.0 & !RADOS_BACKOFF) };
        let blocked = blocked.clone();
        cluster.client_with(features, async move |c| {
            // The map comes amid this.
            sleep(MAP_DELAY - Duration::from_millis(5)).await;
            let texts: Vec<String> = (1000..1200).map(|i| format!("{i},")).collect();
            for text in &texts {
                c.send("o", &[Op::append(text)]);
                sleep(Duration::from_micros(50)).await;
            }
            let replies = c.replies(texts.len()).await;
            assert!(replies.iter().all(|(_, reply)| reply.result == 0));
            let reply = c.op("o", &[Op::read(0, 0)]).await;
            assert_eq!(text(&reply, 0), texts.concat(), "seed {seed}");
            match &c.backoffs()[..] {
                // The PG was loaded before anybody asked for it.
                [] => {}
                [(BLOCK, first), (UNBLOCK, last)] if backs_off && first == last => {
                    blocked.set(blocked.get() + 1);
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        });
    }
    assert!(blocked.get() > 2, "hardly any backoff");
}

/// An interval ends, but the primary stays: clients do not send again by themselves what it leaves without
/// an answer.
#[test]
fn requests_in_flight_at_the_end_of_an_interval_are_all_answered_and_keep_their_order() {
    let blocked = Rc::new(Cell::new(0));
    for seed in 0..12 {
        let cluster = Cluster::start(seed);
        let change = Duration::from_millis(20) + Duration::from_micros(seed * 171);
        let larger = cluster.change_map(change, |map| {
            map.pools.values_mut().for_each(|pool| pool.size = 2);
        });
        let blocked = blocked.clone();
        cluster.client(async move |c| {
            let texts: Vec<String> = (1000..1500).map(|i| format!("{i},")).collect();
            for text in &texts {
                c.send("o", &[Op::append(text)]);
                sleep(Duration::from_micros(100)).await;
            }
            let replies = c.replies(texts.len()).await;
            assert!(replies.iter().all(|(_, reply)| reply.result == 0));
            c.learn(larger);
            let reply = c.op("o", &[Op::read(0, 0)]).await;
            assert_eq!(text(&reply, 0), texts.concat(), "seed {seed}");
            blocked.set(blocked.get() + c.backoffs().len() / 2);
        });
    }
    assert!(blocked.get() > 2, "hardly any request was in flight");
}
