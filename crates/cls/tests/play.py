"""Plays the files of `measured/` on a cluster: `play.py CONF POOL FILE...` says where it does something else.

A caller that a file names stands for a client here. A time of the file is as good as any time of now in its
place; between two times of one object the player waits. Calls that a file makes after `compat` are left out,
since that is an option of the cluster.
"""

import re
import struct
import subprocess
import sys
import time

import rados

OUTPUT_MAX = 1 << 20
WAIT_MAX = 5


def unhex(text):
    """Hexadecimal parts joined by `+`; `xx*n` is a byte n times."""
    parts = (part.split("*") for part in text.removeprefix("-").split("+"))
    return b"".join(bytes.fromhex(part[0]) * int(part[1] if len(part) > 1 else 1) for part in parts)


def key(text):
    return unhex(text[2:]) if text.startswith("0x") else text.encode()


def near(value, at, second):
    """Whether there is a `utime_t` near this second of the epoch."""
    sec, nsec = struct.unpack_from("<II", value, at)
    return abs(sec - second) < 600 and nsec < 10**9


def shown(number, address):
    """What a client looks like: `entity_name_t`, the end of its address from the nonce on, and both as text."""
    host, nonce = address.split("/")
    ip, port = host.split(":")
    family, port = struct.pack("<H", 2), struct.pack(">H", int(port))
    sockaddr = family + port + bytes(map(int, ip.split("."))) + bytes(8)
    name = struct.pack("<Bq", 8, int(number))
    addr = struct.pack("<II", int(nonce), len(sockaddr)) + sockaddr
    return name, addr, ("client.%s %s" % (number, address)).encode()


class Player:
    def __init__(self, conf, pool):
        self.conf, self.pool = conf, pool
        self.clients, self.watches = {}, {}
        self.calls = self.differences = self.objects = 0
        self.use("first")

    def use(self, who):
        if who not in self.clients:
            cluster = rados.Rados(conffile=self.conf)
            cluster.connect()
            self.clients[who] = cluster, cluster.open_ioctx(self.pool)
        self.ioctx = self.clients[who][1]

    def play(self, path):
        self.callers = {}
        self.expected = None
        with open(path) as lines:
            for number, line in enumerate(lines, 1):
                words = line.split()
                if not words or words[0].startswith("#"):
                    continue
                if line.startswith(" "):
                    if self.expected is not None:
                        self.outcome(words)
                    continue
                self.judge()
                self.at = "%s:%d" % (path, number)
                getattr(self, words[0])(*words[1:])
        self.judge()

    def object(self, *_title):
        for watch in self.watches.values():
            watch.close()
        self.watches, self.time = {}, None
        self.objects += 1
        self.name = "played.%d" % self.objects
        self.skipped = False
        self.remove()

    def remove(self):
        try:
            self.ioctx.remove_object(self.name)
        except rados.ObjectNotFound:
            pass

    def compat(self, _release):
        self.skipped = True

    def client(self, *who):
        """The first of a file is the one that calls anyway."""
        if who not in self.callers:
            name = len(self.callers) or "first"
            self.use(name)
            cluster = self.clients[name][0]
            live = shown(cluster.get_instance_id(), cluster.get_addrs())
            self.callers[who] = self.ioctx, list(zip(shown(*who), live))
        self.ioctx = self.callers[who][0]

    def now(self, text):
        if self.time is not None:
            time.sleep(min(max(float(text) - self.time, 0), WAIT_MAX))
        self.time = float(text)

    def translate(self, expected, live):
        for _, looks in self.callers.values():
            for recorded, own in looks:
                expected = expected.replace(recorded, own)
        if self.time is None or len(expected) != len(live):
            return expected
        now = time.time()
        for at in range(len(live) - 7):
            if near(expected, at, self.time) and near(live, at, now):
                expected = expected[:at] + live[at:at + 8] + expected[at + 8:]
        return expected

    def watch(self, *who):
        before = self.ioctx
        self.client(*who)
        self.watches[who] = self.ioctx.watch(self.name, lambda *_: None)
        self.ioctx = before

    def unwatch(self, *who):
        self.watches.pop(who).close()

    def set(self, kind, *words):
        if kind == "data":
            self.ioctx.write_full(self.name, unhex(words[0]))
        elif kind == "xattr":
            self.ioctx.set_xattr(self.name, words[0], unhex(words[1]))
        else:
            with rados.WriteOpCtx() as op:
                self.ioctx.set_omap(op, (key(words[0]).decode(),), (unhex(words[1]),))
                self.ioctx.operate_write_op(op, self.name)

    def call(self, cls, method, data):
        if self.skipped:
            return
        self.before = self.parts()
        self.calls += 1
        data = self.translate(unhex(data), b"")
        try:
            self.got = 0, self.ioctx.execute(self.name, cls, method, data, OUTPUT_MAX)[1]
        except rados.Error as error:
            self.got = -abs(error.errno), b""
        self.expected = dict(self.before)

    def outcome(self, words):
        kind, rest = words[0], words[1:]
        if kind == "=":
            result, output = min(int(rest[0]), 0), unhex(rest[1])
            expected = result, self.translate(output, self.got[1])
            self.compare("answer", expected, self.got)
        elif kind == "absent":
            self.expected.clear()
        elif kind == "gone":
            self.expected.pop((rest[0], key(rest[1])), None)
        else:
            part = (kind, key(rest[0]) if len(rest) > 1 else b"")
            self.expected[part] = unhex(rest[-1])

    def judge(self):
        if self.expected is None:
            return
        parts = self.parts()
        for part in sorted(self.expected.keys() | parts.keys()):
            expected, live = self.expected.get(part), parts.get(part)
            if expected is not None and live is not None:
                expected = self.translate(expected, live)
            self.compare(part, expected, live)
        self.expected = None

    def compare(self, what, expected, live):
        if expected != live:
            self.differences += 1
            print(self.at, what, "\n  file   ", expected, "\n  cluster", live)

    def parts(self):
        """What the object is made of; nothing if it is absent."""
        try:
            size, _ = self.ioctx.stat(self.name)
        except rados.ObjectNotFound:
            return {}
        parts = {("data", b""): self.ioctx.read(self.name, size) if size else b""}
        for name, value in self.ioctx.get_xattrs(self.name):
            parts["xattr", name.encode()] = value
        parts.update({("omap", name): value for name, value in self.entries().items()})
        return parts

    def entries(self):
        """The omap. The binding cuts keys at a NUL and then does not get past them."""
        entries, after = {}, ""
        while page := self.omap(after):
            if max(page) <= after:
                return self.dumped()
            entries.update({name.encode(): value or b"" for name, value in page.items()})
            after = max(page)
        return entries

    def dumped(self):
        command = ["rados", "-c", self.conf, "-p", self.pool, "listomapvals", self.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        dumps = re.findall(r"^(?:key|value) \(\d+ bytes\) ?:\n((?:[0-9a-f]{8}.*\n)*)", text, re.M)
        dumps = [bytes.fromhex("".join(line[8:60] for line in dump.splitlines())) for dump in dumps]
        return dict(zip(dumps[::2], dumps[1::2]))

    def omap(self, after):
        with rados.ReadOpCtx() as op:
            entries, _ = self.ioctx.get_omap_vals(op, after, "", 500)
            self.ioctx.operate_read_op(op, self.name)
            return dict(entries)


if __name__ == "__main__":
    player = Player(sys.argv[1], sys.argv[2])
    for path in sys.argv[3:]:
        player.play(path)
    print("%d calls, %d differences" % (player.calls, player.differences))
    sys.exit(player.differences > 0)
