#!/usr/bin/python3
"""Random operations with snapshots, of several clients at once, checked against a model in memory.

Each thread keeps bursts of requests in flight, each burst on an object of its own; the model is changed when a
request is sent, and its result and outputs are compared when it is answered: the requests of a burst must be
executed in their order, each exactly once. With --restarts the cluster is killed meanwhile and started again on
its directory; the clients live on, so that requests in flight are sent again and must still not be executed twice.

usage: stress.py [--ops N | --seconds S] [--seed N] [--objects N] [--spirula PATH --restarts N --size N]
Without --spirula the cluster of CEPH_CONF is tested, ours or a real Ceph.
"""
import argparse
import collections
import ctypes
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback

import _model as model
from _raw import LIB, ORDER_READS_WRITES, ORDERSNAP, Cluster, read_request, take, write_request
from _ops import SNAPDIR
from _model import Op

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crash"))
import _cluster

POOL = f"stress.{os.getpid()}"
THREADS_PER_CLIENT = 3
BURSTS_MAX = 8
SNAPS_MAX = 6
ANSWER_SECONDS_MAX = 100
P, U64, SIZE = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t
WATCH_CB = ctypes.CFUNCTYPE(None, P, U64, U64, U64, P, SIZE)
ERROR_CB = ctypes.CFUNCTYPE(None, P, U64, ctypes.c_int)
LIB.rados_aio_write_op_operate.argtypes = [P, P, P, ctypes.c_char_p, P, ctypes.c_int]
LIB.rados_aio_read_op_operate.argtypes = [P, P, P, ctypes.c_char_p, ctypes.c_int]
LIB.rados_ioctx_snap_set_read.argtypes = [P, U64]
LIB.rados_ioctx_snap_set_read.restype = None
LIB.rados_ioctx_selfmanaged_snap_set_write_ctx.argtypes = [P, U64, P, ctypes.c_int]
for call in "wait_for_complete", "is_complete", "get_return_value", "release":
    getattr(LIB, "rados_aio_" + call).argtypes = [P]
LIB.rados_release_write_op.argtypes = LIB.rados_release_read_op.argtypes = [P]

# What to do before the process ends, wherever that is decided.
CLEANUP = []
Request = collections.namedtuple("Request", "completion text want checks handle results began")


def leave(status):
    """Ends the process without waiting for threads of the library, whose cluster may be gone."""
    for last in reversed(CLEANUP):
        last()
    sys.stdout.flush()
    os._exit(status)


class Run:
    """What all threads share: the objects, the snapshots and when to stop."""

    def __init__(self, args):
        self.args = args
        self.lock = threading.Lock()
        self.snap_lock = threading.Lock()
        self.objects = [model.Object(f"o{i:03}") for i in range(args.objects)]
        self.seq, self.live, self.pinned = 0, [], collections.Counter()
        self.sent, self.done, self.counts = 0, 0, collections.Counter()
        self.deadline = time.monotonic() + args.seconds if args.seconds else None
        self.paused = threading.Event()

    def finished(self):
        if self.deadline:
            return time.monotonic() > self.deadline
        return self.sent >= self.args.ops

    def take(self, rng):
        """An object without requests in flight."""
        with self.lock:
            while True:
                obj = rng.choice(self.objects)
                if not obj.busy:
                    obj.busy = True
                    return obj

    def release(self, objects, pins):
        with self.lock:
            self.pinned.subtract(pins)
            for obj in objects:
                obj.busy = False

    def context(self):
        with self.lock:
            return self.seq, list(self.live)

    def pin(self, rng):
        """A live snapshot that is not removed before its release, or None for the head."""
        with self.lock:
            snap = rng.choice(self.live) if self.live else None
            if snap is not None:
                self.pinned[snap] += 1
            return snap

    def fail(self, obj, text):
        with self.lock:
            print(f"FAILED: {obj.name}: {text}\nseed {self.args.seed}; live snapshots {self.live}; "
                  f"requests of {obj.name}, oldest first:", file=sys.stderr)
            for line in obj.history:
                print("  " + line, file=sys.stderr)
            print(f"FAILED: {obj.name}: {text} (seed {self.args.seed})", file=sys.stderr, flush=True)
            leave(1)


class Burst:
    """Requests on one object, in flight together."""

    def __init__(self, obj):
        self.obj, self.others, self.pins, self.requests = obj, [], [], []


class Worker(threading.Thread):
    def __init__(self, run, cluster, index):
        super().__init__(daemon=True)
        self.shared, self.index = run, index
        self.rng = random.Random(f"{run.args.seed}.{index}")
        self.writes, self.reads = cluster.pool(POOL), cluster.pool(POOL)
        self.bursts = collections.deque()

    def run(self):
        try:
            while not self.shared.finished():
                if len(self.bursts) >= BURSTS_MAX:
                    self.finish(self.bursts.popleft())
                self.start_burst()
                if self.rng.random() < 0.01:
                    self.snapshot()
            while self.bursts:
                self.finish(self.bursts.popleft())
        except BaseException:
            traceback.print_exc()
            leave(1)

    def start_burst(self):
        burst = Burst(self.shared.take(self.rng))
        for _ in range(self.rng.randrange(1, 6)):
            self.rng.choice((self.change, self.change, self.read))(burst)
        chance = self.rng.random()
        if chance < 0.06:
            self.write(burst, [model.delete()])
        elif chance < 0.14:
            self.rollback(burst)
        elif chance < 0.20:
            self.copy(burst)
        elif chance < 0.26:
            self.list_snaps(burst)
        self.bursts.append(burst)

    def change(self, burst):
        may_be_stale = burst.obj.head is not None and burst.obj.sure
        self.write(burst, model.changes(self.rng, burst.obj), may_be_stale)

    def rollback(self, burst):
        snap = self.shared.pin(self.rng)
        if snap is not None:
            burst.pins.append(snap)
            self.write(burst, [model.rollback(snap)])

    def copy(self, burst):
        source, snap = self.shared.take(self.rng), None
        burst.others.append(source)
        if self.rng.random() < 0.5:
            snap = self.shared.pin(self.rng)
            burst.pins.extend([] if snap is None else [snap])
        self.write(burst, [model.copy_from(self.writes.id, source, snap)])

    def write(self, burst, rows, may_be_stale=False):
        """A client that has not heard of the youngest snapshot sends a stale context."""
        if self.shared.args.failover:
            for request in burst.requests:
                if request.handle:
                    self.wait(burst, request)
        seq, snaps = self.shared.context()
        if may_be_stale and snaps and self.rng.random() < 0.05:
            seq, snaps = snaps[-1] - 1, snaps[:-1]
        flags = ORDERSNAP if seq >= burst.obj.seq and self.rng.random() < 0.2 else 0
        array = (U64 * len(snaps))(*reversed(snaps))
        LIB.rados_ioctx_selfmanaged_snap_set_write_ctx(self.writes.io, seq, array, len(snaps))
        handle = write_request([row[0] for row in rows])
        completion = new_completion()
        LIB.rados_aio_write_op_operate(
            handle, self.writes.io, completion, burst.obj.name.encode(), None, flags)
        LIB.rados_release_write_op(handle)
        want = burst.obj.write(seq, snaps, [row[1] for row in rows])
        text = " + ".join(row[2] for row in rows)
        self.sent_one(burst, Request(completion, text, want, [], None, [], time.monotonic()),
                      f"context {seq} {snaps}")

    def read(self, burst, snap=None, rows=None):
        if snap is None and rows is None and self.rng.random() < 0.4:
            snap = self.shared.pin(self.rng)
            burst.pins.extend([] if snap is None else [snap])
        state = burst.obj.at(snap)
        rows = rows or model.reads(self.rng, state)
        self.send_read(burst, snap, rows, model.ENOENT if state is None else 0)

    def read_all(self, burst, snap):
        self.read(burst, snap, model.reads(self.rng, burst.obj.at(snap), everything=True))

    def list_snaps(self, burst):
        """The burst's last request, so that the model is still the same at the answer."""
        live = []
        for _ in range(3):
            live.append(self.shared.pin(self.rng))
        live = [snap for snap in live if snap is not None]
        burst.pins.extend(live)
        obj = burst.obj
        held = obj.head is not None or any(obj.at(snap) is not None for snap in live)
        row = Op(0x120a), lambda out: model.check_clones(obj, set(live), out), "list_snaps"
        self.send_read(burst, SNAPDIR, [row], 0 if held else None)

    def send_read(self, burst, snap, rows, want):
        LIB.rados_ioctx_snap_set_read(self.reads.io, model.op.HEAD if snap is None else snap)
        handle, results = read_request([row[0] for row in rows])
        completion = new_completion()
        LIB.rados_aio_read_op_operate(
            handle, self.reads.io, completion, burst.obj.name.encode(), ORDER_READS_WRITES)
        text = " + ".join(row[2] for row in rows)
        request = Request(completion, text, want, [row[1] for row in rows], handle, results, time.monotonic())
        self.sent_one(burst, request, "at head" if snap is None else f"at {snap}")

    def sent_one(self, burst, request, where):
        burst.requests.append(request)
        self.shared.sent += 1
        burst.obj.history.append(f"{self.shared.sent} thread {self.index}: {request.text}; {where}; {request.want}")
        self.shared.counts[request.text.split()[0]] += 1

    def finish(self, burst):
        for request in burst.requests:
            self.wait(burst, request)
            result = LIB.rados_aio_get_return_value(request.completion)
            LIB.rados_aio_release(request.completion)
            wrong = self.check(request, result)
            if wrong:
                self.shared.fail(burst.obj, f"{request.text}: {wrong}")
        with self.shared.lock:
            self.shared.done += len(burst.requests)
            burst.obj.forget(self.shared.live)
        self.shared.release([burst.obj, *burst.others], burst.pins)

    def check(self, request, result):
        outputs = [(rval.value, take(out, n)) for out, n, rval in request.results]
        if request.handle:
            LIB.rados_release_read_op(request.handle)
        if request.want is None:
            # Only clones of removed snapshots are left, or nothing: both are right.
            return None if result in (0, model.ENOENT) else f"result {result}"
        if min(result, 0) != request.want:
            return f"result {result} instead of {request.want}"
        if result < 0:
            return None
        return next((w for w in (c(out) for c, (_, out) in zip(request.checks, outputs)) if w), None)

    def wait(self, burst, request):
        while not LIB.rados_aio_is_complete(request.completion):
            if time.monotonic() - request.began > ANSWER_SECONDS_MAX:
                self.shared.fail(burst.obj, f"{request.text}: no answer in {ANSWER_SECONDS_MAX} s")
            time.sleep(0.0005)
        LIB.rados_aio_wait_for_complete(request.completion)

    def snapshot(self):
        """Makes a snapshot, or removes one that nobody reads. Ids come in order, so one at a time."""
        run = self.shared
        if not run.snap_lock.acquire(blocking=False):
            return
        with run.lock:
            free = [s for s in run.live if not run.pinned[s]]
            remove = free and len(run.live) >= self.rng.randrange(1, SNAPS_MAX + 1)
            snap = U64(self.rng.choice(free) if remove else 0)
            if remove:
                run.live.remove(snap.value)
        if remove:
            r = LIB.rados_ioctx_selfmanaged_snap_remove(self.writes.io, snap)
        else:
            r = LIB.rados_ioctx_selfmanaged_snap_create(self.writes.io, ctypes.byref(snap))
        assert r == 0, f"snapshot {snap.value}: {r}"
        with run.lock:
            run.counts["snap_remove" if remove else "snap_create"] += 1
            if not remove:
                run.seq = snap.value
                run.live.append(snap.value)
        run.snap_lock.release()

    def read_back(self, obj):
        """Everything of an object, at its head and at every snapshot."""
        obj.busy = True
        burst = Burst(obj)
        self.read_all(burst, None)
        for snap in self.shared.live:
            self.read_all(burst, snap)
        self.list_snaps(burst)
        self.finish(burst)


def new_completion():
    completion = P()
    LIB.rados_aio_create_completion2(None, None, ctypes.byref(completion))
    return completion


class Watcher:
    """A watch per client; each notify must be answered by all of them."""

    def __init__(self, clusters):
        self.pools = [cluster.pool(POOL) for cluster in clusters]
        self.pools[0].write("watched", b"x")
        self.keep, self.heard, self.notified = [], [0] * len(self.pools), 0
        for i, pool in enumerate(self.pools):
            self.watch(i, pool)

    def watch(self, i, pool):
        def notified(_, notify_id, handle, *rest):
            self.heard[i] += 1
            LIB.rados_notify_ack(pool.io, b"watched", U64(notify_id), U64(handle), b"", 0)

        callbacks = WATCH_CB(notified), ERROR_CB(lambda _, cookie, error: print("watch error", error, file=sys.stderr))
        self.keep.append(callbacks)
        cookie = U64()
        r = LIB.rados_watch3(pool.io, b"watched", ctypes.byref(cookie), *callbacks, ctypes.c_uint32(60), None)
        assert r == 0, f"watch: {r}"

    def notify(self):
        before = list(self.heard)
        r = LIB.rados_notify2(self.pools[0].io, b"watched", b"hi", 2, U64(40_000), None, None)
        self.notified += 1
        if r != 0 or any(a == b for a, b in zip(before, self.heard)):
            print(f"FAILED: notify: {r}, heard {before} before and {self.heard} after", file=sys.stderr, flush=True)
            leave(1)


def load(run, clusters, server):
    """Runs all threads to the end, with restarts in between; returns the threads."""
    workers = [Worker(run, cluster, f"{i}.{j}")
               for i, cluster in enumerate(clusters) for j in range(THREADS_PER_CLIENT)]
    watcher = Watcher(clusters)
    for worker in workers:
        worker.start()
    restarts = 0
    while any(worker.is_alive() for worker in workers):
        time.sleep(1)
        watcher.notify()
        if restarts < run.args.restarts and progress(run) > (restarts + 1) / (run.args.restarts + 1):
            server.kill()
            server.start().shutdown()
            restarts += 1
            print(f"restart {restarts} after {run.sent} requests", flush=True)
    run.counts["notify"] = watcher.notified
    return workers


def progress(run):
    if run.deadline:
        return 1 - (run.deadline - time.monotonic()) / run.args.seconds
    return run.sent / run.args.ops


def stress(args, conf, server):
    clusters = [Cluster(conf).connect() for _ in range(args.clients)]
    r = LIB.rados_pool_create(clusters[0].handle, POOL.encode())
    assert r == 0, f"pool create: {r}"
    CLEANUP.append(lambda: LIB.rados_pool_delete(clusters[0].handle, POOL.encode()))
    # Without one the cluster is not healthy.
    r = LIB.rados_application_enable(clusters[0].pool(POOL).io, b"rados", 0)
    assert r == 0, f"application enable: {r}"
    run = Run(args)
    began = time.monotonic()
    workers = load(run, clusters, server)
    for obj in run.objects:
        workers[0].read_back(obj)
    took = time.monotonic() - began
    shown = ", ".join(f"{k} {v}" for k, v in sorted(run.counts.items()))
    print(f"stress: {run.sent} requests in {took:.0f} s, {args.objects} objects, {args.clients} clients, "
          f"{args.restarts} restarts, seed {args.seed}: as the model says\n  by first operation: {shown}")
    leave(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ops", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, help="instead of --ops")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--failover", action="store_true",
                        help="OSDs come and go: a read that is sent again may see what was written after it")
    parser.add_argument("--without", default="", help="operations to leave out, with commas between")
    parser.add_argument("--spirula", help="start this in a temporary directory")
    parser.add_argument("--size", type=int, default=1, help="copies of each object in a cluster that is started")
    args = parser.parse_args()
    model.LEFT_OUT.update(args.without.split(","))
    if not args.spirula:
        if args.restarts:
            sys.exit("--restarts need --spirula")
        stress(args, os.environ["CEPH_CONF"], None)
    scratch = tempfile.mkdtemp()
    CLEANUP.append(lambda: shutil.rmtree(scratch))
    directory = os.path.join(scratch, "cluster")
    os.mkdir(directory)
    server = _cluster.Cluster(os.path.abspath(args.spirula), directory, procs=False, size=args.size)
    CLEANUP.append(server.kill)
    server.start().shutdown()
    stress(args, server.conf, server)


main()
