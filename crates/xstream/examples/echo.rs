//! What the runtime itself costs: CPU per operation of an echo server, of durable writes, and idle.
//!
//! `cargo run --release -p spirula-xstream --example echo [uring|epoll]`
//!
//! The server has a thread of its own, and the numbers are CPU time of that thread (for files: of
//! the whole process, since the kernel and the epoll back end have worker threads). The client runs
//! beside it on blocking sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use spirula_xstream::{
    AlignedBuf, Backend, Class, Config, File, OpenOptions, TcpListener, TcpStream, mailbox, run,
    sleep, spawn, stopping,
};

fn main() {
    let backend = match std::env::args().nth(1).as_deref() {
        Some("epoll") => Backend::Epoll,
        Some("uring") => Backend::Uring,
        _ => Backend::Auto,
    };
    let config = move || Config::new("bench").backend(backend.clone());
    idle(config());
    for (connections, depth) in [(1, 1), (1, 16), (16, 16)] {
        echo(config(), connections, depth);
    }
    durable_writes(config());
}

fn idle(config: Config) {
    let used = run(config, async {
        let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).expect("bind");
        let accepting = listener.accept();
        let before = cpu("/proc/thread-self/schedstat");
        sleep(Duration::from_secs(2)).await;
        drop(accepting);
        cpu("/proc/thread-self/schedstat") - before
    });
    let share = used.expect("run").as_secs_f64() / 2.0;
    println!("idle: {:.4}% of a core", share * 100.0);
}

/// Requests of 4 KiB, replies of 150 bytes, `depth` in flight on each connection.
const REQUEST: usize = 4096;
const REPLY: usize = 150;

fn echo(config: Config, connections: usize, depth: usize) {
    let operations = 200_000 / connections;
    let (addr_out, addr_in) = std::sync::mpsc::channel();
    let (handle_out, handle_in) = std::sync::mpsc::channel();
    let backend = match config.backend {
        Backend::Epoll => "epoll",
        _ => "uring",
    };
    let server = std::thread::spawn(move || {
        let backend = if backend == "epoll" { Backend::Epoll } else { Backend::Auto };
        run(Config::new("server").backend(backend), async move {
            let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).expect("bind");
            addr_out.send(listener.local_addr().expect("address")).expect("main");
            handle_out.send(spirula_xstream::handle()).expect("main");
            spawn(Class::Client, async move {
                while let Ok((stream, _)) = listener.accept().await {
                    spawn(Class::Client, serve(stream));
                }
            });
            let before = cpu("/proc/thread-self/schedstat");
            stopping().await;
            cpu("/proc/thread-self/schedstat") - before
        })
    });
    let addr = addr_in.recv().expect("server");
    let handle = handle_in.recv().expect("server");
    let begin = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|_| std::thread::spawn(move || drive(addr, depth, operations)))
        .collect();
    for client in clients {
        client.join().expect("client");
    }
    let elapsed = begin.elapsed();
    handle.stop();
    let used = server.join().expect("server").expect("run");
    let total = (operations * connections) as f64;
    println!(
        "echo 4K->150B {connections}x{depth}: {:.2} us of server CPU per op, {:.0} op/s",
        used.as_secs_f64() * 1e6 / total,
        total / elapsed.as_secs_f64(),
    );
}

async fn serve(stream: TcpStream) {
    let reply = Bytes::from(vec![1; REPLY]);
    let mut buf = BytesMut::with_capacity(256 << 10);
    loop {
        let (result, filled) = stream.recv(buf).await;
        buf = filled;
        if !matches!(result, Ok(1..)) {
            return;
        }
        let whole = buf.len() / REQUEST;
        let _ = buf.split_to(whole * REQUEST);
        buf.reserve(256 << 10);
        if whole > 0 && stream.send(vec![reply.clone(); whole]).await.is_err() {
            return;
        }
    }
}

fn drive(addr: SocketAddr, depth: usize, operations: usize) {
    let mut stream = StdStream::connect(addr).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let request = vec![0; REQUEST];
    let mut replies = vec![0; REPLY * depth];
    let mut left = 0;
    for _ in 0..depth {
        stream.write_all(&request).expect("send");
    }
    let mut sent = depth;
    let mut received = 0;
    while received < operations {
        let got = stream.read(&mut replies).expect("receive") + left;
        left = got % REPLY;
        received += got / REPLY;
        let more = (got / REPLY).min(operations - sent);
        stream.write_all(&request.repeat(more)).expect("send");
        sent += more;
    }
}

/// 4 KiB direct writes, 16 at a time, a flush after each 16.
fn durable_writes(config: Config) {
    const BATCHES: u64 = 2000;
    let path = std::env::current_dir().expect("directory").join("xstream-bench.tmp");
    let target = path.clone();
    let (used, elapsed) = run(config, async move {
        let options = OpenOptions {
            direct: true,
            create: true,
            size: Some(64 << 20),
            ..OpenOptions::default()
        };
        let file = File::open(&target, &options).expect("open");
        let zeros = AlignedBuf::zeroed(1 << 20).freeze();
        for offset in 0..64 {
            file.write_at(offset << 20, vec![zeros.clone()]).await.expect("write");
        }
        file.datasync().await.expect("datasync");
        let (before, begin) = (process_cpu(), Instant::now());
        for batch in 0..BATCHES {
            let (done, mut finished) = mailbox();
            for index in 0..16 {
                let mut buf = AlignedBuf::with_capacity(4096);
                buf.resize(4096, index as u8);
                let offset = (batch * 16 + index) * 4096 % (64 << 20);
                let write = file.write_at(offset, vec![buf.freeze()]);
                let done = done.clone();
                spawn(Class::Client, async move { done.send(write.await) });
            }
            drop(done);
            while let Some(result) = finished.recv().await {
                result.expect("write");
            }
            file.datasync().await.expect("datasync");
        }
        (process_cpu() - before, begin.elapsed())
    })
    .expect("run");
    std::fs::remove_file(path).expect("remove");
    let total = (BATCHES * 16) as f64;
    println!(
        "4K O_DIRECT write, fdatasync per 16: {:.2} us of CPU per op, {:.0} op/s",
        used.as_secs_f64() * 1e6 / total,
        total / elapsed.as_secs_f64(),
    );
}

/// CPU time in a `schedstat` file of the kernel.
fn cpu(path: &str) -> Duration {
    let stat = std::fs::read_to_string(path).expect("schedstat");
    let nanos = stat.split(' ').next().and_then(|field| field.parse().ok()).expect("a number");
    Duration::from_nanos(nanos)
}

/// CPU time of all threads of this process, the kernel's workers for it included.
fn process_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("tasks");
    tasks.map(|task| cpu(&format!("{}/schedstat", task.expect("task").path().display()))).sum()
}
