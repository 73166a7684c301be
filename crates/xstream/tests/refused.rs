//! Where the system forbids io_uring, as most containers do, an xstream runs on epoll by itself,
//! and asked for io_uring it says what to change.

use std::io;

use bytes::Bytes;
use spirula_xstream::{
    AlignedBuf, Backend, Config, File, OpenOptions, StartError, TcpListener, TcpStream, run,
};

#[test]
fn epoll_takes_over_where_io_uring_is_refused() {
    // The filter binds the thread that installs it, and this one ends with the test.
    std::thread::spawn(|| {
        forbid_io_uring(libc::EPERM).expect("seccomp");
        let refused = run(Config::new("uring").backend(Backend::Uring), async {});
        let Err(error @ StartError::UringForbidden { .. }) = refused else {
            panic!("io_uring was not refused")
        };
        let text = error.to_string();
        assert!(text.contains("kernel.io_uring_disabled=0") && text.contains("SPIRULA_IO=epoll"));
        run(Config::new("auto"), works()).expect("epoll");
    })
    .join()
    .expect("thread");
}

#[test]
fn a_lack_of_locked_memory_is_named() {
    std::thread::spawn(|| {
        forbid_io_uring(libc::ENOMEM).expect("seccomp");
        let refused = run(Config::new("uring").backend(Backend::Uring), async {});
        let Err(error @ StartError::UringMemlock { .. }) = refused else {
            panic!("io_uring was not refused")
        };
        assert!(error.to_string().contains("LimitMEMLOCK"));
    })
    .join()
    .expect("thread");
}

async fn works() {
    let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).expect("bind");
    let accepting = listener.accept();
    let addr = listener.local_addr().expect("address");
    let client = TcpStream::connect(addr).await.expect("connect");
    let (server, _) = accepting.await.expect("accept");
    client.send(vec![Bytes::from_static(b"hello")]).await.expect("send");
    let (result, buf) = server.recv_exact(AlignedBuf::with_capacity(5), 0..5).await;
    result.expect("receive");
    assert_eq!(&buf[..], b"hello");

    let dir = tempfile::tempdir().expect("temporary directory");
    let options = OpenOptions { create: true, ..OpenOptions::default() };
    let file = File::open(dir.path().join("file"), &options).expect("open");
    file.write_at(0, vec![Bytes::from_static(b"kept")]).await.expect("write");
    file.datasync().await.expect("datasync");
    assert_eq!(file.len().expect("length"), 4);
}

/// Makes `io_uring_setup` fail with `errno` on this thread, by a seccomp filter of four steps.
fn forbid_io_uring(errno: i32) -> io::Result<()> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let setup = libc::SYS_io_uring_setup as u32;
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, setup),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: plain numbers; the call only gives up privileges of this thread.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: `program` points to `steps`, both alive during the call, which copies them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
