"""What objects must hold: states, random operations with what each does to a state, snapshots.

A state is never changed: operations make new ones, and clones keep the old. An operation that returns the state
itself has no effect: it makes no clone.
"""
import collections
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients"))

import _ops as op
from _raw import Op

ENOENT, EEXIST = -2, -17
SIZE_MAX = 1 << 20
HISTORY_MAX = 400
KEYS = [f"key{i:02}" for i in range(40)]
ATTRS = [f"attr{i}" for i in range(6)]
State = collections.namedtuple("State", "data attrs omap header")
EMPTY = State(b"", {}, {}, b"")


class Object:
    """An object at its head and, by Ceph's rules for snapshot contexts, at its snapshots."""

    def __init__(self, name):
        self.name, self.head, self.seq = name, None, 0
        # Whether the OSD's sequence is the same: where it is not known, a stale context could do anything.
        self.sure = True
        # Oldest first: the snapshots that each holds, and its state.
        self.clones = []
        self.history = collections.deque(maxlen=HISTORY_MAX)
        self.busy = False

    def write(self, seq, snaps, changes):
        """Applies all changes or none; returns the result of the request."""
        state = self.head
        for change in changes:
            state, result = change(self, state)
            if result < 0:
                return result
        if state is self.head:
            self.sure = False
            return 0
        self.sure = True
        held = [s for s in snaps if s > self.seq]
        if self.head is not None and held:
            self.clones.append((held, self.head))
        self.seq = max(self.seq, seq)
        self.head = state
        return 0

    def at(self, snap):
        if snap is None or snap > self.seq:
            return self.head
        return next((state for snaps, state in self.clones if snap in snaps), None)

    def forget(self, live):
        self.clones = [c for c in self.clones if any(s in live for s in c[0])]


def put(data, offset, piece):
    return data[:offset].ljust(offset, b"\0") + piece + data[offset + len(piece):]


def always(change):
    """A change that creates an object where none is."""
    return lambda _, state: (change(state or EMPTY), 0)


def existing(change, absent=ENOENT):
    return lambda _, state: (change(state), 0) if state is not None else (None, absent)


def length(rng):
    return rng.choice((rng.randrange(1, 100), rng.randrange(1, 20_000), 4096 * rng.randrange(1, 16),
                       rng.randrange(1, 100_000)))


def offset(rng):
    return rng.choice((0, rng.randrange(1, 5000), 4096 * rng.randrange(60), rng.randrange(300_000)))


def write(rng):
    at, piece = offset(rng), rng.randbytes(length(rng))
    return (op.write(at, piece), always(lambda s: s._replace(data=put(s.data, at, piece))),
            f"write {at}~{len(piece)}")


def write_full(rng):
    # Not of nothing: Ceph forgets to create it where a deleted object still has clones.
    data = rng.randbytes(length(rng))
    return op.write_full(data), always(lambda s: s._replace(data=data)), f"write_full {len(data)}"


def writesame(rng):
    at, piece, times = offset(rng), rng.randbytes(rng.choice((1, 8, 512))), rng.randrange(1, 40)
    return (op.writesame(at, len(piece) * times, piece),
            always(lambda s: s._replace(data=put(s.data, at, piece * times))),
            f"writesame {at}~{len(piece) * times}")


def append(rng):
    piece = rng.randbytes(length(rng) // 4 + 1)
    return op.append(piece), always(lambda s: s._replace(data=s.data + piece)), f"append {len(piece)}"


def truncate(rng):
    size = offset(rng)
    return (op.truncate(size), existing(lambda s: s._replace(data=s.data[:size].ljust(size, b"\0")), 0),
            f"truncate {size}")


def zero(rng):
    at, n = offset(rng), length(rng)

    def change(state):
        if at >= len(state.data):
            return state
        if at + n >= len(state.data):
            # Zeros up to the end are a truncation.
            return state._replace(data=state.data[:at])
        return state._replace(data=put(state.data, at, bytes(n)))
    return op.zero(at, n), existing(change, 0), f"zero {at}~{n}"


def create(rng):
    exclusive = rng.random() < 0.5

    def change(_, state):
        return (state, EEXIST) if exclusive and state is not None else ((state or EMPTY)._replace(), 0)
    return op.create(exclusive), change, "create exclusive" if exclusive else "create"


def setxattr(rng):
    name, value = rng.choice(ATTRS), rng.randbytes(rng.randrange(300))
    return (op.setxattr(name, value), always(lambda s: s._replace(attrs={**s.attrs, name: value})),
            f"setxattr {name} {len(value)}")


def rmxattr(rng):
    name = rng.choice(ATTRS)
    return (op.rmxattr(name),
            existing(lambda s: s._replace(attrs={k: v for k, v in s.attrs.items() if k != name})),
            f"rmxattr {name}")


def omap_set(rng):
    items = {k: rng.randbytes(rng.choice((0, 10, 100, 2000))) for k in rng.sample(KEYS, rng.randrange(1, 8))}
    return (op.omap_set(**items), always(lambda s: s._replace(omap={**s.omap, **items})),
            f"omap_set {' '.join(items)}")


def omap_rm(rng):
    keys = rng.sample(KEYS, rng.randrange(1, 10))
    return (op.omap_rm(*keys),
            existing(lambda s: s._replace(omap={k: v for k, v in s.omap.items() if k not in keys})),
            f"omap_rm {' '.join(keys)}")


def omap_rm_range(rng):
    first, last = sorted(rng.sample(KEYS, 2))
    return (op.omap_rm_range(first, last),
            existing(lambda s: s._replace(omap={k: v for k, v in s.omap.items() if not first <= k < last})),
            f"omap_rm_range {first} {last}")


def omap_clear(_):
    def change(state):
        # Whether an empty omap is cleared depends on whether there has ever been one.
        return state._replace(omap={}, header=b"") if state.omap or state.header else state
    return op.omap_clear(), existing(change), "omap_clear"


def omap_header(rng):
    header = rng.randbytes(rng.randrange(500))
    return (op.omap_set_header(header), always(lambda s: s._replace(header=header)),
            f"omap_set_header {len(header)}")


def delete(_=None):
    return op.delete(), existing(lambda _: None), "delete"


def rollback(snap):
    def change(obj, state):
        to = obj.at(snap)
        # An object that was not changed since has nothing to go back to.
        return (state if snap > obj.seq else to and to._replace()), 0
    return Op(0x220e, struct.pack("<Q", snap)), change, f"rollback {snap}"


def copy_from(pool, source, snap):
    """Of an object that is not changed meanwhile."""
    state = source.at(snap)
    at = op.HEAD if snap is None else snap
    return (op.copy_from(source.name, op.locator(pool), snapid=at),
            lambda *_: (state, ENOENT if state is None else 0), f"copy_from {source.name}@{snap or 'head'}")


# Any of these may stand together in a request.
CHANGES = [write] * 8 + [write_full] * 3 + [append] * 3 + [truncate] * 2 + [zero] * 2 + [omap_set] * 3 + [
    writesame, create, setxattr, setxattr, rmxattr, omap_rm, omap_rm, omap_header]
# BlueStore does not see the keys that the same request has set.
ALONE = [omap_clear, omap_rm_range]
# Names of changes and reads that are not sent.
LEFT_OUT = set()


def changes(rng, obj):
    """A request of one change, or of some."""
    if obj.head is not None and len(obj.head.data) > SIZE_MAX:
        # An object that only grows would slow all the others down.
        return [write_full(rng)]
    if rng.random() < 0.05:
        return [rng.choice(ALONE)(rng)]
    some = [change for change in CHANGES if change.__name__ not in LEFT_OUT]
    return [rng.choice(some)(rng) for _ in range(rng.choice((1, 1, 1, 1, 2, 3)))]


def reads(rng, state, everything=False):
    """Operations with checks of their outputs: each check is true, or a text says what is wrong."""
    size = len(state.data) if state else 0
    at = 0 if everything or rng.random() < 0.5 else rng.randrange(size + 100)
    n = size + 1 if everything else rng.choice((size + 1, length(rng)))
    state = state or EMPTY
    want = state.data[at:at + n]
    rows = [
        (op.read(at, n), lambda out: same(want, out), f"read {at}~{n}"),
        (op.stat(), lambda out: same(size, struct.unpack_from("<Q", out)[0]), "stat"),
        (op.getxattrs(), lambda out: same(op.pairs(state.attrs), out), "getxattrs"),
        (op.omap_vals(), lambda out: same(op.pairs(state.omap) + b"\0", out), "omap_get_vals"),
        (op.omap_header(), lambda out: same(state.header, out), "omap_get_header"),
    ]
    if want:
        # Not beyond the end, where BlueStore may have zeros of a `zero` that went beyond it.
        rows.append((op.sparse_read(at, len(want)), lambda out: dense(want, out, at),
                     f"sparse_read {at}~{len(want)}"))
    rows = [row for row in rows if row[2].split()[0] not in LEFT_OUT]
    return rows if everything else rng.sample(rows, rng.randrange(1, 4))


def same(want, got):
    if want == got:
        return None
    if isinstance(want, bytes):
        first = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
        return (f"{len(got)} bytes instead of {len(want)}, different from byte {first}: "
                f"{got[first:first + 16].hex()} instead of {want[first:first + 16].hex()}")
    return f"{got!r} instead of {want!r}"


def dense(want, out, at):
    """The extents of a sparse read, with zeros between them."""
    count = struct.unpack_from("<I", out)[0]
    data, source = bytearray(len(want)), 4 + 16 * count + 4
    extents = list(struct.iter_unpack("<QQ", out[4:4 + 16 * count]))
    for start, n in extents:
        data[start - at:start - at + n] = out[source:source + n]
        source += n
    wrong = same(want, bytes(data))
    return wrong and f"{wrong}; {len(out)} bytes with extents {extents}"


def check_clones(obj, live, out):
    """The answer of list_snaps against the model; None where they agree."""
    clones, seq = decode_clones(out)
    if (obj.head is not None) != any(c[0] == op.HEAD for c in clones):
        return f"head is listed wrongly: {clones}"
    for snap in live:
        found = [size for cloneid, snaps, _, size in clones if snap in snaps and cloneid != op.HEAD]
        state = obj.at(snap)
        if snap > seq:
            want = []
        else:
            want = [] if state is None else [len(state.data)]
        if found != want:
            return f"sizes of clones that hold {snap}: {found} instead of {want}: {clones}"
    return check_overlaps(obj, live, clones)


def check_overlaps(obj, live, clones):
    """What is listed as shared by a clone with the next younger one must be equal in both."""
    states = []
    for cloneid, snaps, _, _ in clones:
        known = [s for s in snaps if s in live]
        states.append(obj.head if cloneid == op.HEAD else obj.at(known[0]) if known else None)
    for i, (cloneid, _, overlap, _) in enumerate(clones[:-1]):
        old, new = states[i], states[i + 1]
        if cloneid == op.HEAD or old is None or new is None:
            continue
        for start, n in overlap:
            if old.data[start:start + n] != new.data[start:start + n]:
                return f"overlap {start}~{n} of clone {cloneid} differs: {clones}"
    return None


def decode_clones(out):
    """Clones (id, snapshots, overlap, size) and the sequence of `obj_list_snap_response_t`."""
    at = 6

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, out, at)
        at += struct.calcsize("<" + form)
        return values

    clones = []
    for _ in range(take("I")[0]):
        take("BBI")
        cloneid, count = take("QI")
        snaps = take(f"{count}Q")
        flat = take(f"{2 * take('I')[0]}Q")
        clones.append((cloneid, snaps, list(zip(flat[::2], flat[1::2])), take("Q")[0]))
    return clones, take("Q")[0]
