"""Random operations on RBD images, compared byte by byte with a model in memory; the seed is printed.

Writes, discards, zeroes, resizes, snapshots, rollbacks, clones and flattens on a family of images. At each
snapshot the whole image is compared, and what `diff_iterate` tells (by the object map, and exact) with what
changed; at the end every object map is checked by rbd itself. Usage: _image_model.py [SEED [STEPS]]
"""
import random
import subprocess
import sys
import time

import rados
import rbd

POOL = "model"
MIB = 1 << 20
SIZE = 12 * MIB
ORDER = 20
IMAGES_MAX = 3
SNAPS_MAX = 6
FEATURES = (rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK | rbd.RBD_FEATURE_OBJECT_MAP
            | rbd.RBD_FEATURE_FAST_DIFF | rbd.RBD_FEATURE_DEEP_FLATTEN)


def fail(what):
    sys.exit(f"FAILED: {what}")


def same(want, got, what):
    """Where two byte strings differ, rather than both."""
    if want == got:
        return
    if len(want) != len(got):
        fail(f"{what}: {len(got)} bytes instead of {len(want)}")
    at = [i for i in range(0, len(want), 512) if want[i:i + 512] != got[i:i + 512]]
    fail(f"{what}: {len(at)} sectors differ, the first at {at[0]}, the last at {at[-1]}")


class Model:
    """One image: its head and its snapshots, oldest first."""

    def __init__(self, name, head, parent=None):
        self.name, self.head, self.parent, self.snaps = name, bytearray(head), parent, {}
        # Snapshots (None: the head) before which a rollback was, and no snapshot between.
        self.rolled = set()

    def forget(self, snap):
        """Takes a snapshot away: what was before it is now before the next one."""
        names = [*self.snaps, None]
        if snap in self.rolled:
            self.rolled.add(names[names.index(snap) + 1])
        self.rolled.discard(snap)
        del self.snaps[snap]


class Run:
    def __init__(self, io, dice):
        self.io, self.dice, self.count, self.did = io, dice, 0, {}
        self.images = []

    def name(self, what):
        self.count += 1
        return f"{what}{self.count}"

    def begin(self):
        name = self.name("image")
        striped = {"stripe_unit": 65536, "stripe_count": 3} if self.dice.random() < 0.3 else {}
        rbd.RBD().create(self.io, name, SIZE, order=ORDER, old_format=False, features=FEATURES, **striped)
        self.images.append(Model(name, bytes(SIZE)))

    def range(self, model):
        """Mostly small, now and then some objects; half of them aligned as file systems do."""
        size = len(model.head)
        length = self.dice.choice([1, 512, 4096, 65536, MIB, 2 * MIB + 4096])
        length = min(size, self.dice.randint(1, length))
        offset = self.dice.randint(0, size - length)
        if self.dice.random() < 0.5:
            offset -= offset % 4096
        if self.dice.random() < 0.1:
            offset -= offset % MIB
        return offset, length

    def write(self, model, image):
        offset, length = self.range(model)
        data = self.dice.randbytes(length)
        same(length.to_bytes(8, "big"), image.write(data, offset).to_bytes(8, "big"), "bytes written")
        model.head[offset:offset + length] = data

    def discard(self, model, image):
        offset, length = self.range(model)
        image.discard(offset, length)
        model.head[offset:offset + length] = bytes(length)

    def zero(self, model, image):
        offset, length = self.range(model)
        thick = rbd.RBD_WRITE_ZEROES_FLAG_THICK_PROVISION if self.dice.random() < 0.3 else 0
        image.write_zeroes(offset, length, thick)
        model.head[offset:offset + length] = bytes(length)

    def read(self, model, image):
        offset, length = self.range(model)
        same(model.head[offset:offset + length], image.read(offset, length), f"read {model.name} {offset}~{length}")

    def resize(self, model, image):
        size = self.dice.randint(SIZE // 2, SIZE)
        image.resize(size)
        old = len(model.head)
        model.head = model.head[:size] + bytes(max(0, size - old))

    def snapshot(self, model, image):
        if len(model.snaps) == SNAPS_MAX:
            return self.remove(model, image)
        name, last = self.name("s"), next(reversed(model.snaps), None)
        image.create_snap(name)
        model.snaps[name] = bytes(model.head)
        if None in model.rolled:
            model.rolled.remove(None)
            model.rolled.add(name)
        self.compare(model, name, last)

    def remove(self, model, image):
        if model.snaps:
            name = self.dice.choice(list(model.snaps))
            image.remove_snap(name)
            model.forget(name)

    def rollback(self, model, image):
        if model.snaps:
            name = self.dice.choice(list(model.snaps))
            image.rollback_to_snap(name)
            model.head = bytearray(model.snaps[name])
            model.rolled.add(None)
            same(model.head, image.read(0, image.size()), f"{model.name} after rollback to {name}")

    def clone(self, model, _image):
        if not model.snaps:
            return
        if len(self.images) == IMAGES_MAX:
            self.drop(self.dice.choice(self.images[:-1]))
        if model.snaps and model in self.images:
            snap, name = self.dice.choice(list(model.snaps)), self.name("clone")
            rbd.RBD().clone(self.io, model.name, snap, self.io, name, features=FEATURES, order=ORDER)
            self.images.append(Model(name, model.snaps[snap], model.name))

    def flatten(self, model, image):
        if model.parent:
            image.flatten()
            model.parent = None
            self.compare(model, None, None)

    def drop(self, model):
        """Removes an image that no other stands on: flattens those first."""
        for child in self.images:
            if child.parent == model.name:
                with rbd.Image(self.io, child.name) as image:
                    self.flatten(child, image)
        with rbd.Image(self.io, model.name) as image:
            for name in list(model.snaps):
                image.remove_snap(name)
        rbd.RBD().remove(self.io, model.name)
        self.images.remove(model)

    def compare(self, model, snap, since):
        """The whole image at `snap` (its head without), and what changed since another one."""
        want = model.snaps[snap] if snap else bytes(model.head)
        before = model.snaps[since] if since else b""
        with rbd.Image(self.io, model.name, snapshot=snap, read_only=True) as image:
            same(want, image.read(0, image.size()), f"{model.name}@{snap}")
            # A rollback gives the head the object map of its snapshot, which says what had changed then.
            if snap not in model.rolled:
                self.diff(image, want, before, since, True, model)
            self.diff(image, want, before, since, False, model)

    def diff(self, image, want, before, since, whole, model):
        found = []
        image.diff_iterate(0, image.size(), since, lambda *extent: found.append(extent), True, whole)
        rest = bytearray(want)
        base = bytearray(before[:len(want)].ljust(len(want), b"\0"))
        for offset, length, exists in found:
            if not exists and any(want[offset:offset + length]):
                fail(f"{model.name}: {offset}~{length} exists, diff since {since} (whole {whole}) denies it")
            rest[offset:offset + length] = base[offset:offset + length] = bytes(len(rest[offset:offset + length]))
        same(base, rest, f"{model.name}: diff since {since} (whole {whole}) misses a change")

    def step(self):
        kinds = {self.write: 50, self.discard: 14, self.zero: 8, self.read: 8, self.resize: 2,
                 self.snapshot: 6, self.remove: 2, self.rollback: 2, self.clone: 2, self.flatten: 1}
        act = self.dice.choices(list(kinds), kinds.values())[0]
        model = self.dice.choice(self.images)
        with rbd.Image(self.io, model.name) as image:
            # Some with one opening; clones and removals close first.
            for _ in range(self.dice.randint(1, 12)):
                if act == self.clone:
                    break
                act(model, image)
                self.did[act.__name__] = self.did.get(act.__name__, 0) + 1
                act = self.dice.choices(list(kinds), kinds.values())[0]
        if act == self.clone:
            self.clone(model, None)
            self.did["clone"] = self.did.get("clone", 0) + 1

    def end(self):
        """All that is left, and the object maps by rbd's own check."""
        for model in self.images:
            last = None
            for snap in [*model.snaps, None]:
                self.compare(model, snap, last)
                spec = f"{POOL}/{model.name}" + (f"@{snap}" if snap else "")
                done = subprocess.run(["rbd", "object-map", "check", spec, "--no-progress"], capture_output=True, text=True)
                if done.returncode or "invalid" in done.stderr:
                    fail(f"object-map check {spec}: {done.returncode} {done.stderr}")
                last = snap
            with rbd.Image(self.io, model.name) as image:
                if image.flags():
                    fail(f"{model.name}: flags {image.flags()}")
        for model in reversed(list(self.images)):
            self.drop(model)
        left = [o.key for o in self.io.list_objects() if self.is_left(o.key)]
        if left:
            fail(f"objects of removed images: {left[:5]}")

    def is_left(self, name):
        """Ceph lists a deleted object until its snapshots have been trimmed; such a one has no size."""
        try:
            self.io.stat(name)
        except rados.ObjectNotFound:
            return False
        return name.startswith(("rbd_data", "rbd_header", "rbd_object_map"))


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(1 << 32)
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 1500
    print(f"seed {seed} steps {steps}", flush=True)
    began = time.monotonic()
    with rados.Rados(conffile="") as cluster:
        # By default librbd rounds discards to 64 KiB inwards: these shall do what they say.
        cluster.conf_set("rbd_skip_partial_discard", "false")
        cluster.conf_set("rbd_default_clone_format", "2")
        with cluster.open_ioctx(POOL) as io:
            run = Run(io, random.Random(seed))
            run.begin()
            while sum(run.did.values()) < steps:
                run.step()
                if len(run.images) < 2:
                    run.begin()
            run.end()
    print(" ".join(f"{k} {n}" for k, n in sorted(run.did.items())), f"in {time.monotonic() - began:.0f} s")


main()
