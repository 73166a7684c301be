//! The simulated world: equal seeds make equal runs, and faults do what their model says.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spirula_xstream::sim::{NetConfig, SimHost, SimWorld};
use spirula_xstream::{
    AlignedBuf, Backend, Class, Config, File, OpenOptions, StartError, TcpListener, TcpStream, now,
    random_u64, run, sleep, spawn, timeout, wall_now, yield_now,
};

const PORT: u16 = 6800;

fn addr(host: &SimHost) -> SocketAddr {
    SocketAddr::new(host.ip(), PORT)
}

/// Echoes whatever comes, forever.
async fn serve(listen: SocketAddr) {
    let listener = TcpListener::bind(listen).expect("bind");
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        spawn(Class::Client, async move {
            let mut buf = BytesMut::new();
            loop {
                let (result, filled) = stream.recv(buf).await;
                buf = filled;
                if !matches!(result, Ok(1..)) {
                    return;
                }
                if stream.send(vec![buf.split().freeze()]).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn ask(stream: &TcpStream, data: &[u8]) -> io::Result<()> {
    stream.send(vec![Bytes::copy_from_slice(data)]).await?;
    let buf = AlignedBuf::with_capacity(data.len());
    let (result, buf) = stream.recv_exact(buf, 0..data.len()).await;
    result?;
    assert_eq!(&buf[..], data);
    Ok(())
}

async fn open(create: bool) -> File {
    let options = OpenOptions { direct: true, create, lock: true, ..Default::default() };
    File::open("/dev/disk", &options).expect("open")
}

fn block(byte: u8) -> Bytes {
    let mut buf = AlignedBuf::with_capacity(4096);
    buf.resize(4096, byte);
    buf.freeze()
}

/// A busy little cluster with faults; what it saw, in order, and the world's trace.
fn busy_world(seed: u64) -> (Vec<(Duration, u64)>, (u64, u64)) {
    let world = SimWorld::new(seed);
    world.set_net(NetConfig { loss_per_million: 10_000, ..NetConfig::default() });
    let server = world.host("server");
    server.disk("/dev/disk", 1 << 20);
    server.spawn(Class::Client, serve(addr(&server)));
    server.spawn(Class::Background, async {
        let file = open(false).await;
        loop {
            let offset = random_u64() % 200 * 4096;
            file.write_at(offset, vec![block(1)]).await.expect("write");
            file.datasync().await.expect("datasync");
        }
    });
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut clients = Vec::new();
    for name in ["a", "b", "c"] {
        let (seen, server) = (seen.clone(), addr(&server));
        let client = world.host(name);
        clients.push(client.spawn(Class::Client, async move {
            for _ in 0..20 {
                let Ok(stream) = TcpStream::connect(server).await else {
                    continue;
                };
                let answer = timeout(Duration::from_secs(1), ask(&stream, &[7; 10_000])).await;
                let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                seen.borrow_mut().push((now(), random_u64() ^ u64::from(answer.is_ok())));
            }
        }));
    }
    world.run_for(Duration::from_millis(5));
    server.power_loss();
    world.run_for(Duration::from_millis(5));
    server.spawn(Class::Client, serve(addr(&server)));
    assert!(
        world.run_until(Duration::from_secs(600), || { clients.iter().all(|c| c.is_finished()) })
    );
    let seen = seen.take();
    (seen, world.trace())
}

#[test]
fn equal_seeds_make_equal_runs() {
    for seed in 0..10 {
        let first = busy_world(seed);
        assert!(!first.0.is_empty());
        assert_eq!(first, busy_world(seed), "seed {seed}");
    }
    let traces: BTreeSet<_> = (0..10).map(|seed| busy_world(seed).1).collect();
    assert_eq!(traces.len(), 10, "different seeds make different runs");
}

#[test]
fn time_is_virtual() {
    let world = SimWorld::new(1);
    let host = world.host("a");
    let walls = host.block_on(async {
        let begin = wall_now();
        sleep(Duration::from_secs(86_400)).await;
        wall_now() - begin
    });
    assert!(walls.expect("run") >= Duration::from_secs(86_400));
    world.run_for(Duration::from_secs(5));
    assert!(world.now() >= Duration::from_secs(86_405));
}

#[test]
fn a_standstill_and_a_kill_are_reported() {
    let world = SimWorld::new(3);
    let host = world.host("a");
    let stalled = host.block_on(std::future::pending::<()>());
    assert!(matches!(stalled, Err(StartError::SimStalled { seed: 3 })));
    let own = host.clone();
    let killed = run(Config::new("a").backend(Backend::Sim(host.clone())), async move {
        own.kill();
        loop {
            yield_now().await;
        }
    });
    assert!(matches!(killed, Err(StartError::SimKilled { .. })));
    assert!(!host.is_running());
}

#[test]
fn order_of_tasks_depends_on_the_seed() {
    let orders: BTreeSet<Vec<u32>> = (0..20)
        .map(|seed| {
            let order = Rc::new(RefCell::new(Vec::new()));
            let seen = order.clone();
            let host = SimWorld::new(seed).host("a");
            let done = host.block_on(async move {
                let tasks: Vec<_> = (0..5)
                    .map(|i| {
                        let seen = seen.clone();
                        spawn(Class::Client, async move { seen.borrow_mut().push(i) })
                    })
                    .collect();
                for task in tasks {
                    task.await.expect("task");
                }
            });
            done.expect("run");
            order.take()
        })
        .collect();
    assert!(orders.len() > 5, "{orders:?}");
}

#[test]
fn a_partition_holds_bytes_until_it_heals() {
    let world = SimWorld::new(5);
    let (a, b) = (world.host("a"), world.host("b"));
    b.spawn(Class::Client, serve(addr(&b)));
    let target = addr(&b);
    let stream = a.block_on(async move { TcpStream::connect(target).await }).expect("run");
    let stream = stream.expect("connect");
    world.partition(&[&a], &[&b]);
    let answered = Rc::new(Cell::new(false));
    let seen = answered.clone();
    let asking = a.spawn(Class::Client, async move {
        let result = ask(&stream, b"are you there?").await;
        seen.set(true);
        result
    });
    world.run_for(Duration::from_secs(5));
    assert!(!answered.get());
    world.heal();
    world.run_for(Duration::from_secs(1));
    assert!(asking.try_take().expect("answered").expect("task").is_ok());
}

#[test]
fn tcp_gives_up_on_a_host_without_power_and_meets_resets_after_it() {
    let world = SimWorld::new(6);
    let (a, b) = (world.host("a"), world.host("b"));
    b.spawn(Class::Client, serve(addr(&b)));
    let target = addr(&b);
    let connect = move || async move { TcpStream::connect(target).await };
    let first = a.block_on(connect()).expect("run").expect("connect");
    let second = a.block_on(connect()).expect("run").expect("connect");
    b.power_loss();
    let silent = a.block_on(async move {
        let waiting = timeout(Duration::from_secs(30), ask(&second, b"hello")).await;
        (waiting.is_err(), second)
    });
    let (silent, second) = silent.expect("run");
    assert!(silent, "a host without power says nothing");
    let gone = a.block_on(async move { ask(&first, b"hello").await }).expect("run");
    assert_eq!(gone.expect_err("gave up").kind(), io::ErrorKind::TimedOut);
    b.spawn(Class::Client, serve(addr(&b)));
    let reset = a.block_on(async move { ask(&second, b"hello").await }).expect("run");
    assert!(reset.is_err(), "the new incarnation knows no such connection");
    let again = a.block_on(connect()).expect("run").expect("connect");
    a.block_on(async move { ask(&again, b"hello").await }).expect("run").expect("answer");
}

#[test]
fn a_killed_process_breaks_its_connections_but_keeps_its_cache() {
    for seed in 0..20 {
        let world = SimWorld::new(seed);
        let (a, b) = (world.host("a"), world.host("b"));
        let disk = b.disk("/dev/disk", 1 << 20);
        b.block_on(async { open(false).await.write_at(0, vec![block(3)]).await })
            .expect("run")
            .expect("write");
        b.spawn(Class::Client, serve(addr(&b)));
        let target = addr(&b);
        let stream = a.block_on(async move { TcpStream::connect(target).await }).expect("run");
        let stream = stream.expect("connect");
        b.kill();
        let broken = a.block_on(async move {
            let (result, _) = stream.recv(BytesMut::new()).await;
            !matches!(result, Ok(1..))
        });
        assert!(broken.expect("run"), "end of stream or reset");
        let refused = a.block_on(async move { TcpStream::connect(target).await }).expect("run");
        let error = refused.err().expect("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(disk.peek(0, 2), [3, 3], "the lock is free and the write is there");
        b.block_on(async { drop(open(false).await) }).expect("the lock died with its owner");
    }
}

#[test]
fn acknowledged_flushes_survive_power_loss_and_others_may_not() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..200 {
        let world = SimWorld::new(seed);
        let host = world.host("a");
        let disk = host.disk("/dev/disk", 4 << 20);
        let flushed = Rc::new(Cell::new(0u64));
        let written = Rc::new(Cell::new(0u64));
        let (flushed_by, written_by) = (flushed.clone(), written.clone());
        host.spawn(Class::Client, async move {
            let file = open(false).await;
            for number in 0u64.. {
                file.write_at(number * 4096, vec![block(number as u8 | 1)]).await.expect("write");
                written_by.set(number + 1);
                if number % 4 == 3 {
                    file.datasync().await.expect("datasync");
                    flushed_by.set(number + 1);
                }
            }
        });
        world.run_for(Duration::from_micros(500 + seed * 37));
        host.power_loss();
        for number in 0..flushed.get() {
            let wanted = [number as u8 | 1; 4096];
            assert_eq!(disk.peek(number * 4096, 4096), wanted, "seed {seed}");
        }
        for number in flushed.get()..written.get() {
            match disk.peek(number * 4096, 1) == [number as u8 | 1] {
                true => kept += 1,
                false => lost += 1,
            }
        }
    }
    assert!(lost > 20 && kept > 20, "lost {lost}, kept {kept}");
}

#[test]
fn disks_fail_and_rot_on_demand() {
    let world = SimWorld::new(9);
    let host = world.host("a");
    let disk = host.disk("/dev/disk", 1 << 20);
    let faulty = disk.clone();
    let result = host.block_on(async move {
        let file = open(false).await;
        file.write_at(0, vec![block(5)]).await.expect("write");
        let unaligned = file.write_at(1, vec![block(5)]).await;
        assert_eq!(unaligned.expect_err("direct I/O").kind(), io::ErrorKind::InvalidInput);
        faulty.fail_after(Some(1));
        file.datasync().await.expect("the last that works");
        let error = file.write_at(0, vec![block(6)]).await.expect_err("broken");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        let (result, buf) = file.read_at(0, AlignedBuf::with_capacity(4096), 4096).await;
        assert!(result.is_err() && buf.is_empty());
        faulty.fail_after(None);
        faulty.corrupt(0, 512);
        let (result, buf) = file.read_at(0, buf, 4096).await;
        result.expect("read");
        buf.iter().filter(|byte| **byte != 5).count()
    });
    assert_eq!(result.expect("run"), 1, "one bit of one sector");
}

#[test]
fn an_exchanged_disk_is_empty() {
    let world = SimWorld::new(10);
    let host = world.host("a");
    let disk = host.disk("/dev/disk", 1 << 20);
    let wrote = host.block_on(async { open(false).await.write_at(0, vec![block(5)]).await });
    wrote.expect("run").expect("write");
    host.power_loss();
    disk.replace();
    assert_eq!(disk.peek(0, 2 << 20), vec![0; 1 << 20]);
}

#[test]
fn a_wall_clock_jumps_alone() {
    let world = SimWorld::new(12);
    let (a, b) = (world.host("a"), world.host("b"));
    let clocks = |host: &SimHost| host.block_on(async { (wall_now(), now()) }).expect("run");
    let hour = Duration::from_secs(3600);
    a.set_clock_ahead(hour);
    let (one, two) = (clocks(&a), clocks(&b));
    assert!(one.0 > two.0 + hour / 2 && one.1 < two.1);
    a.set_clock_ahead(Duration::ZERO);
    assert!(clocks(&a).0 < one.0);
}

#[test]
fn a_paused_process_does_nothing_until_it_goes_on() {
    let world = SimWorld::new(14);
    let host = world.host("a");
    let beats = Rc::new(Cell::new(0));
    let count = beats.clone();
    host.spawn(Class::Client, async move {
        loop {
            sleep(Duration::from_secs(1)).await;
            count.set(count.get() + 1);
        }
    });
    let minute = Duration::from_secs(60);
    world.run_for(minute);
    host.pause();
    let before = beats.get();
    world.run_for(minute);
    assert!(before > 50 && beats.get() == before);
    host.resume();
    world.run_for(minute);
    assert!(beats.get() > before + 50);
}

/// Of two connections, the one that was sent on later is often heard first.
#[test]
fn stalled_connections_let_others_pass() {
    let mut passed = 0;
    for seed in 0..40 {
        let world = SimWorld::new(seed);
        let (a, b) = (world.host("a"), world.host("b"));
        b.spawn(Class::Client, serve(addr(&b)));
        let target = addr(&b);
        world.set_net(NetConfig { stall_per_million: 300_000, ..NetConfig::default() });
        let order = a.block_on(async move {
            let order = Rc::new(RefCell::new(Vec::new()));
            let asks = [1u8, 2].map(|number| {
                let order = order.clone();
                spawn(Class::Client, async move {
                    let stream = TcpStream::connect(target).await.expect("connect");
                    sleep(Duration::from_millis(10 * u64::from(number))).await;
                    ask(&stream, &[number]).await.expect("an answer");
                    order.borrow_mut().push(number);
                })
            });
            for ask in asks {
                ask.await.expect("task");
            }
            order.take()
        });
        passed += usize::from(order.expect("run") == [2, 1]);
    }
    assert!(passed > 5, "{passed}");
}

/// What was sent on a connection that is broken for its sender arrives after what it sent on another.
#[test]
fn connections_are_left_behind() {
    let world = SimWorld::new(13);
    let (a, b) = (world.host("a"), world.host("b"));
    let (listen, target) = (addr(&b), addr(&b));
    let heard = Rc::new(RefCell::new(Vec::new()));
    let (into, limit) = (heard.clone(), Duration::from_secs(20));
    let served = b.spawn(Class::Client, async move {
        let listener = TcpListener::bind(listen).expect("bind");
        let (first, _) = listener.accept().await.expect("accept");
        let (second, _) = listener.accept().await.expect("accept");
        for stream in [second, first] {
            let (result, buf) = stream.recv(BytesMut::new()).await;
            into.borrow_mut().push((result.is_ok(), buf.freeze()));
            if into.borrow().len() == 2 {
                let (result, _) = stream.recv(BytesMut::new()).await;
                assert!(!matches!(result, Ok(1..)), "it ends for both in the end");
            }
        }
    });
    let net = |share| NetConfig { left_behind_per_million: share, ..NetConfig::default() };
    let rough = world.clone();
    let broken = a.block_on(async move {
        let first = TcpStream::connect(target).await.expect("connect");
        rough.set_net(net(1_000_000));
        let _ = first.send(vec![Bytes::from_static(b"first")]).await;
        rough.set_net(net(0));
        let (result, _) = first.recv(BytesMut::new()).await;
        let second = TcpStream::connect(target).await.expect("connect");
        second.send(vec![Bytes::from_static(b"second")]).await.expect("send");
        sleep(Duration::from_millis(100)).await;
        result.is_err()
    });
    assert!(broken.expect("run"), "the sender knows");
    assert!(world.run_until(limit, || served.is_finished()));
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    assert_eq!(heard.take(), [(true, second), (true, first)]);
}

#[test]
fn worlds_leave_nothing_behind() {
    let marker = Rc::new(());
    let world = SimWorld::new(11);
    let host = world.host("a");
    let held = marker.clone();
    host.spawn(Class::Client, async move {
        serve(SocketAddr::from(([0, 0, 0, 0], PORT))).await;
        drop(held);
    });
    world.run_for(Duration::from_secs(1));
    assert_eq!(Rc::strong_count(&marker), 2);
    drop((world, host));
    assert_eq!(Rc::strong_count(&marker), 1);
}
