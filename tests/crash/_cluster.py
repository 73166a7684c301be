"""A cluster of `spirula vstart` in a directory that is killed and started again there."""
import os
import signal
import subprocess
import sys
import time

import rados

START_SECONDS_MAX = 30


class Cluster:
    def __init__(self, spirula, directory, procs):
        self.command = [spirula, "vstart", "--dir", directory, "--osds", "3"]
        if procs:
            self.command.append("--procs")
        self.conf = os.path.join(directory, "ceph.conf")
        self.log = open(os.path.join(directory, "..", "vstart.log"), "ab")
        self.process = None

    def start(self):
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
