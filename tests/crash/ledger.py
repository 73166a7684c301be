#!/usr/bin/python3
"""kill -9 of a whole cluster under load, again and again; every acknowledged object must read back.

The ledger (name -> seed of the last acknowledged content) lives in this process, outside the
cluster. A write in flight at the kill is *unknown*: the old or the new content is right, a mix is not.

usage: ledger.py --spirula PATH [--rounds N] [--seconds S] [--procs]
"""
import argparse
import os
import random
import sys
import tempfile
import threading
import time

import rados

from _cluster import Cluster

SIZES = (100, 4096, 10_000, 65_536, 1 << 20)
WRITERS = 4
NAMES_PER_WRITER = 40


def content(seed):
    rng = random.Random(seed)
    return rng.randbytes(rng.choice(SIZES))


class Writer(threading.Thread):
    """Overwrites its own names until told to stop; notes each acknowledgement in the ledger."""

    def __init__(self, io, index, ledger, unknown, rng):
        super().__init__(daemon=True)
        self.io, self.index, self.ledger, self.unknown, self.rng = io, index, ledger, unknown, rng
        self.stopped = False
        self.acknowledged = 0

    def run(self):
        while not self.stopped:
            name = "w%d.%d" % (self.index, self.rng.randrange(NAMES_PER_WRITER))
            seed = self.rng.getrandbits(60)
            self.unknown.setdefault(name, []).append(seed)
            try:
                self.io.write_full(name, content(seed))
            except rados.Error:
                return
            self.ledger[name] = seed
            self.unknown[name] = []
            self.acknowledged += 1


def verify(io, ledger, unknown):
    wrong = []
    for name in sorted(set(ledger) | set(unknown)):
        allowed = [content(s) for s in unknown.get(name, [])]
        if name in ledger:
            allowed.append(content(ledger[name]))
        else:
            allowed.append(None)
        try:
            found = io.read(name, length=max(SIZES) + 1)
        except rados.ObjectNotFound:
            found = None
        if found not in allowed:
            wrong.append(name)
        elif name in unknown and unknown[name]:
            # What the cluster answered once it must keep answering.
            for seed in unknown[name]:
                if found == content(seed):
                    ledger[name] = seed
            unknown[name] = []
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spirula", required=True)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=1.0, help="longest load of a round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--procs", action="store_true")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    ledger, unknown, total = {}, {}, 0
    with tempfile.TemporaryDirectory() as scratch:
        directory = os.path.join(scratch, "cluster")
        os.mkdir(directory)
        cluster = Cluster(os.path.abspath(args.spirula), directory, args.procs)
        client = cluster.start()
        for number in range(args.rounds):
            io = client.open_ioctx("rbd")
            writers = [Writer(io, i, ledger, unknown, random.Random(rng.random())) for i in range(WRITERS)]
            for writer in writers:
                writer.start()
            time.sleep(rng.uniform(0.1, args.seconds))
            cluster.kill()
            for writer in writers:
                writer.stopped = True
            # Operations in flight wait for the cluster to return and are then resent: let them.
            fresh = cluster.start()
            for writer in writers:
                writer.join(30)
                if writer.is_alive():
                    sys.exit("round %d: a write did not finish after the restart" % number)
                total += writer.acknowledged
            wrong = verify(fresh.open_ioctx("rbd"), ledger, unknown)
            if wrong:
                sys.exit("round %d: %d objects differ: %s" % (number, len(wrong), wrong[:5]))
            client.shutdown()
            client = fresh
        client.shutdown()
        cluster.kill()
    print("ledger: %d rounds, %d acknowledged writes, %d objects, none lost" % (args.rounds, total, len(ledger)))


main()
