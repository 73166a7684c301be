"""python3-rbd as in its documentation: the same expectations on a real Ceph and on Spirula.

Usage: _python_rbd.py POOL (an empty one)
"""
import ctypes
import datetime
import sys
import time

import rados
import rbd

MIB = 1 << 20
RBD = rbd.RBD()


def expect(want, got, what):
    if want != got:
        sys.exit(f"FAILED: {what}: expected {want!r}, got {got!r}")


def raises(kind, what, action, *args, **named):
    try:
        action(*args, **named)
    except kind:
        return
    except Exception as other:  # pylint: disable=broad-except
        sys.exit(f"FAILED: {what}: {type(other).__name__} instead of {kind.__name__}: {other}")
    sys.exit(f"FAILED: {what}: no {kind.__name__}")


def diff(image, since, whole=False, parent=True):
    found = []
    image.diff_iterate(0, image.size(), since, lambda *extent: found.append(extent), parent, whole)
    return found


def pools_and_images(io):
    RBD.pool_init(io, True)
    RBD.create(io, "a", 8 * MIB, order=20, old_format=False)
    expect(["a"], RBD.list(io), "list")
    raises(rbd.ImageExists, "create twice", RBD.create, io, "a", MIB)
    raises(rbd.ImageNotFound, "an absent image", rbd.Image, io, "absent")
    RBD.rename(io, "a", "b")
    RBD.rename(io, "b", "a")
    with rbd.Image(io, "a") as a:
        stat = a.stat()
        expect((8 * MIB, MIB, 8, 20), (stat["size"], stat["obj_size"], stat["num_objs"], stat["order"]), "stat")
        expect(f"rbd_data.{a.id()}", stat["block_name_prefix"], "prefix")
        expect(False, a.old_format(), "format")
        expect([{"id": a.id(), "name": "a"}], list(RBD.list2(io)), "list2")
        want = ["layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"]
        expect(sorted(want), sorted(RBD.features_to_string(a.features()).split(",")), "features")
        age = datetime.datetime.utcnow() - a.create_timestamp()
        expect(True, abs(age.total_seconds()) < 60, "the time of creation")
        a.update_features(rbd.RBD_FEATURE_FAST_DIFF | rbd.RBD_FEATURE_OBJECT_MAP, False)
        a.update_features(rbd.RBD_FEATURE_OBJECT_MAP | rbd.RBD_FEATURE_FAST_DIFF, True)
        expect(rbd.RBD_FLAG_OBJECT_MAP_INVALID | rbd.RBD_FLAG_FAST_DIFF_INVALID, a.flags(), "flags of a new map")
        a.rebuild_object_map()
        expect(0, a.flags(), "flags of a rebuilt map")
    stats = RBD.pool_stats_get(io)
    expect((1, 8 * MIB), (stats["image_count"], stats["image_provisioned_bytes"]), "pool stats")
    RBD.pool_metadata_set(io, "k", "v")
    expect([("k", "v")], list(RBD.pool_metadata_list(io)), "pool metadata")
    RBD.pool_metadata_remove(io, "k")
    RBD.config_set(io, "rbd_cache", "false")
    expect("false", RBD.config_get(io, "rbd_cache"), "config of a pool")
    RBD.config_remove(io, "rbd_cache")
    raises(rbd.InvalidArgument, "options of no rbd", RBD.config_set, io, "osd_max_write_size", "1")


def data(io):
    with rbd.Image(io, "a") as a:
        expect(MIB, a.write(b"1" * MIB, 0), "bytes written")
        expect(10, a.write(b"0123456789", 3 * MIB - 5), "bytes written over a border")
        expect(b"0123456789", a.read(3 * MIB - 5, 10), "over a border")
        raises(rbd.InvalidArgument, "a write beyond the end", a.write, b"x", 8 * MIB)
        expect([(0, MIB, True), (2 * MIB, MIB, True), (3 * MIB, 5, True)], diff(a, None), "exact diff")
        expect([(0, MIB, True), (2 * MIB, MIB, True), (3 * MIB, MIB, True)], diff(a, None, True), "diff of objects")
        a.discard(0, MIB // 2)
        a.write_zeroes(MIB // 2, 4096)
        a.write_zeroes(MIB // 2 + 4096, 4096, rbd.RBD_WRITE_ZEROES_FLAG_THICK_PROVISION)
        expect(bytes(MIB // 2 + 8192) + b"1", a.read(0, MIB // 2 + 8193), "discarded and zeroed")
        done = []
        a.aio_write(b"async", 5 * MIB, lambda c: done.append(c.get_return_value())).wait_for_complete_and_cb()
        got = []
        a.aio_read(5 * MIB, 5, lambda c, d: got.append(d)).wait_for_complete_and_cb()
        a.aio_discard(5 * MIB, MIB, lambda c: done.append(c.get_return_value())).wait_for_complete_and_cb()
        a.aio_flush(lambda c: done.append(c.get_return_value())).wait_for_complete_and_cb()
        expect(([0, 0, 0], [b"async"]), (done, got), "asynchronous calls")
        expect(bytes(5), a.read(5 * MIB, 5), "discarded asynchronously")
        a.resize(12 * MIB)
        expect(12 * MIB, a.size(), "size")
        a.write(b"tail", 11 * MIB)
        a.resize(8 * MIB)
        a.resize(12 * MIB)
        expect(bytes(4), a.read(11 * MIB, 4), "shrunk and grown")
        a.resize(8 * MIB)
        a.flush()


def snapshots(io):
    with rbd.Image(io, "a") as a:
        a.create_snap("one")
        raises(rbd.ImageExists, "a snapshot twice", a.create_snap, "one")
        a.write(b"2" * MIB, 4 * MIB)
        a.discard(3 * MIB, MIB)
        expect([(3 * MIB, 5, False), (4 * MIB, MIB, True)], diff(a, "one"), "exact diff since")
        expect([(3 * MIB, MIB, False), (4 * MIB, MIB, True)], diff(a, "one", True), "diff of objects since")
        a.create_snap("two")
        expect(["one", "two"], [s["name"] for s in a.list_snaps()], "snapshots")
        expect(True, a.snap_exists("two") and not a.snap_exists("three"), "snap_exists")
        expect(a.snap_get_id("one"), next(iter(a.list_snaps()))["id"], "id")
        a.set_snap("one")
        expect(bytes(MIB), a.read(4 * MIB, MIB), "read at a snapshot")
        raises(rbd.ReadOnlyImage, "a write to a snapshot", a.write, b"x", 0)
        a.set_snap(None)
        a.rename_snap("two", "zwei")
        a.rollback_to_snap("one")
        expect((b"56789", bytes(MIB)), (a.read(3 * MIB, 5), a.read(4 * MIB, MIB)), "rolled back")
        a.protect_snap("one")
        expect(True, a.is_protected_snap("one"), "protected")
        raises(rbd.ImageBusy, "removal of a protected snapshot", a.remove_snap, "one")
        a.set_snap_limit(2)
        expect(2, a.get_snap_limit(), "limit")
        raises(rbd.DiskQuotaExceeded, "one more than the limit", a.create_snap, "three")
        a.remove_snap_limit()
        a.remove_snap("zwei")
        age = datetime.datetime.utcnow() - a.get_snap_timestamp(a.snap_get_id("one"))
        expect(True, abs(age.total_seconds()) < 120, "the time of a snapshot")


def clones(io):
    RBD.clone(io, "a", "one", io, "child", features=61)
    with rbd.Image(io, "a", snapshot="one") as a:
        expect([(POOL, "child")], list(a.list_children()), "children")
        expect(["child"], [c["image"] for c in a.list_descendants()], "descendants")
    with rbd.Image(io, "child") as child:
        expect((POOL, "a", "one"), child.parent_info(), "parent")
        expect(8 * MIB, child.overlap(), "overlap")
        child.write(b"c", 3 * MIB + 2)
        expect(b"56c89", child.read(3 * MIB, 5), "copied up")
        kept = child.read(0, 8 * MIB)
        own = diff(child, None, True, False)
        expect([(3 * MIB, MIB, True)], own, "what the clone has itself")
        child.flatten()
        raises(rbd.ImageNotFound, "the parent of a flattened image", child.parent_info)
        expect(True, kept == child.read(0, 8 * MIB), "flattened")
        child.sparsify(65536)
        expect(True, kept == child.read(0, 8 * MIB), "sparsified")
        child.copy(io, "copy")
        child.create_snap("s")
        child.deep_copy(io, "deep")
    for name, snaps in (("copy", []), ("deep", ["s"])):
        with rbd.Image(io, name) as image:
            expect((True, snaps), (kept == image.read(0, 8 * MIB), [s["name"] for s in image.list_snaps()]), name)
    with rbd.Image(io, "a") as a:
        a.unprotect_snap("one")
        a.remove_snap("one")
    with rbd.Image(io, "child") as child:
        child.remove_snap("s")
    with rbd.Image(io, "deep") as deep:
        deep.remove_snap("s")
    for name in ("child", "copy", "deep"):
        RBD.remove(io, name)


def locks_and_watchers(io, other):
    with rbd.Image(io, "a") as a, rbd.Image(other, "a") as b:
        a.lock_exclusive("cookie")
        raises(rbd.ImageExists, "the own lock again", a.lock_exclusive, "cookie")
        raises(rbd.ImageBusy, "another's lock", b.lock_exclusive, "cookie")
        held = b.list_lockers()
        expect((True, "", "cookie"), (held["exclusive"], held["tag"], held["lockers"][0][1]), "lockers")
        b.break_lock(held["lockers"][0][0], "cookie")
        b.lock_shared("c1", "tag")
        a.lock_shared("c2", "tag")
        expect(["c1", "c2"], sorted(cookie for _, cookie, _ in a.list_lockers()["lockers"]), "shared")
        a.unlock("c2")
        b.unlock("c1")
        expect(None, a.list_lockers() or None, "lockers at the end")
        expect(2, len(list(a.watchers_list())), "watchers")
        a.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        expect((True, False), (a.is_exclusive_lock_owner(), b.is_exclusive_lock_owner()), "owner")
        expect(1, len(list(b.lock_get_owners())), "owners")
        raises(rbd.ReadOnlyImage, "a write beside a kept lock", b.write, b"x", 0)
        a.lock_release()
        b.write(b"y", 0)
        b.flush()
        a.invalidate_cache()
        expect(b"y", a.read(0, 1), "what the other wrote")
    with rbd.Image(io, "a", read_only=True) as a:
        raises(rbd.ReadOnlyImage, "a write to a read-only image", a.write, b"x", 0)


def metadata(io):
    with rbd.Image(io, "a") as a:
        for key, value in (("one", "1"), ("two", "2" * 1000)):
            a.metadata_set(key, value)
        expect([("one", "1"), ("two", "2" * 1000)], list(a.metadata_list()), "metadata")
        expect("1", a.metadata_get("one"), "a value")
        a.metadata_remove("one")
        raises(KeyError, "an absent key", a.metadata_get, "one")
        a.config_set("rbd_cache", "false")
        expect("false", a.config_get("rbd_cache"), "config of an image")
        a.config_remove("rbd_cache")


def groups(io):
    RBD.group_create(io, "g")
    raises(rbd.ObjectExists, "a group twice", RBD.group_create, io, "g")
    RBD.group_rename(io, "g", "h")
    expect(["h"], RBD.group_list(io), "groups")
    group = rbd.Group(io, "h")
    RBD.create(io, "b", MIB)
    group.add_image(io, "a")
    group.add_image(io, "b")
    expect(["a", "b"], sorted(i["name"] for i in group.list_images()), "images of a group")
    with rbd.Image(io, "a") as a:
        a.write(b"kept", 0)
        expect("h", a.group()["name"], "group of an image")
    group.create_snap("gs")
    expect(["gs"], [s["name"] for s in group.list_snaps()], "snapshots of a group")
    with rbd.Image(io, "a") as a:
        a.write(b"gone", 0)
    group.rollback_to_snap("gs")
    with rbd.Image(io, "a") as a:
        expect(b"kept", a.read(0, 4), "a group rolled back")
        snap = next(iter(a.list_snaps()))
        expect(rbd.RBD_SNAP_NAMESPACE_TYPE_GROUP, a.snap_get_namespace_type(snap["id"]), "namespace")
        expect("gs", a.snap_get_group_namespace(snap["id"])["snap_name"], "name in the group")
    group.rename_snap("gs", "gt")
    group.remove_snap("gt")
    group.remove_image(io, "a")
    group.remove_image(io, "b")
    RBD.group_remove(io, "h")
    RBD.remove(io, "b")


def trash(io):
    RBD.create(io, "t", MIB)
    with rbd.Image(io, "t") as image:
        image_id = image.id()
        raises(rbd.ImageBusy, "removal of an image in use", RBD.remove, io, "t")
    RBD.trash_move(io, "t", 3600)
    expect([], [n for n in RBD.list(io) if n == "t"], "images")
    found = list(RBD.trash_list(io))
    expect([(image_id, "t", "USER")], [(t["id"], t["name"], t["source"]) for t in found], "trash")
    raises(rbd.PermissionError, "removal before its time", RBD.trash_remove, io, image_id)
    RBD.trash_restore(io, image_id, "u")
    RBD.trash_move(io, "u", 0)
    RBD.trash_remove(io, image_id)
    expect([], list(RBD.trash_list(io)), "trash at the end")
    raises(rbd.ImageNotFound, "what is not in the trash", RBD.trash_get, io, image_id)


def namespaces(io):
    RBD.namespace_create(io, "n")
    expect((["n"], True), (RBD.namespace_list(io), RBD.namespace_exists(io, "n")), "namespaces")
    io.set_namespace("n")
    RBD.create(io, "a", MIB)
    expect(["a"], RBD.list(io), "list in a namespace")
    with rbd.Image(io, "a") as a:
        a.write(b"other", 0)
    RBD.remove(io, "a")
    io.set_namespace("")
    RBD.namespace_remove(io, "n")


def mirroring(io):
    expect(rbd.RBD_MIRROR_MODE_DISABLED, RBD.mirror_mode_get(io), "mirror mode")
    expect([], list(RBD.mirror_peer_list(io)), "peers")
    with rbd.Image(io, "a") as a:
        info = a.mirror_image_get_info()
        expect(("", rbd.RBD_MIRROR_IMAGE_DISABLED), (info["global_id"], info["state"]), "info")
    RBD.mirror_mode_set(io, rbd.RBD_MIRROR_MODE_IMAGE)
    with rbd.Image(io, "a") as a:
        a.mirror_image_enable(rbd.RBD_MIRROR_IMAGE_MODE_SNAPSHOT)
        info = a.mirror_image_get_info()
        expect((True, rbd.RBD_MIRROR_IMAGE_ENABLED), (info["primary"], info["state"]), "info of a mirrored one")
        expect(rbd.RBD_MIRROR_IMAGE_MODE_SNAPSHOT, a.mirror_image_get_mode(), "mode")
        expect(36, len(info["global_id"]), "global id")
    RBD.mirror_site_name_set(CLUSTER, "here")
    expect("here", RBD.mirror_site_name_get(CLUSTER), "site name")
    with rbd.Image(io, "a") as a:
        a.mirror_image_disable(True)
    RBD.mirror_mode_set(io, rbd.RBD_MIRROR_MODE_DISABLED)


def compare_and_write():
    """Not in the binding: through the C library."""
    librados, librbd = ctypes.CDLL("librados.so.2"), ctypes.CDLL("librbd.so.1")
    cluster, io, image, at = (ctypes.c_void_p() for _ in range(4))
    expect(0, librados.rados_create(ctypes.byref(cluster), b"admin"), "rados_create")
    expect(0, librados.rados_conf_read_file(cluster, None), "rados_conf_read_file")
    expect(0, librados.rados_connect(cluster), "rados_connect")
    expect(0, librados.rados_ioctx_create(cluster, POOL.encode(), ctypes.byref(io)), "rados_ioctx_create")
    expect(0, librbd.rbd_open(io, b"a", ctypes.byref(image), None), "rbd_open")
    size, call = ctypes.c_size_t(512), librbd.rbd_compare_and_write
    call.restype = ctypes.c_ssize_t
    librbd.rbd_write.restype = ctypes.c_ssize_t
    old, new, where = b"o" * 512, b"n" * 512, ctypes.c_uint64(MIB)
    expect(512, librbd.rbd_write(image, where, size, old), "rbd_write")
    expect(512, call(image, where, size, old, new, ctypes.byref(at), 0), "compare and write")
    differs = old[:3] + b"?" + new[4:]
    expect(-84, call(image, where, size, differs, old, ctypes.byref(at), 0), "what differs")
    expect(MIB, at.value, "where it differs")
    buffer = ctypes.create_string_buffer(512)
    librbd.rbd_read.restype = ctypes.c_ssize_t
    expect(512, librbd.rbd_read(image, where, size, buffer), "rbd_read")
    expect(new, buffer.raw, "what was written last")
    librbd.rbd_close(image)
    librados.rados_ioctx_destroy(io)
    librados.rados_shutdown(cluster)


POOL = sys.argv[1]
CLUSTER = rados.Rados(conffile="")
CLUSTER.connect()
# Who breaks a lock has its owner blocklisted, unless told otherwise.
BREAKER = {"rbd_blocklist_on_break_lock": "false"}
with rados.Rados(conffile="", conf=BREAKER) as second, CLUSTER.open_ioctx(POOL) as ours, second.open_ioctx(POOL) as theirs:
    began = time.monotonic()
    pools_and_images(ours)
    data(ours)
    snapshots(ours)
    clones(ours)
    locks_and_watchers(ours, theirs)
    metadata(ours)
    groups(ours)
    trash(ours)
    namespaces(ours)
    mirroring(ours)
    compare_and_write()
    RBD.remove(ours, "a")
    expect([], RBD.list(ours), "images at the end")
    print(f"python3-rbd in {time.monotonic() - began:.1f} s")
CLUSTER.shutdown()
