"""Requests to full pools and OSDs: which are refused, which go through and which wait."""
import sys
import threading

from _ops import append, create, delete, omap_set, read, setxattr, truncate, write, write_full
from _raw import FULL_FORCE, FULL_TRY, Cluster

ENOSPC = -28
WAITS = "waits"
BOTH = FULL_TRY | FULL_FORCE

# In Ceph the last two columns of `failsafe` are of requests that are dropped; what does not grow may be served.
TABLES = {
    "full": [
        ("new 1", write_full("y"), FULL_TRY, ENOSPC), ("new 2", create(), FULL_TRY, ENOSPC),
        ("a", append("y"), FULL_TRY, ENOSPC), ("a", write(0, "y"), FULL_TRY, 0), ("a", setxattr("a", "1"), FULL_TRY, 0),
        ("a", omap_set(k="v"), FULL_TRY, 0), ("a", truncate(100), FULL_TRY, 0), ("a", delete(), FULL_TRY, 0),
        ("new 3", write_full("y"), FULL_FORCE, 0), ("new 4", create(), BOTH, 0), ("b", append("y"), FULL_FORCE, 0),
        ("b", setxattr("a", "1"), 0, 0), ("b", read(0, 1), 0, 0), ("b", delete(), FULL_FORCE, 0),
        ("new 5", write_full("y"), 0, WAITS)],
    "failsafe": [
        ("new 6", write_full("y"), FULL_TRY, ENOSPC), ("c", append("y"), FULL_TRY, ENOSPC),
        ("c", write(0, "y"), FULL_TRY, 0), ("c", setxattr("a", "1"), FULL_TRY, 0), ("new 7", write_full("y"), BOTH, 0),
        ("c", read(0, 1), 0, 0), ("c", delete(), FULL_TRY, 0), ("new 8", write_full("y"), FULL_FORCE, WAITS),
        ("d", setxattr("a", "1"), 0, WAITS), ("d", delete(), 0, WAITS)]}


def result(pool, oid, op, flags):
    """What it comes to; a request that waits does so until this process ends."""
    got = []
    thread = threading.Thread(target=lambda: got.append(pool.run(oid, [op], flags)[0]), daemon=True)
    thread.start()
    thread.join(2)
    return got[0] if got else WAITS


def main():
    pool = Cluster().connect().pool(sys.argv[1])
    for oid, op, flags, want in TABLES[sys.argv[2]]:
        got = result(pool, oid, op, flags)
        assert got == want, "%s: %r with flags %d: expected %s, got %s" % (oid, op, flags, want, got)


main()
sys.stdout.flush()
# Threads that wait in the library would keep it from ending.
import os  # noqa: E402
os._exit(0)
