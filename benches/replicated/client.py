#!/usr/bin/python3
"""A client of a cluster whose OSDs are killed and started again: prints one line of JSON about what it saw.

usage: CEPH_CONF=... client.py --pool POOL write COUNT       writes each of COUNT objects, some in flight
                                 --pool POOL first OSD         writes through OSD as soon as a line is read
                                 --pool POOL latency LANES     writes one after the other until input ends
                                 --pool POOL recovered OSD     waits until OSD is up and all PGs are clean
"""
import argparse
import calendar
import json
import os
import signal
import sys
import threading
import time

import rados

BLOCK = 4 << 10
IN_FLIGHT = 32
OWN_OBJECTS = 64
UP_POLL_SECONDS = 0.05
CLEAN_POLL_SECONDS = 0.2
WAIT_SECONDS_MAX = 900
CLIENT_SECONDS_MAX = 1000


def say(**result):
    print(json.dumps(result), flush=True)


def write(cluster, ioctx, count):
    """Writes whole objects."""
    slots = threading.Semaphore(IN_FLIGHT)
    failed = []

    def done(completion):
        if completion.get_return_value() < 0:
            failed.append(completion.get_return_value())
        slots.release()

    began = time.monotonic()
    for i in range(count):
        slots.acquire()
        ioctx.aio_write_full("object-%d" % i, os.urandom(BLOCK), oncomplete=done)
    for _ in range(IN_FLIGHT):
        slots.acquire()
    if failed:
        sys.exit("writes failed: %s" % failed[:3])
    say(seconds=time.monotonic() - began)


def ask(call, **command):
    """The answer to a command, as JSON."""
    code, out, error = call(json.dumps({**command, "format": "json"}), b"")[:3]
    if code:
        raise rados.Error("%s: %s" % (command, error))
    return json.loads(out)


def first(cluster, ioctx, osd):
    """The first write through an OSD that is killed when the line comes."""
    names = ("first-%d" % i for i in range(10_000))
    for name in names:
        where = ask(cluster.mon_command, prefix="osd map", pool=ioctx.get_pool_name(), object=name)
        if where["acting_primary"] == osd:
            break
    else:
        sys.exit("osd.%d is the primary of nothing" % osd)
    ioctx.write_full(name, os.urandom(BLOCK))
    say(ready=True)
    sys.stdin.readline()
    ioctx.write_full(name, os.urandom(BLOCK))
    say(written=True)


def latency(cluster, ioctx, lanes):
    """How long single writes take to objects of this client's own."""
    over = threading.Event()
    times = [[] for _ in range(lanes)]
    data = os.urandom(BLOCK)

    def lane(number):
        turn = 0
        while not over.is_set():
            began = time.monotonic()
            ioctx.write_full("latency-%d-%d" % (number, turn % OWN_OBJECTS), data)
            times[number].append(time.monotonic() - began)
            turn += 1

    threads = [threading.Thread(target=lane, args=(n,)) for n in range(lanes)]
    for thread in threads:
        thread.start()
    say(ready=True)
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    every = sorted(t for one in times for t in one)
    at = {"p%g_ms" % p: every[min(int(len(every) * p / 100), len(every) - 1)] * 1e3 for p in (50, 99, 100)}
    say(writes=len(every), **at)


def stamp(text):
    """Seconds since 1970 of a time as Ceph prints it, in UTC."""
    whole, rest = text.split(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + rest.split("+")[0])


def recovered(cluster, ioctx, osd):
    """How long it takes from the moment that the map has an OSD as up to the last PG that becomes clean."""
    began = time.time()
    up = None
    while time.time() - began < WAIT_SECONDS_MAX:
        time.sleep(UP_POLL_SECONDS if up is None else CLEAN_POLL_SECONDS)
        try:
            if up is None:
                osds = ask(cluster.mon_command, prefix="osd dump")["osds"]
                if any(o["osd"] == osd and o["up"] for o in osds):
                    up = time.time()
                continue
            pgs = ask(cluster.mgr_command, prefix="pg dump", dumpcontents=["pgs"])["pg_stats"]
        except rados.Error:
            continue
        if pgs and all(pg["state"].startswith("active+clean") for pg in pgs):
            clean = max(stamp(pg["last_change"]) for pg in pgs)
            return say(up=up - began, seconds=clean - up, seen=time.time() - up)
    sys.exit("not clean after %d s" % WAIT_SECONDS_MAX)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", required=True)
    parser.add_argument("what", choices=("write", "first", "latency", "recovered"))
    parser.add_argument("number", type=int)
    args = parser.parse_args()
    # A write that has no answer ends this client, not only its wait.
    signal.alarm(CLIENT_SECONDS_MAX)
    with rados.Rados(conffile=os.environ["CEPH_CONF"]) as cluster:
        with cluster.open_ioctx(args.pool) as ioctx:
            globals()[args.what](cluster, ioctx, args.number)


if __name__ == "__main__":
    main()
