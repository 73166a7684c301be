"""A cluster of `spirula vstart` in a directory that is killed and started again there."""
import json
import os
import signal
import subprocess
import sys
import time

import rados

START_SECONDS_MAX = 30


class Cluster:
    def __init__(self, spirula, directory, procs, size=1):
        self.command = [spirula, "vstart", "--dir", directory, "--osds", "3", "--size", str(size)]
        if procs:
            self.command.append("--procs")
        self.conf = os.path.join(directory, "ceph.conf")
        self.log = open(os.path.join(directory, "..", "vstart.log"), "ab")
        self.process = None
        # The map in which each OSD was last seen to come up.
        self.up_from = {}

    def start(self):
        """Starts all daemons; returns a client that knows where the OSDs of this start are. One that
        tries an address of those before waits for many seconds until it asks for a newer map."""
        client = self.connect()
        deadline = time.time() + START_SECONDS_MAX
        while time.time() < deadline:
            up_from = ups(client)
            if all(epoch > self.up_from.get(osd, 0) for osd, epoch in up_from.items()):
                self.up_from = up_from
                client.wait_for_latest_osdmap()
                return client
            time.sleep(0.02)
        sys.exit("not all OSDs are up after %d s" % START_SECONDS_MAX)

    def connect(self):
        self.process = subprocess.Popen(
            self.command, stdout=self.log, stderr=self.log, start_new_session=True)
        deadline = time.time() + START_SECONDS_MAX
        while time.time() < deadline:
            if self.process.poll() is not None:
                sys.exit("cluster ended at start: exit %s" % self.process.returncode)
            try:
                if os.path.exists(self.conf):
                    client = rados.Rados(conffile=self.conf, conf={"client_mount_timeout": "5"})
                    client.connect()
                    return client
            except rados.Error:
                time.sleep(0.05)
            time.sleep(0.02)
        sys.exit("cluster not reachable after %d s" % START_SECONDS_MAX)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def ups(client):
    """In which epoch each OSD came up; 0 of one that is down."""
    code, out, error = client.mon_command('{"prefix": "osd dump", "format": "json"}', b"")
    if code != 0:
        sys.exit("osd dump: %d %s" % (code, error))
    return {osd["osd"]: osd["up_from"] * osd["up"] for osd in json.loads(out)["osds"]}
