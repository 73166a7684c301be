#!/usr/bin/python3
"""Daemons that are killed, stopped and restarted at random under load; no client may notice but by waiting.

Three monitors and five OSDs, each a process, keep pools of three copies. Rounds of faults alternate with pauses in
which all daemons run and the cluster must be HEALTH_OK again within seconds, while the clients go on: `rados bench`,
random requests with snapshots and a watch against a model, fio on an image with checksums. A fault takes one OSD
or one monitor; now and then two OSDs, so that PGs are below min_size, or two monitors, so that there is no quorum.

usage: torture.py --spirula PATH [--minutes N] [--seed S] [--healthy-within SECONDS]
"""
import argparse
import collections
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

from _daemons import Cluster, Failure
from _loads import all_loads

MONS, OSDS, SIZE = 3, 5, 3
ROUND_SECONDS = 40
# How often what happens to how many daemons of which kind, and for how many seconds.
FAULTS = [
    (8, "kill", "osd", 1, (0.0, 12)),
    (5, "stop", "osd", 1, (0.5, 30)),
    (4, "restart", "osd", 1, (0.0, 5)),
    (2, "kill", "osd", 2, (0.5, 10)),
    (1, "stop", "osd", 2, (0.5, 12)),
    (4, "kill", "mon", 1, (0.0, 12)),
    (3, "stop", "mon", 1, (0.5, 15)),
    (2, "restart", "mon", 1, (0.0, 5)),
    (1, "kill", "mon", 2, (0.5, 8)),
    (1, "stop", "mon", 2, (0.5, 8)),
]
PAUSE_SECONDS = (0.0, 5)
# Requests that take longer are told of.
SLOW_SECONDS = 40


class Torture:
    def __init__(self, args, cluster, loads):
        self.args, self.cluster, self.loads = args, cluster, loads
        self.rng = random.Random(args.seed)
        self.began, self.story = time.monotonic(), []
        # Daemon -> when it goes on.
        self.away = {}
        self.slow_at, self.slow_told = 0, set()
        self.counts, self.healthy_after = collections.Counter(), []

    def tell(self, text):
        line = f"{time.monotonic() - self.began:7.1f} {time.strftime('%H:%M:%S')} {text}"
        self.story.append(line)
        if self.args.verbose:
            print(line, flush=True)

    def look(self, goes_on=True):
        """Notices what has failed; whether any load works."""
        self.cluster.check()
        working = [load.check(goes_on) for load in self.loads]
        if time.monotonic() > self.slow_at:
            self.slow_at = time.monotonic() + 5
            self.tell_slow()
        return any(working)

    def tell_slow(self):
        for path, op, there in self.cluster.slow(SLOW_SECONDS):
            if (path, op["tid"]) not in self.slow_told:
                self.slow_told.add((path, op["tid"]))
                self.tell(f"slow: {op}; its OSD: {there}")

    def wait(self, until):
        while time.monotonic() < until:
            self.look()
            self.bring_back(time.monotonic())
            time.sleep(0.05)

    def bring_back(self, now):
        for daemon in [d for d, until in self.away.items() if until <= now]:
            del self.away[daemon]
            if daemon.stopped:
                self.tell(f"{daemon.name} goes on")
                daemon.go_on()
            else:
                self.tell(f"{daemon.name} starts")
                daemon.start()

    def fault(self):
        _, what, kind, number, span = self.rng.choices(FAULTS, [row[0] for row in FAULTS])[0]
        chosen = self.rng.sample(self.cluster.osds if kind == "osd" else self.cluster.mons, number)
        seconds = [self.rng.uniform(*span) for _ in chosen]
        if any(daemon.kind == kind for daemon in self.away):
            # Two of a kind are away only where that is meant.
            return
        for daemon, length in zip(chosen, seconds):
            self.tell(f"{what} {daemon.name} for {length:.1f} s")
            {"kill": daemon.kill, "stop": daemon.pause, "restart": daemon.leave}[what]()
            self.away[daemon] = time.monotonic() + length
        self.counts[f"{what} {number} {kind}"] += 1

    def round(self):
        end = min(time.monotonic() + ROUND_SECONDS, self.began + 60 * self.args.minutes)
        while time.monotonic() < end:
            self.fault()
            self.wait(time.monotonic() + self.rng.uniform(*PAUSE_SECONDS))
        self.tell("round ends")
        self.bring_back(float("inf"))
        took = self.cluster.settle(self.args.healthy_within, time.monotonic(), self.look)
        self.tell(f"HEALTH_OK after {took:.1f} s")
        self.healthy_after.append(took)

    def run(self):
        for load in self.loads:
            load.begin()
        while time.monotonic() < self.began + 60 * self.args.minutes:
            self.round()
        while self.look(goes_on=False):
            time.sleep(0.1)
        self.cluster.settle(self.args.healthy_within, time.monotonic())

    def summary(self):
        faults = ", ".join(f"{what} {n}" for what, n in sorted(self.counts.items()))
        loads = ", ".join(f"{load.name} {load.count}" for load in self.loads)
        return (f"torture: seed {self.args.seed}, {(time.monotonic() - self.began) / 60:.1f} minutes, "
                f"{sum(self.counts.values())} faults ({faults}); programs that ended well: {loads}; "
                f"HEALTH_OK after {max(self.healthy_after):.1f} s at most")


def prepare(cluster):
    """A pool and an image for the clients."""
    environment = {**os.environ, "CEPH_CONF": cluster.conf}
    cluster.command(prefix="osd pool create", pool="bench", pg_num=16)
    cluster.command(prefix="osd pool application enable", pool="bench", app="rados")
    subprocess.run(["rbd", "create", "rbd/image", "--size", "48M", "--object-size", "1M"], check=True, env=environment)


def torture(args, scratch):
    cluster = Cluster(args.spirula, os.path.join(scratch, "cluster"), MONS, OSDS, SIZE)
    test = None
    try:
        cluster.start()
        prepare(cluster)
        loads = all_loads(random.Random(args.seed + 1), scratch, cluster.conf, 60 * args.minutes)
        test = Torture(args, cluster, loads)
        test.run()
        print(test.summary())
        return 0
    except Failure as failure:
        story = "\n".join(test.story) if test else ""
        print(f"{cluster.logs()}\n{story}\nFAILED: seed {args.seed}: {failure}\nkept: {scratch}", file=sys.stderr)
        return 1
    finally:
        for load in test.loads if test else []:
            load.end()
        cluster.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spirula", required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--healthy-within", type=float, default=10, metavar="SECONDS")
    parser.add_argument("--verbose", action="store_true", help="tell what happens as it does")
    args = parser.parse_args()
    scratch = tempfile.mkdtemp(prefix="torture.")
    code = torture(args, scratch)
    if code == 0:
        shutil.rmtree(scratch)
    # Threads of the library may wait for a cluster that is gone.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


main()
