//! The same behaviour on every back end: each test runs on all of them with the same code.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spirula_xstream::sim::SimWorld;
use spirula_xstream::sync::{Notify, Semaphore, oneshot, queue};
use spirula_xstream::{
    AlignedBuf, Backend, Class, Config, File, OpenOptions, Shutdown, TcpListener, TcpStream,
    is_aligned, mailbox, mailbox_bounded, now, random_u64, run, settle, sleep, sleep_until, spawn,
    stopping, timeout, yield_now,
};

/// Runs `test` on each back end.
fn on_all<F: Future<Output = ()> + 'static>(test: impl Fn() -> F) {
    run(Config::new("uring").backend(Backend::Uring), test()).expect("io_uring");
    run(Config::new("epoll").backend(Backend::Epoll), test()).expect("epoll");
    for seed in 0..20 {
        let host = SimWorld::new(seed).host("a");
        run(Config::new("sim").backend(Backend::Sim(host)), test()).expect("simulation");
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bind");
    let addr = listener.local_addr().expect("address");
    (listener, addr)
}

async fn pair() -> (TcpStream, TcpStream) {
    let (listener, addr) = listen();
    let accepted = listener.accept();
    let client = TcpStream::connect(addr).await.expect("connect");
    let (server, peer) = accepted.await.expect("accept");
    assert_eq!(peer, client.local_addr().expect("address"));
    assert_eq!(client.peer_addr().expect("address"), addr);
    (client, server)
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    let mut buf = BytesMut::with_capacity(4096);
    loop {
        let (result, filled) = stream.recv(buf).await;
        buf = filled;
        if result? == 0 {
            return Ok(());
        }
        stream.send(vec![buf.split().freeze()]).await?;
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ seed) as u8).collect()
}

struct Scratch {
    path: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

/// A path for a file; simulated hosts do not see the real directory.
fn scratch() -> Scratch {
    let dir = tempfile::tempdir().expect("temporary directory");
    Scratch { path: dir.path().join("file"), _dir: Some(dir) }
}

fn create(path: &Scratch, direct: bool) -> File {
    let options = OpenOptions { direct, create: true, size: Some(1 << 20), ..Default::default() };
    File::open(&path.path, &options).expect("open")
}

#[test]
fn echo_of_many_sizes() {
    on_all(|| async {
        let (client, server) = pair().await;
        let echoing = spawn(Class::Client, echo(server));
        for (round, len) in [1, 100, 4096, 70_000, 3 << 20].into_iter().enumerate() {
            let data = Bytes::from(pattern(len, round));
            let third = len / 3;
            let pieces = vec![
                data.slice(..third),
                Bytes::new(),
                data.slice(third..2 * third),
                data.slice(2 * third..),
            ];
            let sending = client.send(pieces);
            let (result, buf) = client.recv_exact(AlignedBuf::with_capacity(len), 0..len).await;
            result.expect("receive");
            sending.await.expect("send");
            assert_eq!(&buf[..], &data[..]);
        }
        client.shutdown(Shutdown::Write).expect("shutdown");
        let (result, _) = client.recv(BytesMut::new()).await;
        assert_eq!(result.expect("end"), 0);
        echoing.await.expect("task").expect("echo");
    });
}

#[test]
fn more_pieces_than_one_call_takes() {
    on_all(|| async {
        let (client, server) = pair().await;
        let echoing = spawn(Class::Client, echo(server));
        let pieces: Vec<Bytes> = (0..3000).map(|i| Bytes::from(vec![i as u8; 7])).collect();
        let len = 3000 * 7;
        let expected: Vec<u8> = pieces.iter().flatten().copied().collect();
        client.send(pieces.clone()).await.expect("send");
        let (result, buf) = client.recv_exact(AlignedBuf::with_capacity(len), 0..len).await;
        result.expect("receive");
        assert_eq!(&buf[..], &expected[..]);
        drop(client);
        let _ = echoing.await.expect("task");

        let path = scratch();
        let file = create(&path, false);
        file.write_at(10, pieces).await.expect("write");
        let (result, buf) = file.read_at(10, AlignedBuf::with_capacity(len), len).await;
        assert_eq!(result.expect("read"), len);
        assert_eq!(&buf[..], &expected[..]);
    });
}

#[test]
fn receiving_into_the_middle_of_a_buffer() {
    on_all(|| async {
        let (client, server) = pair().await;
        client.send(vec![Bytes::from_static(b"abcdef")]).await.expect("send");
        let mut buf = AlignedBuf::zeroed(8);
        buf[0] = b'<';
        let (result, buf) = server.recv_exact(buf, 1..4).await;
        result.expect("receive");
        assert_eq!(&buf[..5], b"<abc\0");
        let mut rest = BytesMut::from(&b"+"[..]);
        rest.reserve(100);
        let (result, rest) = server.recv(rest).await;
        assert_eq!(result.expect("receive"), 3);
        assert_eq!(&rest[..], b"+def");
        drop(client);
        let (result, _) = server.recv_exact(buf, 0..1).await;
        assert_eq!(result.expect_err("end").kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn refused_and_broken_connections() {
    on_all(|| async {
        let (listener, addr) = listen();
        drop(listener);
        let error = TcpStream::connect(addr).await.err().expect("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let (client, server) = pair().await;
        drop(server);
        let data = Bytes::from(vec![0; 1 << 20]);
        let mut failed = false;
        for _ in 0..100 {
            failed |= client.send(vec![data.clone()]).await.is_err();
            if failed {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        assert!(failed, "sending to a closed socket fails sooner or later");
    });
}

#[test]
fn timers_fire_in_order() {
    on_all(|| async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let begin = now();
        let tasks: Vec<_> = [30, 10, 20, 10]
            .into_iter()
            .enumerate()
            .map(|(index, millis)| {
                let order = order.clone();
                spawn(Class::Client, async move {
                    sleep_until(begin + Duration::from_millis(millis)).await;
                    order.borrow_mut().push((millis, index));
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("task");
        }
        let millis: Vec<u64> = order.borrow().iter().map(|(millis, _)| *millis).collect();
        assert_eq!(millis, [10, 10, 20, 30]);
        assert!(now() - begin >= Duration::from_millis(30));
        assert!(timeout(Duration::from_millis(5), std::future::pending::<()>()).await.is_err());
        assert_eq!(timeout(Duration::from_secs(5), async { 7 }).await, Ok(7));
        let mut again = sleep(Duration::from_secs(1000));
        again.reset(now() + Duration::from_millis(1));
        again.await;
    });
}

#[test]
fn background_neither_starves_clients_nor_starves() {
    on_all(|| async {
        let counts = Rc::new([const { Cell::new(0u64) }; Class::COUNT]);
        let stop = Rc::new(Cell::new(false));
        let mut tasks = Vec::new();
        for (index, class) in Class::ALL.into_iter().enumerate() {
            for _ in 0..3 {
                let (counts, stop) = (counts.clone(), stop.clone());
                tasks.push(spawn(class, async move {
                    while !stop.get() {
                        // A few microseconds, the same for every class.
                        (0..200).for_each(|i| drop(std::hint::black_box(vec![0u8; 64 + i])));
                        counts[index].set(counts[index].get() + 1);
                        yield_now().await;
                    }
                }));
            }
        }
        while counts.iter().map(Cell::get).sum::<u64>() < 20_000 {
            sleep(Duration::from_millis(1)).await;
        }
        stop.set(true);
        for task in tasks {
            task.await.expect("task");
        }
        let [client, replication, recovery, background] =
            [0, 1, 2, 3].map(|index: usize| counts[index].get());
        assert!(client > recovery * 2 && replication > recovery * 2, "{counts:?}");
        assert!(recovery > background && background > 0, "{counts:?}");
        assert!(client > background * 4, "{counts:?}");
    });
}

#[test]
fn settle_waits_for_all_that_can_run() {
    on_all(|| async {
        let done = Rc::new(Cell::new(0));
        for _ in 0..10 {
            let done = done.clone();
            spawn(Class::Background, async move {
                yield_now().await;
                yield_now().await;
                done.set(done.get() + 1);
            });
        }
        settle().await;
        assert_eq!(done.get(), 10);
    });
}

#[test]
fn tasks_can_be_aborted_and_joined() {
    on_all(|| async {
        let endless = spawn(Class::Client, std::future::pending::<()>());
        yield_now().await;
        assert!(!endless.is_finished());
        endless.abort();
        assert!(endless.await.is_err());
        let unpolled = spawn(Class::Client, async { 1 });
        unpolled.abort();
        assert!(unpolled.await.is_err());
        let value = spawn(Class::Client, async { "result" });
        assert_eq!(value.await, Ok("result"));
    });
}

#[test]
fn local_synchronisation() {
    on_all(|| async {
        let notify = Rc::new(Notify::new());
        let waiting = spawn(Class::Client, {
            let notify = notify.clone();
            async move { notify.notified().await }
        });
        settle().await;
        notify.notify_one();
        waiting.await.expect("notified");

        let (sender, receiver) = oneshot();
        spawn(Class::Client, async move { sender.send(5) });
        assert_eq!(receiver.await, Ok(5));
        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert!(receiver.await.is_err());

        let (items, mut received) = queue();
        for i in 0..3 {
            let items = items.clone();
            spawn(Class::Client, async move { items.send(i) });
        }
        drop(items);
        let mut all = Vec::new();
        while let Some(item) = received.recv().await {
            all.push(item);
        }
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);

        let semaphore = Semaphore::new(2);
        let permit = semaphore.acquire(2).await;
        assert!(semaphore.try_acquire(1).is_none());
        let mut large = pin!(semaphore.acquire(2));
        let large_waits = timeout(Duration::from_millis(1), large.as_mut()).await.is_err();
        assert!(large_waits);
        drop(permit);
        assert_eq!(large.await.count(), 2);
    });
}

#[test]
fn files_keep_what_was_written() {
    on_all(|| async {
        for direct in [false, true] {
            let path = scratch();
            let file = create(&path, direct);
            assert_eq!(file.len().expect("length"), 1 << 20);
            let data = AlignedBuf::copy_from(&pattern(64 << 10, 1)).freeze();
            assert!(is_aligned(&data));
            let first = file.write_at(4096, vec![data.slice(..8192), data.slice(8192..16384)]);
            let second = file.write_at(128 << 10, vec![data.clone()]);
            first.await.expect("write");
            second.await.expect("write");
            file.datasync().await.expect("datasync");
            let buf = AlignedBuf::with_capacity(16384);
            let (result, buf) = file.read_at(4096, buf, 16384).await;
            assert_eq!(result.expect("read"), 16384);
            assert_eq!(&buf[..], &data[..16384]);
            let (result, buf) = file.read_at((1 << 20) - 4096, buf, 16384).await;
            assert_eq!(result.expect("read at the end"), 4096);
            file.punch_hole(128 << 10, 4096).await.expect("punch");
            let (result, buf) = file.read_at(128 << 10, buf, 8192).await;
            assert_eq!(result.expect("read"), 8192);
            assert!(buf[..4096].iter().all(|byte| *byte == 0));
            assert_eq!(&buf[4096..], &data[4096..8192]);
            file.allocate(2 << 20, 4096).await.expect("allocate");
            assert_eq!(file.len().expect("length"), (2 << 20) + 4096);
        }
    });
}

#[test]
fn files_are_locked_and_missing_ones_reported() {
    on_all(|| async {
        let path = scratch();
        let missing = File::open(&path.path, &OpenOptions::default()).err().expect("missing");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let options = OpenOptions { create: true, lock: true, ..Default::default() };
        let file = File::open(&path.path, &options).expect("open");
        let again = File::open(&path.path, &options).err().expect("locked");
        assert_eq!(again.kind(), io::ErrorKind::WouldBlock);
        drop(file);
        File::open(&path.path, &options).expect("unlocked");
        let options = OpenOptions { create: true, exclusive: true, ..Default::default() };
        let exists = File::open(&path.path, &options).err().expect("exists");
        assert_eq!(exists.kind(), io::ErrorKind::AlreadyExists);
    });
}

/// Polls `future` a few times at most, then drops it.
async fn give_up<F: Future>(future: F, polls: u64) {
    let mut future = pin!(future);
    let mut polled = 0;
    std::future::poll_fn(|cx| {
        polled += 1;
        if polled > polls || future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn futures_dropped_in_flight_do_no_harm() {
    on_all(|| async {
        let path = scratch();
        let file = create(&path, true);
        let (listener, addr) = listen();
        for round in 0..200 {
            let polls = random_u64() % 4;
            let data = AlignedBuf::zeroed(16384).freeze();
            match random_u64() % 7 {
                0 => give_up(file.write_at(8192 * (round % 100), vec![data]), polls).await,
                1 => give_up(file.datasync(), polls).await,
                2 => give_up(file.read_at(0, AlignedBuf::with_capacity(65536), 65536), polls).await,
                3 => give_up(listener.accept(), polls).await,
                4 => give_up(TcpStream::connect(addr), polls).await,
                5 => {
                    let (client, server) = pair().await;
                    client.send(vec![data.slice(..100)]).await.expect("send");
                    give_up(server.recv(BytesMut::with_capacity(4096)), polls).await;
                    let buf = AlignedBuf::with_capacity(65536);
                    give_up(server.recv_exact(buf, 0..65536), polls).await;
                }
                _ => {
                    let (client, _server) = pair().await;
                    give_up(client.send(vec![Bytes::from(vec![1; 8 << 20])]), polls).await;
                }
            }
        }
        // What is left over works.
        let (client, server) = pair().await;
        spawn(Class::Client, echo(server));
        client.send(vec![Bytes::from_static(b"ok")]).await.expect("send");
        let (result, buf) = client.recv_exact(AlignedBuf::with_capacity(2), 0..2).await;
        result.expect("receive");
        assert_eq!(&buf[..], b"ok");
        // Left in flight for the end of the xstream.
        std::mem::forget(client.recv(BytesMut::new()));
        spawn(Class::Client, async move { file.write_at(0, vec![Bytes::new()]).await });
    });
}

#[test]
fn a_mailbox_reaches_a_sleeping_xstream() {
    for backend in [Backend::Uring, Backend::Epoll] {
        let config = Config::new("mailbox").backend(backend);
        run(config, async {
            let (sender, mut receiver) = mailbox();
            let thread = std::thread::spawn(move || {
                for i in 0..1000u64 {
                    if i % 100 == 0 {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    sender.send(i).expect("send");
                }
            });
            let mut expected = 0;
            while let Some(i) = receiver.recv().await {
                assert_eq!(i, expected);
                expected += 1;
            }
            assert_eq!(expected, 1000);
            thread.join().expect("thread");
        })
        .expect("run");
    }
}

#[test]
fn a_mailbox_has_bounds_and_ends() {
    on_all(|| async {
        let (sender, mut receiver) = mailbox_bounded(2);
        sender.send(1).expect("room");
        sender.send(2).expect("room");
        assert!(sender.send(3).is_err());
        assert_eq!(receiver.recv().await, Some(1));
        let other = sender.clone();
        spawn(Class::Client, async move {
            sleep(Duration::from_millis(1)).await;
            other.send(4)
        });
        assert_eq!(receiver.recv().await, Some(2));
        assert_eq!(receiver.recv().await, Some(4));
        drop(sender);
        settle().await;
        assert_eq!(receiver.recv().await, None);
    });
}

#[test]
fn a_handle_spawns_and_stops_from_outside() {
    for backend in [Backend::Uring, Backend::Epoll] {
        let config = Config::new("handle").backend(backend);
        run(config, async {
            let handle = spirula_xstream::handle();
            let (sender, mut receiver) = mailbox();
            std::thread::spawn(move || {
                handle.spawn(Class::Client, move || async move {
                    sleep(Duration::from_millis(1)).await;
                    sender.send("from over there").expect("send");
                });
                std::thread::sleep(Duration::from_millis(5));
                handle.stop();
            });
            assert_eq!(receiver.recv().await, Some("from over there"));
            stopping().await;
        })
        .expect("run");
    }
}

#[test]
fn an_idle_xstream_uses_no_cpu() {
    for backend in [Backend::Uring, Backend::Epoll] {
        let config = Config::new("idle").backend(backend);
        run(config, async {
            let (_client, server) = pair().await;
            spawn(Class::Client, echo(server));
            let before = thread_cpu();
            let idle = Duration::from_millis(300);
            sleep(idle).await;
            let used = thread_cpu() - before;
            // A loop that polls uses all of it, however noisy the machine; figures are the bench's.
            assert!(used < idle / 2, "{used:?}");
        })
        .expect("run");
    }
}

/// CPU time of this thread, as the kernel accounts it.
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let nanos = stat.split(' ').next().and_then(|field| field.parse().ok()).expect("a number");
    Duration::from_nanos(nanos)
}

/// CPUs that the calling thread may use, as the kernel prints them.
fn cpus_allowed() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
    line.expect("Cpus_allowed_list").trim().to_owned()
}

#[test]
fn a_pinned_xstream_has_one_cpu_and_neighbours_have_others() {
    let all = cpus_allowed();
    let on = |n| {
        let pinned = std::thread::spawn(move || {
            run(Config::new("pinned").pin_nth(n), async { cpus_allowed() }).expect("run")
        });
        pinned.join().expect("join")
    };
    if all.parse::<usize>().is_ok() {
        assert_eq!(on(0), all, "nothing to choose");
        return;
    }
    let (first, second) = (on(0), on(1));
    assert!(first.parse::<usize>().is_ok() && second.parse::<usize>().is_ok(), "{first} {second}");
    assert_ne!(first, second);
    assert_eq!(cpus_allowed(), all, "the caller's thread is not touched");
}
