"""Watch and notify through the real librados: the same expectations on a real Ceph and on Spirula.

The cluster is that of CEPH_CONF; the pool is made here and removed at the end. With RESTART, a command that
kills and starts the OSD whose id is its argument, OSDs are restarted too. Arguments name the tests to run.
"""
import ctypes
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

LIB = ctypes.CDLL("librados.so.2")
U64, P, SIZE = ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t
WATCH_CB = ctypes.CFUNCTYPE(None, P, U64, U64, U64, P, SIZE)
ERROR_CB = ctypes.CFUNCTYPE(None, P, U64, ctypes.c_int)
OLD_CB = ctypes.CFUNCTYPE(None, ctypes.c_uint8, U64, P)
LIB.rados_get_last_version.restype = U64
LIB.rados_get_instance_id.restype = U64
POOL = "watch85"
OSDS = []


def expect(want, got, what):
    if want != got:
        sys.exit(f"FAILED: {what}: expected {want!r}, got {got!r}")


def eventually(what, seconds, check):
    began = time.monotonic()
    while not check():
        if time.monotonic() - began > seconds:
            sys.exit(f"FAILED: {what}: not within {seconds} s")
        time.sleep(0.1)


def ceph(*words):
    return subprocess.run(["ceph", *words], check=True, capture_output=True, text=True).stdout


class Client:
    """A librados client with one pool open."""

    def __init__(self, name="admin", key=None):
        self.cluster, self.io = P(), P()
        expect(0, LIB.rados_create(ctypes.byref(self.cluster), name.encode()), "rados_create")
        expect(0, LIB.rados_conf_read_file(self.cluster, None), "rados_conf_read_file")
        if key:
            LIB.rados_conf_set(self.cluster, b"key", key.encode())
        expect(0, LIB.rados_connect(self.cluster), "rados_connect")
        made = LIB.rados_ioctx_create(self.cluster, POOL.encode(), ctypes.byref(self.io))
        expect(0, made, "rados_ioctx_create")
        self.gid = LIB.rados_get_instance_id(self.cluster)

    def write(self, name, data=b"x"):
        return LIB.rados_write_full(self.io, name.encode(), data, SIZE(len(data)))

    def remove(self, name):
        return LIB.rados_remove(self.io, name.encode())

    def version(self, name):
        """The object's version as a read sees it."""
        buffer = ctypes.create_string_buffer(16)
        LIB.rados_read(self.io, name.encode(), buffer, SIZE(16), U64(0))
        return LIB.rados_get_last_version(self.io)

    def notify(self, name, payload=b"", timeout_ms=0):
        """Result, answers and missed watches, as the OSD encodes them."""
        reply, length = P(), SIZE()
        r = LIB.rados_notify2(self.io, name.encode(), payload, len(payload), U64(timeout_ms),
                              ctypes.byref(reply), ctypes.byref(length))
        raw = ctypes.string_at(reply, length.value) if reply.value else b""
        LIB.rados_buffer_free(reply)
        return r, *decode(raw)

    def addr(self):
        out = P()
        expect(0, LIB.rados_getaddrs(self.cluster, ctypes.byref(out)), "rados_getaddrs")
        text = ctypes.string_at(out.value).decode()
        LIB.rados_buffer_free(out)
        return text

    def shutdown(self):
        LIB.rados_ioctx_destroy(self.io)
        LIB.rados_shutdown(self.cluster)


def decode(raw):
    if not raw:
        return {}, []
    at = 4
    acks, missed = {}, []
    for _ in range(struct.unpack_from("<I", raw)[0]):
        gid, cookie, length = struct.unpack_from("<QQI", raw, at)
        at += 20
        acks[gid, cookie] = raw[at:at + length]
        at += length
    count = struct.unpack_from("<I", raw, at)[0]
    at += 4
    for _ in range(count):
        missed.append(struct.unpack_from("<QQ", raw, at))
        at += 16
    expect(len(raw), at, "length of a notify's answer")
    return acks, missed


class Watch:
    """A watch that answers every notify, unless it is silent."""

    def __init__(self, client, name, answer=b"", timeout=0, silent=False):
        self.client, self.heard, self.errors = client, [], []

        def notified(_, notify_id, handle, notifier, data, length):
            self.heard.append((notifier, ctypes.string_at(data, length) if length else b""))
            expect(self.cookie.value, handle, "handle in the callback")
            if not silent:
                LIB.rados_notify_ack(client.io, name.encode(), U64(notify_id), U64(handle),
                                     answer, len(answer))

        def failed(_, cookie, err):
            self.errors.append(err)

        self.callbacks = WATCH_CB(notified), ERROR_CB(failed)
        self.cookie = U64()
        self.result = LIB.rados_watch3(client.io, name.encode(), ctypes.byref(self.cookie),
                                       *self.callbacks, ctypes.c_uint32(timeout), None)
        self.key = client.gid, self.cookie.value

    def check(self):
        return LIB.rados_watch_check(self.client.io, self.cookie)

    def unwatch(self):
        return LIB.rados_unwatch2(self.client.io, self.cookie)


def listed(name):
    """Clients that watch, by `rados listwatchers`."""
    out = subprocess.run(["rados", "-p", POOL, "listwatchers", name], check=True,
                         capture_output=True, text=True).stdout
    lines = [re.fullmatch(r"watcher=(\S+:0/\d+) client\.(\d+) cookie=(\d+)", line)
             for line in out.splitlines()]
    expect(True, all(lines), f"form of {out!r}")
    return sorted((int(m[2]), int(m[3])) for m in lines)


def two_watchers():
    a, b, n = Client(), Client(), Client()
    expect(-2, Watch(a, "none").result, "watch of an absent object")
    expect((-2, {}, []), n.notify("none"), "notify of an absent object")
    expect(0, a.write("o"), "write")
    expect((0, {}, []), n.notify("o", b"nobody"), "notify without watchers")
    version = a.version("o")
    one, two = Watch(a, "o", b"from a"), Watch(b, "o", b"")
    expect((0, 0), (one.result, two.result), "watches")
    expect(version, a.version("o"), "version after watches")
    expect(sorted([one.key, two.key]), listed("o"), "listwatchers")
    expect((0, {one.key: b"from a", two.key: b""}, []), n.notify("o", b"hello"), "notify")
    expect(([(n.gid, b"hello")],) * 2, (one.heard, two.heard), "what they heard")
    expect((0, {one.key: b"from a", two.key: b""}, []), n.notify("o", b"\0" * 9000), "a large notify")
    for watch in one, two:
        expect(True, 0 <= watch.check() < 10000, "rados_watch_check")
    # Two watches of one client.
    third = Watch(a, "o", b"again")
    r, acks, missed = n.notify("o")
    expect((0, [b"", b"again", b"from a"], []), (r, sorted(acks.values()), missed), "three watches")
    expect(0, third.unwatch(), "unwatch")
    expect(0, LIB.rados_watch_flush(a.cluster), "rados_watch_flush")
    expect(sorted([one.key, two.key]), listed("o"), "listwatchers after unwatch")
    expect((0, 2), (n.notify("o")[0], len(n.notify("o")[1])), "notify after unwatch")
    shown = [w for osd in OSDS for w in json.loads(ceph("tell", f"osd.{osd}", "dump_watchers"))]
    expect(sorted([one.key, two.key]),
           sorted((w["entity_name"]["num"], w["cookie"]) for w in shown), "dump_watchers")
    expect([("", "o", "client", 30, "any", "127.0.0.1:0")] * 2,
           [(w["namespace"], w["object"], w["entity_name"]["type"], w["timeout"],
             w["entity_addr_t"]["type"], w["entity_addr_t"]["addr"]) for w in shown],
           "dump_watchers")
    # A delete tells its watchers.
    expect(0, n.remove("o"), "remove")
    eventually("errors after a delete", 10, lambda: one.errors and two.errors)
    expect(([-107], [-107]), (one.errors, two.errors), "errors after a delete")
    expect((-107, -107), (one.check(), two.check()), "rados_watch_check after a delete")
    expect(0, n.write("o"), "write anew")
    expect([], listed("o"), "watchers of a new object of that name")
    for client in a, b, n:
        client.shutdown()


def silent_watcher():
    a, b, n = Client(), Client(), Client()
    a.write("s")
    one, two = Watch(a, "s", b"here"), Watch(b, "s", silent=True)
    began = time.monotonic()
    expect((-110, {one.key: b"here"}, [two.key]), n.notify("s", b"?", 2000), "a silent watcher")
    expect(True, 1.9 < time.monotonic() - began < 4, "time-out of a notify")
    # Without its watch nobody waits for it.
    expect(0, two.unwatch(), "unwatch")
    expect((0, {one.key: b"here"}, []), n.notify("s", b"?", 2000), "without it")
    for client in a, b, n:
        client.shutdown()


def legacy_watcher():
    a, n = Client(), Client()
    a.write("l")
    heard, cookie = [], U64()
    callback = OLD_CB(lambda opcode, version, _: heard.append((opcode, version)))
    r = LIB.rados_watch(a.io, b"l", U64(0), ctypes.byref(cookie), callback, None)
    expect(0, r, "rados_watch")
    expect([(a.gid, cookie.value)], listed("l"), "listwatchers")
    version = n.version("l")
    expect(0, LIB.rados_notify(n.io, b"l", U64(0), b"hi", 2), "rados_notify")
    expect(1, len(heard), "notifies heard")
    expect(True, heard[0][1] in (0, version), "version in a notify")
    expect(0, LIB.rados_unwatch(a.io, b"l", cookie), "rados_unwatch")
    expect([], listed("l"), "listwatchers")
    for client in a, n:
        client.shutdown()


def child(name, timeout):
    """Watches until it is killed."""
    watch = Watch(Client(), name, timeout=timeout)
    print(*watch.key, watch.result, flush=True)
    time.sleep(600)


def killed_watcher():
    n = Client()
    n.write("k")
    args = [sys.executable, __file__, "child", "k", "7"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        gid, cookie, result = map(int, process.stdout.readline().split())
        expect((0, [(gid, cookie)]), (result, listed("k")), "the child's watch")
        process.send_signal(signal.SIGKILL)
    expect([(gid, cookie)], listed("k"), "right after a kill")
    expect((-110, {}, [(gid, cookie)]), n.notify("k", b"?", 1000), "notify to a dead one")
    # A notify that waits longer than it lives ends well.
    expect((0, {}, []), n.notify("k", b"?", 20000), "notify until its time-out")
    expect([], listed("k"), "after its time-out")
    n.shutdown()


def another_interval():
    """The OSDs are marked down, and come back: the watches with them."""
    a, n = Client(), Client()
    a.write("r")
    watch = Watch(a, "r", b"still")
    ceph("osd", "down", *map(str, OSDS))
    up = lambda: json.loads(ceph("osd", "stat", "-f", "json"))["num_up_osds"] == len(OSDS)
    time.sleep(1)
    eventually("OSDs up again", 60, up)
    eventually("notify after that", 30, lambda: n.notify("r", b"?", 2000)[:2] == (0, {watch.key: b"still"}))
    expect([], watch.errors, "errors")
    expect(True, 0 <= watch.check() < 20000, "rados_watch_check")
    expect([watch.key], listed("r"), "listwatchers")
    for client in a, n:
        client.shutdown()


def restarted_osds():
    """Killed and started again by the command in RESTART, which is given the OSD's id."""
    a, n = Client(), Client()
    a.write("u")
    watch = Watch(a, "u", b"still")
    args = [sys.executable, __file__, "child", "u", "15"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        gid, cookie, _ = map(int, process.stdout.readline().split())
        process.send_signal(signal.SIGKILL)
    for osd in OSDS:
        subprocess.run(["bash", "-c", os.environ["RESTART"], "restart", str(osd)], check=True)
    expect(sorted([watch.key, (gid, cookie)]), listed("u"), "watches after a restart")
    r, acks, missed = n.notify("u", b"?", 60000)
    expect((0, {watch.key: b"still"}, []), (r, acks, missed), "notify until the dead one is gone")
    expect([watch.key], listed("u"), "listwatchers")
    expect([], watch.errors, "errors")
    expect(True, 0 <= watch.check() < 20000, "rados_watch_check")
    for client in a, n:
        client.shutdown()


def blocklisted_watcher():
    a, b, n = Client(), Client(), Client()
    a.write("b")
    one, two = Watch(a, "b"), Watch(b, "b", b"fine")
    addr = re.search(r"127\.0\.0\.1:0/\d+", a.addr())[0]
    ceph("osd", "blocklist", "add", addr, "600")
    eventually("a blocklisted watch goes", 10, lambda: listed("b") == [two.key])
    eventually("an error for the blocklisted watch", 10, lambda: one.errors)
    expect(-107, one.errors[0], "error of a blocklisted watch")
    expect((0, {two.key: b"fine"}, []), n.notify("b", b"", 5000), "notify to the others")
    expect(-108, Watch(a, "b").result, "watch of a blocklisted client")
    ceph("osd", "blocklist", "rm", addr)
    for client in b, n:
        client.shutdown()


def capabilities():
    n = Client()
    n.write("c")
    keys = {}
    for caps in "r", "rw", "w":
        out = ceph("auth", "get-or-create-key", f"client.w85{caps}", "mon", "allow r", "osd",
                   f"allow {caps} pool={POOL}")
        keys[caps] = out.strip()
    table = [("r", -1, 0), ("rw", 0, 0), ("w", -1, -1)]
    for caps, may_watch, may_notify in table:
        client = Client(f"w85{caps}", keys[caps])
        expect(may_watch, Watch(client, "c").result, f"watch with {caps}")
        expect(may_notify, client.notify("c")[0], f"notify with {caps}")
        client.shutdown()
        ceph("auth", "rm", f"client.w85{caps}")
    n.shutdown()


def default_timeout():
    """The OSD's option holds for watches that ask for no time-out."""
    a = Client()
    a.write("t")
    for osd in OSDS:
        ceph("tell", f"osd.{osd}", "config", "set", "osd_client_watch_timeout", "9")
    watches = Watch(a, "t"), Watch(a, "t", timeout=40)
    shown = [w for osd in OSDS for w in json.loads(ceph("tell", f"osd.{osd}", "dump_watchers"))]
    expect({watches[0].cookie.value: 9, watches[1].cookie.value: 40},
           {w["cookie"]: w["timeout"] for w in shown if w["object"] == "t"}, "time-outs")
    for osd in OSDS:
        ceph("tell", f"osd.{osd}", "config", "unset", "osd_client_watch_timeout")
    a.shutdown()


def snapshots():
    """Watches are the head's: clones have none, and a rollback keeps them."""
    a, n = Client(), Client()
    before, after = U64(), U64()
    expect(0, LIB.rados_ioctx_selfmanaged_snap_create(a.io, ctypes.byref(before)), "snap create")
    LIB.rados_ioctx_selfmanaged_snap_set_write_ctx(a.io, before, (U64 * 1)(before), 1)
    expect(0, a.write("v"), "write after the first snapshot")
    watch = Watch(a, "v", b"head")
    expect(0, LIB.rados_ioctx_selfmanaged_snap_create(a.io, ctypes.byref(after)), "snap create")
    snaps = (U64 * 2)(after, before)
    LIB.rados_ioctx_selfmanaged_snap_set_write_ctx(a.io, after, snaps, 2)
    expect(0, a.write("v", b"new"), "write after the second")
    heard = {watch.key: b"head"}
    expect((0, heard, []), n.notify("v", b"?", 5000), "notify to the head")
    LIB.rados_ioctx_snap_set_read(n.io, after)
    expect((0, {}, []), n.notify("v", b"?", 5000), "notify to a clone")
    LIB.rados_ioctx_snap_set_read(n.io, U64(2**64 - 2))
    roll_back = LIB.rados_ioctx_selfmanaged_snap_rollback
    expect(0, roll_back(a.io, b"v", after), "rollback")
    expect((0, heard, []), n.notify("v", b"?", 5000), "notify after a rollback")
    expect(-16, roll_back(a.io, b"v", before), "rollback to a time before a watched object")
    expect(0, watch.unwatch(), "unwatch")
    watch = Watch(a, "v")
    # What is left of the head knows its clone, and no watches.
    expect(0, a.remove("v"), "remove")
    eventually("error after a delete", 10, lambda: watch.errors == [-107])
    expect(-2, n.notify("v", b"?", 5000)[0], "notify to a head that is gone")
    expect(0, a.write("v"), "write anew")
    expect([], listed("v"), "watchers of a new head")
    for client in a, n:
        client.shutdown()


def many_watchers():
    a, n = Client(), Client()
    a.write("m")
    watches = [Watch(a, "m", b"%d" % i) for i in range(60)]
    for _ in range(3):
        want = {w.key: b"%d" % i for i, w in enumerate(watches)}
        expect((0, want, []), n.notify("m", b"all", 20000), "many watchers")
    expect([0] * 60, [w.unwatch() for w in watches], "unwatch")
    expect([], listed("m"), "listwatchers")
    for client in a, n:
        client.shutdown()


def main():
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], int(sys.argv[3]))
        return
    OSDS.extend(json.loads(ceph("osd", "ls", "-f", "json")))
    ceph("osd", "pool", "create", POOL, "8")
    only = sys.argv[1:]
    tests = [two_watchers, silent_watcher, legacy_watcher, killed_watcher, another_interval,
             blocklisted_watcher, capabilities, default_timeout, snapshots, many_watchers]
    if "RESTART" in os.environ:
        tests.append(restarted_osds)
    for test in tests:
        if not only or test.__name__ in only:
            began = time.monotonic()
            test()
            print(f"{test.__name__}: ok, {time.monotonic() - began:.1f} s", flush=True)
    ceph("osd", "pool", "rm", POOL, POOL, "--yes-i-really-really-mean-it")


main()
