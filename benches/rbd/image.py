#!/usr/bin/python3
"""Times what is done to a whole rbd image: snapshots, first overwrites, clones, rollbacks, removal.

Every object of the image exists and holds some data. For each step one line of JSON says how long it took
(of many equal ones: the median), and for how much CPU and how many written bytes of the server processes.

usage: CEPH_CONF=... image.py --gib N --pids PID,PID
"""
import argparse
import json
import os
import statistics
import threading
import time

import rados
import rbd

OBJECT = 4 << 20
FILLED = 64 << 10
BLOCK = 4 << 10
OVERWRITES = 200
IN_FLIGHT = 32
PLAIN = rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
FEATURES = PLAIN | rbd.RBD_FEATURE_OBJECT_MAP | rbd.RBD_FEATURE_FAST_DIFF
SETTLED_CPU_SECONDS = 0.03
SETTLE_SECONDS_MAX = 15
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """CPU and writes of the server processes."""

    def __init__(self, pids):
        self.pids = pids

    def used(self):
        cpu = written = 0
        for pid in self.pids:
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            cpu += (int(fields[11]) + int(fields[12])) / TICKS
            with open(f"/proc/{pid}/io") as io:
                written += next(int(line.split()[1]) for line in io if line.startswith("write_bytes"))
        return cpu, written

    def settle(self):
        last = self.used()[0]
        for _ in range(SETTLE_SECONDS_MAX):
            time.sleep(1)
            now = self.used()[0]
            if now - last < SETTLED_CPU_SECONDS:
                return
            last = now


def step(server, name, work, count=1):
    """Prints what `work` took; it returns seconds if it measured itself."""
    server.settle()
    cpu, written = server.used()
    began = time.monotonic()
    took = work()
    seconds = took or time.monotonic() - began
    server.settle()
    after = server.used()
    print(json.dumps({"name": name, "ms": seconds * 1e3, "cpu_ms": (after[0] - cpu) * 1e3 / count,
                      "written_kib": (after[1] - written) / 1024 / count}), flush=True)


def each_object(image, length, data):
    """Writes to the start of every object, some in flight."""
    slots = threading.Semaphore(IN_FLIGHT)
    failed = []

    def done(completion):
        if completion.get_return_value() < 0:
            failed.append(completion.get_return_value())
        slots.release()

    for offset in range(0, length, OBJECT):
        slots.acquire()
        image.aio_write(data, offset, done)
    for _ in range(IN_FLIGHT):
        slots.acquire()
    if failed:
        raise SystemExit(f"writes failed: {failed[:3]}")


def overwrites(image, length):
    """The median time of single overwrites, each in an object of its own."""
    times = []
    for i in range(min(OVERWRITES, length // OBJECT)):
        data = os.urandom(BLOCK)
        began = time.monotonic()
        image.write(data, i * OBJECT + BLOCK)
        image.flush()
        times.append(time.monotonic() - began)
    return statistics.median(times)


def measure_overwrites(ioctx, server):
    """The first overwrite after a snapshot as one request: librbd has no object map to change before it."""
    tools = rbd.RBD()
    length = OVERWRITES * OBJECT
    tools.create(ioctx, "plain", length, old_format=False, features=PLAIN)
    with rbd.Image(ioctx, "plain") as image:
        each_object(image, length, os.urandom(FILLED))
        overwrites(image, length)
        step(server, "overwrite, no object map", lambda: overwrites(image, length), OVERWRITES)
        image.create_snap("s")
        step(server, "first after snapshot, no object map", lambda: overwrites(image, length), OVERWRITES)
        image.remove_snap("s")
    tools.remove(ioctx, "plain")


def measure(ioctx, server, length):
    tools = rbd.RBD()
    count = min(OVERWRITES, length // OBJECT)
    tools.create(ioctx, "image", length, old_format=False, features=FEATURES)
    with rbd.Image(ioctx, "image") as image:
        each_object(image, length, os.urandom(FILLED))
        overwrites(image, length)
        step(server, "overwrite", lambda: overwrites(image, length), count)
        step(server, "snapshot create", lambda: image.create_snap("s"))
        step(server, "first after snapshot", lambda: overwrites(image, length), count)
        each_object(image, length, os.urandom(BLOCK))
        step(server, "rollback", lambda: image.rollback_to_snap("s"))
        image.protect_snap("s")
        step(server, "clone", lambda: tools.clone(ioctx, "image", "s", ioctx, "child", FEATURES))
        step(server, "rm of the clone", lambda: tools.remove(ioctx, "child"))
        image.unprotect_snap("s")
        step(server, "snapshot rm", lambda: image.remove_snap("s"))
    step(server, "rm", lambda: tools.remove(ioctx, "image"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=int, default=10)
    parser.add_argument("--pids", required=True)
    args = parser.parse_args()
    server = Server([int(pid) for pid in args.pids.split(",")])
    with rados.Rados(conffile=os.environ["CEPH_CONF"]) as cluster, cluster.open_ioctx("rbd") as ioctx:
        measure_overwrites(ioctx, server)
        measure(ioctx, server, args.gib << 30)


main()
