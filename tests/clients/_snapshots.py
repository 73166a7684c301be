"""Requests with self-managed snapshots, as a real Ceph answered them once: the file named as argument has them with
their results and what `rados listsnaps` showed after each. The cluster is that of CEPH_CONF."""
import json
import os
import subprocess
import sys
import time

import rados

POOL = "snapshots"


def list_snaps(name):
    command = ["rados", "-p", POOL, "listsnaps", name, "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout)["clones"] if done.returncode == 0 else None


class Script:
    """One object, and the snapshots made for it: the file numbers them from 1."""

    def __init__(self, io, title):
        self.io, self.title, self.ids, self.live = io, title, {}, []
        self.name = "snap-" + title.replace(" ", "-")

    def snapshots(self, clone):
        numbers = {id_: number for number, id_ in self.ids.items()}
        return [numbers[s if isinstance(s, int) else s["id"]] for s in clone["snapshots"]]

    def shown(self):
        clones = list_snaps(self.name)
        if clones is None:
            return "absent"
        out = []
        for clone in clones:
            if clone["id"] == "head":
                out.append("head %d" % clone["size"])
                continue
            number = {id_: number for number, id_ in self.ids.items()}[clone["id"]]
            snaps = " ".join(map(str, self.snapshots(clone)))
            overlap = " ".join("%d~%d" % (o["start"], o["length"]) for o in clone["overlaps"])
            out.append("%d [%s] %d (%s)" % (number, snaps, clone["size"], overlap))
        return "; ".join(out)

    def snap(self):
        self.ids[len(self.ids) + 1] = self.io.create_self_managed_snap()
        self.live.append(len(self.ids))

    def rmsnap(self, number, want):
        """Trimming takes its time."""
        self.io.remove_self_managed_snap(self.ids[number])
        self.live.remove(number)
        for _ in range(300):
            if self.shown() == want:
                break
            time.sleep(0.1)
        return 0

    def request(self, words):
        upto = len(self.ids)
        if words[0] == "at":
            upto, words = int(words[1]), words[2:]
        snaps = [self.ids[s] for s in self.live if s <= upto]
        self.io.set_self_managed_snap_write(sorted(snaps, reverse=True))
        if "+" in words:
            return self.compound(words)
        what, args, io, name = words[0], [int(w) for w in words[1:]], self.io, self.name
        try:
            if what == "write":
                io.write(name, b"w" * args[1], args[0])
            elif what == "full":
                io.write_full(name, b"f" * args[0])
            elif what == "append":
                io.append(name, b"a" * args[0])
            elif what == "trunc":
                io.trunc(name, args[0])
            elif what == "del":
                io.remove_object(name)
            elif what == "xattr":
                io.set_xattr(name, "x", b"y")
            elif what == "rollback":
                io.rollback_self_managed_snap(name, self.ids[args[0]])
            else:
                self.operate(what, args)
        except rados.Error as error:
            return -error.errno
        return 0

    def compound(self, words):
        """Several operations in one request."""
        try:
            with rados.WriteOpCtx() as op:
                for what, *args in (part.split() for part in " ".join(words).split(" + ")):
                    self.add(op, what, [int(w) for w in args])
                self.io.operate_write_op(op, self.name)
        except rados.Error as error:
            return -error.errno
        return 0

    def operate(self, what, args):
        with rados.WriteOpCtx() as op:
            self.add(op, what, args)
            self.io.operate_write_op(op, self.name)

    @staticmethod
    def add(op, what, args):
        if what == "write":
            op.write(b"w" * args[1], args[0])
        elif what == "full":
            op.write_full(b"f" * args[0])
        elif what == "append":
            op.append(b"a" * args[0])
        elif what == "trunc":
            op.truncate(args[0])
        elif what == "zero":
            # This binding takes length and offset for each other.
            op.zero(args[1], args[0])
        elif what == "create":
            op.new(0)
        elif what == "del":
            op.remove()
        elif what == "xattr":
            op.set_xattr("x", b"y")
        else:
            sys.exit("unknown request " + what)


def main():
    with rados.Rados(conffile=os.environ["CEPH_CONF"]) as cluster:
        if not cluster.pool_exists(POOL):
            cluster.create_pool(POOL)
        with cluster.open_ioctx(POOL) as io, open(sys.argv[1]) as recorded:
            script, lines = None, 0
            for line in recorded.read().splitlines():
                if line.startswith("//"):
                    continue
                if line.startswith("# "):
                    script = Script(io, line[2:])
                elif line == "snap":
                    script.snap()
                else:
                    request, _, answer = line.partition(" = ")
                    want, words = answer.split("; ", 1), request.split()
                    if words[0] == "rmsnap":
                        result = script.rmsnap(int(words[1]), want[1])
                    else:
                        result = script.request(words)
                    got = [str(result), script.shown()]
                    if got != want:
                        sys.exit(f"FAILED: {script.title}: {request}: expected {want}, got {got}")
                    lines += 1
        cluster.delete_pool(POOL)
        print(lines, "requests answered as recorded")


main()
