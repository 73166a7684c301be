"""A cluster of `spirula vstart --procs`, each of whose daemons is killed, stopped and started by its pid."""
import glob
import json
import os
import signal
import socket
import struct
import subprocess
import time

import rados

START_SECONDS_MAX = 60
LOG_LINES_SHOWN = 60


# HEALTH_OK counts if it lasts: what has just changed is not known at once.
HEALTHY_SECONDS = 1


class Failure(Exception):
    pass


def ask(path, prefix):
    """A command to an admin socket; None if nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(2)
            sock.connect(path)
            sock.sendall(json.dumps({"prefix": prefix, "format": "json"}).encode() + b"\0")
            with sock.makefile("rb") as answer:
                return json.loads(answer.read(struct.unpack(">I", answer.read(4))[0]))
    except (OSError, ValueError, struct.error):
        return None


class Daemon:
    def __init__(self, cluster, name, args):
        self.cluster, self.name, self.args = cluster, name, args
        self.process, self.stopped = None, False

    @property
    def kind(self):
        return self.name.split(".")[0]

    def start(self):
        with open(os.path.join(self.cluster.directory, "log", self.name + ".out"), "ab") as out:
            # It ends with this process.
            self.process = subprocess.Popen(
                [self.cluster.spirula, *self.args, "--dir", self.cluster.directory, "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def signal(self, number):
        self.process.send_signal(number)

    def pause(self):
        self.signal(signal.SIGSTOP)
        self.stopped = True

    def go_on(self):
        self.signal(signal.SIGCONT)
        self.stopped = False

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def leave(self):
        """A clean stop, which for some seconds may wait for a monitor."""
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} does not end after SIGTERM") from None
        self.process = None

    def check(self):
        if self.process and self.process.poll() is not None:
            raise Failure(f"{self.name} ended by itself: {self.process.returncode}")


class Cluster:
    def __init__(self, spirula, directory, mons, osds, size):
        self.spirula, self.directory = os.path.abspath(spirula), directory
        self.conf = os.path.join(directory, "ceph.conf")
        shape = ["--mons", str(mons), "--osds", str(osds), "--size", str(size), "--device-size", "8G"]
        subprocess.run([self.spirula, "vstart", "--procs", "--dir", directory, *shape, "--", "true"], check=True,
                       stdout=subprocess.DEVNULL)
        self.mons = [Daemon(self, f"mon.{c}", ["mon", "--id", c]) for c in "abcde"[:mons]]
        self.mgr = Daemon(self, "mgr.x", ["mgr"])
        self.osds = [Daemon(self, f"osd.{i}", ["engine", "--osd", str(i)]) for i in range(osds)]
        self.client = None
        with open(self.conf, "a") as conf:
            conf.write(f"admin socket = {directory}/run/client.$pid.$cctid.asok\n")

    def all(self):
        return [*self.mons, self.mgr, *self.osds]

    def start(self):
        for daemon in self.all():
            daemon.start()
        self.client = rados.Rados(conffile=self.conf)
        self.client.connect()
        self.settle(START_SECONDS_MAX, time.monotonic())

    def check(self):
        for daemon in self.all():
            daemon.check()

    def command(self, **words):
        words["format"] = "json"
        code, out, error = self.client.mon_command(json.dumps(words), b"", timeout=60)
        if code != 0:
            raise Failure(f"{words}: {code} {error}")
        return json.loads(out) if out else None

    def settle(self, limit, since, meanwhile=lambda: None):
        """Waits for HEALTH_OK; returns the seconds since then."""
        good = None
        while True:
            health = self.command(prefix="health")
            now = time.monotonic()
            took = now - since
            good = (good or now) if health["status"] == "HEALTH_OK" else None
            if good and now - good >= HEALTHY_SECONDS:
                return good - since
            if took > limit and not good:
                raise Failure(f"not HEALTH_OK within {limit} s: {json.dumps(health['checks'])}")
            self.check()
            meanwhile()
            time.sleep(0.1)

    def end(self):
        for daemon in self.all():
            if daemon.process:
                daemon.kill()

    def slow(self, seconds):
        """Requests that a client has waited for so long, and what their OSD says of them."""
        found = []
        for path in glob.glob(os.path.join(self.directory, "run", "client.*.asok")):
            for op in (ask(path, "objecter_requests") or {"ops": []})["ops"]:
                # One that was never sent says it is as old as the machine.
                if op["attempts"] == 0 or op["age"] < seconds:
                    continue
                there = ask(os.path.join(self.directory, "run", f"ceph-osd.{op['osd']}.asok"), "dump_ops_in_flight")
                same = [o for o in there["ops"] if f":{op['tid']} " in o["description"]] if there else "no answer"
                found.append((path, op, same))
        return found

    def logs(self):
        """The last lines of each daemon's log."""
        shown = []
        for path in sorted(glob.glob(os.path.join(self.directory, "log", "*"))):
            with open(path, errors="replace") as log:
                lines = log.readlines()[-LOG_LINES_SHOWN:]
            shown.append(f"--- {os.path.basename(path)}\n{''.join(lines)}")
        return "\n".join(shown)
