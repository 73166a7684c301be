"""Programs that use the cluster all the while: each must succeed, whatever happens to daemons meanwhile."""
import os
import signal
import subprocess
import sys
import time

from _daemons import Failure

HERE = os.path.dirname(os.path.abspath(__file__))
# No request takes longer: a fault lasts half as long at most.
HANG_SECONDS_MAX = 100
IMAGE_MB = 48


class Load:
    """Runs the commands that `pieces` yields, one after the other; `seconds` is how long each may take."""

    def __init__(self, name, scratch, conf, pieces):
        self.name, self.pieces, self.count = name, pieces, 0
        self.out = os.path.join(scratch, name + ".out")
        self.environment = {**os.environ, "CEPH_CONF": conf, "CEPH_ARGS": "--log_to_stderr=false --log_file=/dev/null"}
        self.process, self.words, self.deadline = None, None, 0

    def begin(self):
        self.words, seconds = next(self.pieces)
        self.deadline = time.monotonic() + seconds + HANG_SECONDS_MAX
        with open(self.out, "wb") as out:
            self.process = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment,
                start_new_session=True)

    def check(self, goes_on):
        """Whether it still works; looks at what has ended, and begins anew if it `goes_on`."""
        if self.process is None:
            return False
        code = self.process.poll()
        if code is None:
            if time.monotonic() > self.deadline:
                self.fail("hangs")
            return True
        self.process = None
        if code != 0:
            self.fail(f"exit {code}")
        self.count += 1
        if goes_on:
            self.begin()
        return goes_on

    def fail(self, how):
        with open(self.out, errors="replace") as out:
            said = "".join(out.readlines()[-80:])
        raise Failure(f"{self.name}: {how}: {' '.join(self.words)}\n{said}")

    def end(self):
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def bench(rng):
    """Writes, reads what was written and compares, removes it."""
    number = 0
    while True:
        number += 1
        size, deep = rng.choice((4096, 16_384, 100_000)), rng.choice((1, 4, 16))
        run, base = f"run{number}", ["rados", "-p", "bench"]
        yield [*base, "bench", "8", "write", "-b", str(size), "-t", str(deep), "--max-objects", "2000",
               "--no-cleanup", "--run-name", run], 8
        yield [*base, "bench", "4", "seq", "-t", str(deep), "--run-name", run], 4
        yield [*base, "cleanup", "--run-name", run], 4


def image(rng, pool):
    """fio's rbd engine: each block carries a checksum and is read back."""
    while True:
        way, size = rng.choice((("randwrite", "4k"), ("randwrite", "16k"), ("write", "64k"), ("randrw", "4k")))
        yield ["fio", "--name=image", "--ioengine=rbd", f"--pool={pool}", "--clientname=admin", "--rbdname=image",
               f"--rw={way}", f"--bs={size}", f"--iodepth={rng.choice((1, 8, 32))}", "--io_size=8M",
               "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0",
               f"--randseed={rng.getrandbits(30)}"], 30


def model(rng, seconds):
    """All kinds of requests with snapshots against a model, and a watch that must hear every notify."""
    yield [sys.executable, os.path.join(HERE, "..", "stress", "stress.py"), "--seconds", str(seconds),
           "--seed", str(rng.getrandbits(30)), "--objects", "60", "--failover"], seconds


def all_loads(rng, scratch, conf, seconds):
    return [
        Load("bench", scratch, conf, bench(rng)),
        Load("image", scratch, conf, image(rng, "rbd")),
        Load("model", scratch, conf, model(rng, seconds)),
    ]
