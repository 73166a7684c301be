"""Runs a table of operations with their results against the cluster of CEPH_CONF.

A row is a request: its operations, the result of the whole, and what each operation is expected to give:
bytes (its output; it succeeds), a number (its result), both as a pair, or `...` (whatever). The
expectations are those of a 16.2 OSD. With arguments, only cases whose name contains one of them run.
"""
import ctypes
import json
import struct
import sys
import time

from _raw import (BALANCE_READS, FAILOK, FULL_FORCE, FULL_TRY, IGNORE_REDIRECT, LIB, LOCALIZE_READS,
                  ORDER_READS_WRITES, RETURNVEC, SKIPRWLOCKS, Cluster, Op, write_request)
from _ops import *

EPERM, ENOENT, EIO, EBUSY, EEXIST, EINVAL, EFBIG, ERANGE, ENAMETOOLONG = -1, -2, -5, -16, -17, -22, -27, -34, -36
ENOLINK, ENODATA, EOVERFLOW, EMSGSIZE, EOPNOTSUPP, ESHUTDOWN, EDQUOT, ECANCELED = -67, -61, -75, -90, -95, -108, -122, -125
MISMATCH = -4095
MAX_OBJECT = 128 << 20
CASES = {}
FAILURES = []


def case(name):
    def add(rows):
        CASES[name] = rows
        return rows
    return add


def row(ops, result=0, *expected, oid="a", flags=0):
    return (oid, ops if isinstance(ops, list) else [ops], result, expected, flags)


def table(name, *rows):
    CASES[name] = list(rows)


def le(fmt, *values):
    return struct.pack("<" + fmt, *values)


def size(n):
    """What STAT answers: requests of this test carry no time."""
    return le("QQ", n, 0)


def extents(*runs, data=None):
    out = le("I", len(runs)) + b"".join(le("QQ", *run) for run in runs)
    return out if data is None else out + blob(data)


def keys(*names, more=0):
    return blobs(names) + bytes([more])


def values(more=0, **items):
    return pairs(items) + bytes([more])


HELLO = row(write_full("hello"))
GONE = row(read(), ENOENT)

table(
    "read", HELLO,
    row(read(), 0, b"hello"),
    row(read(1, 3), 0, b"ell"),
    row(read(1, 0), 0, b"ello"),
    row(read(3, 100), 0, b"lo"),
    row(read(5, 1), 0, b""),
    row(read(1 << 50, 1), 0, b""),
    row([read(0, 2), sync_read(2, 2), stat()], 0, b"he", b"ll", size(5)),
    row(read(0, 9, truncate_size=2, truncate_seq=1), 0, b"he"),
    row(read(0, 1), 0, b"h", flags=BALANCE_READS),
    row(read(0, 1), 0, b"h", flags=LOCALIZE_READS),
    row(read(0, 1), 0, b"h", flags=ORDER_READS_WRITES),
    row(read(), ENOENT, 0, oid="none"),
    row([stat() | FAILOK], ENOENT, 0, oid="none"))

table(
    "sparse read", row(write(0, "x" * 4096)), row(write(65536 * 2, "y" * 4096)),
    row(sparse_read(0, 4096), 0, extents((0, 4096), data="x" * 4096)),
    row(sparse_read(0, 10), 0, extents((0, 10), data="x" * 10)),
    row(sparse_read(0, 1 << 20), 0, extents((0, 4096), (131072, 4096), data="x" * 4096 + "y" * 4096)),
    row(sparse_read(8192, 4096), 0, extents(data="")),
    row(sparse_read(1 << 30, 4096), 0, extents(data="")),
    row(sparse_read(0, 1, truncate_seq=1), EINVAL, EINVAL),
    row(mapext(0, 1 << 20), 0, extents((0, 4096), (131072, 4096))),
    row(mapext(100, 10), 0, extents((100, 10))),
    row(sparse_read(0, 1), ENOENT, oid="none"),
    row(mapext(0, 1), ENOENT, oid="none"))

table(
    "write", row(write(0, "hello")), row(stat(), 0, size(5)),
    row(write(1, "ipp")), row(read(), 0, b"hippo"),
    row(write(7, "!")), row(read(), 0, b"hippo\0\0!"),
    row(Op(0x2201, extent(0, 3), b"ab"), EINVAL, EINVAL),
    row(Op(0x2202, extent(0, 3), b"ab"), EINVAL, EINVAL),
    row(Op(0x2206, extent(0, 3), b"ab"), EINVAL, EINVAL),
    row(write(MAX_OBJECT, "x"), EFBIG, EFBIG),
    row(write(MAX_OBJECT - 1, "xy"), EFBIG, EFBIG),
    row(write(1 << 60, "x"), EFBIG, EFBIG),
    row(read(), 0, b"hippo\0\0!"),
    row(write_full("short")), row(read(), 0, b"short"),
    row(append("er")), row(append("")), row(read(), 0, b"shorter"),
    row(write(3, "", truncate_size=0), 0), row(read(), 0, b"shorter"),
    row(write(9, ""), 0), row(read(), 0, b"shorter\0\0"),
    row(write(0, ""), 0, oid="new"), row(stat(), 0, size(0), oid="new"))

table(
    "truncate", HELLO,
    row(truncate(2)), row(read(), 0, b"he"),
    row(truncate(4)), row(read(), 0, b"he\0\0"),
    row(truncate(MAX_OBJECT + 1), EFBIG, EFBIG),
    row(truncate(3, truncate_size=3, truncate_seq=2)), row(stat(), 0, size(3)),
    row(truncate(1, truncate_size=1, truncate_seq=2)), row(stat(), 0, size(3)),
    row(trimtrunc(1, 3)), row(stat(), 0, size(1)),
    row(truncate(1), 0, 0, oid="none"), row(stat(), ENOENT, oid="none"))

table(
    "zero", HELLO,
    row(zero(1, 2)), row(read(), 0, b"h\0\0lo"),
    row(zero(3, 10)), row(read(), 0, b"h\0\0"),
    row(zero(3, 10)), row(stat(), 0, size(3)),
    row(zero(100, 10)), row(stat(), 0, size(3)),
    row(zero(MAX_OBJECT, 1), EFBIG, EFBIG),
    row(zero(0, 1), 0, 0, oid="none"), row(stat(), ENOENT, oid="none"))

table(
    "writesame",
    row(writesame(2, 6, "abc")), row(read(), 0, b"\0\0abcabc"),
    row(writesame(0, 0, "abc")),
    row(writesame(0, 4, "abc"), EINVAL, EINVAL),
    row(writesame(0, 4, ""), EINVAL, EINVAL),
    row(Op(0x2226, le("QQQ", 0, 4, 4), b"ab"), EINVAL, EINVAL),
    row(writesame(MAX_OBJECT, 2, "ab"), EFBIG, EFBIG))

table(
    "create and delete",
    row(create(exclusive=True)), row(stat(), 0, size(0)),
    row(create(exclusive=True), EEXIST, EEXIST), row(create()),
    row(delete()), row(delete(), ENOENT, ENOENT), GONE,
    row([write_full("x"), delete()]), GONE,
    row([delete() | FAILOK, create(exclusive=True), write_full("y")]), row(read(), 0, b"y"),
    row([setxattr("a", "1"), delete(), write_full("z")]), row([read(), getxattrs()], 0, b"z", pairs({})),
    row([delete(), delete()], ENOENT, 0, ENOENT), row(read(), 0, b"z"),
    row([write_full("q"), delete() | FAILOK, delete() | FAILOK]), GONE,
    row(create(category=blob("cat"))), row(create(category=b"\x09\0\0\0x"), EINVAL, EINVAL))

table(
    "compare extents", HELLO,
    row(cmpext(0, "hello")), row(cmpext(1, "el")),
    row(cmpext(0, "jello"), MISMATCH, MISMATCH),
    row(cmpext(0, "help!"), MISMATCH - 3, MISMATCH - 3),
    row(cmpext(3, "lo\0\0")), row(cmpext(3, "lo!"), MISMATCH - 2, MISMATCH - 2),
    row(cmpext(100, "\0\0")), row(cmpext(100, "x"), MISMATCH, MISMATCH),
    row([cmpext(0, "hello"), write(0, "j")], 0, 0, 0),
    row([cmpext(0, "hello"), write(0, "m")], MISMATCH, MISMATCH, 0),
    row([cmpext(0, "hello") | FAILOK, write(1, "E")], 0, MISMATCH, 0),
    row(read(), 0, b"jEllo"),
    row(cmpext(0, "x"), ENOENT, oid="none"),
    row([cmpext(0, "\0"), write(0, "n")], 0, 0, 0, oid="none"), row(read(), 0, b"n", oid="none"))

table(
    "checksum", row(write_full("123456789")),
    row(checksum(CRC32C, 0, 9, 0, le("I", 0xffffffff)), 0, le("II", 1, 0x1cf96d7c)),
    row(checksum(CRC32C, 0, 0, 0, le("I", 0xffffffff)), 0, le("II", 1, 0x1cf96d7c)),
    row(checksum(CRC32C, 0, 9, 3, le("I", 0)), 0, ...),
    row(checksum(XXHASH32, 0, 9, 0, le("I", 0)), 0, le("II", 1, 0x937bad67)),
    row(checksum(XXHASH64, 0, 9, 0, le("Q", 0)), 0, le("IQ", 1, 0x8cb841db40e6ae83)),
    row(checksum(XXHASH64, 0, 9, 0, le("I", 0)), EINVAL, EINVAL),
    row(checksum(CRC32C, 0, 9, 2, le("I", 0)), EINVAL, EINVAL),
    row(checksum(CRC32C, 0, 0, 3, le("I", 0)), EINVAL, EINVAL),
    row(checksum(CRC32C, 1, 9, 0, le("I", 0)), 0, b"\1\0\0\0\x09\x98\xc1\x33"),
    row(checksum(CRC32C, 1, 9, 3, le("I", 0)), EINVAL, EINVAL),
    row(checksum(CRC32C, 3, 9, 3, le("I", 0)), 0, b"\2\0\0\0\xf5\x67\x1c\x04\xb1\xa1\x1d\x70"),
    row(checksum(CRC32C, 9, 1, 0, le("I", 0)), 0, b""),
    row(checksum(CRC32C, 90, 10, 10, le("I", 0)), 0, b""),
    row(checksum(9, 0, 9, 0, le("I", 0)), EINVAL, EINVAL),
    row(checksum(CRC32C, 0, 9, 0, le("I", 0)), ENOENT, oid="none"))

table(
    "xattrs", row([setxattr("b", "2"), setxattr("a", b"\0\xff"), setxattr("empty", "")]),
    row(getxattr("a"), 0, b"\0\xff"), row(getxattr("empty"), 0, b""),
    row(getxattr("c"), ENODATA, ENODATA),
    row(getxattrs(), 0, pairs({"a": b"\0\xff", "b": "2", "empty": ""})),
    row([setxattr("a", "new"), getxattr("a")], 0, 0, b""),
    row(rmxattr("c")), row(rmxattr("b")), row(getxattr("b"), ENODATA, ENODATA),
    row(setxattr("n" * 100, "v")), row(setxattr("n" * 101, "v"), ENAMETOOLONG, ENAMETOOLONG),
    row(getxattr("a"), ENOENT, oid="none"), row(getxattrs(), ENOENT, oid="none"),
    row(rmxattr("a"), ENOENT, ENOENT, oid="none"),
    row(setxattr("big", "x" * 65536)), row(getxattr("big"), 0, b"x" * 65536),
    row(bare(0x2302), EOPNOTSUPP, EOPNOTSUPP), row(bare(0x2303), EOPNOTSUPP, EOPNOTSUPP))

table(
    "compare xattrs", row([setxattr("s", "mm"), setxattr("n", "100")]),
    *[row(cmpxattr("s", op, value), 1 if holds else ECANCELED, 1 if holds else ECANCELED)
      for op, wanted in ((EQ, "mm"), (NE, "az"), (GT, "z"), (GTE, "mz"), (LT, "a"), (LTE, "am"))
      for value, holds in [("a" * 2, "a" in wanted), ("mm", "m" in wanted), ("zz", "z" in wanted)]],
    *[row(cmpxattr("n", op, value), 1 if value in wanted else ECANCELED, 1 if value in wanted else ECANCELED)
      for op, wanted in ((EQ, [100]), (NE, [9, 1000]), (GT, [1000]), (GTE, [100, 1000]), (LT, [9]), (LTE, [9, 100]))
      for value in (9, 100, 1000)],
    row(cmpxattr("none", EQ, ""), 1, 1), row(cmpxattr("none", EQ, 0), 1, 1),
    row(cmpxattr("s", 7, "x"), EINVAL, EINVAL), row(xattr(0x1303, "s", "x", EQ, 3), EINVAL, EINVAL),
    row(xattr(0x1303, "n", "x", EQ, U64), EINVAL, EINVAL),
    row([cmpxattr("s", EQ, "mm"), write_full("yes")], 0, 1, 0),
    row([cmpxattr("s", EQ, "no"), write_full("no")], ECANCELED, ECANCELED, 0),
    row(read(), 0, b"yes"),
    row(cmpxattr("s", EQ, "x"), ENOENT, oid="none"))

table(
    "omap", row([omap_set(b="2", a="1", c=""), omap_set_header("head")]),
    row(omap_keys(), 0, keys("a", "b", "c")), row(omap_keys("a"), 0, keys("b", "c")),
    row(omap_keys("", 2), 0, keys("a", "b", more=1)), row(omap_keys("", 3), 0, keys("a", "b", "c")),
    row(omap_keys("", 0), 0, keys(more=1)),
    row(omap_vals(), 0, values(a="1", b="2", c="")), row(omap_vals("", 1), 0, values(1, a="1")),
    row(omap_vals("", 9, "b"), 0, values(b="2")), row(omap_vals("b", 9, "b"), 0, values()),
    row(omap_vals("a", 9, "b"), 0, values(b="2")), row(omap_vals("", 9, "zz"), 0, values()),
    row(omap_vals_by_keys("c", "x", "a"), 0, pairs({"a": "1", "c": ""})),
    row(omap_header(), 0, b"head"),
    row([omap_set(d="4"), omap_keys("c"), omap_rm("a")], 0, 0, b"", 0),
    row(omap_keys(), 0, keys("b", "c", "d")),
    row(omap_rm("none")), row(omap_rm_range("c", "d")), row(omap_keys(), 0, keys("b", "d")),
    row(omap_rm_range("d", "b")), row(omap_keys(), 0, keys("b", "d")),
    row(omap_clear()), row([omap_keys(), omap_header()], 0, keys(), b""),
    row(omap_clear()), row(omap_set(x="1")), row(omap_keys(), 0, keys("x")),
    row(bare(0x1211), EINVAL, EINVAL), row(bare(0x1212), EINVAL, EINVAL), row(bare(0x1214), EINVAL, EINVAL),
    row(bare(0x2215), EINVAL, EINVAL), row(bare(0x2218), EINVAL, EINVAL), row(bare(0x222c), EINVAL, EINVAL),
    row(omap_keys(), ENOENT, oid="none"), row(omap_clear(), ENOENT, ENOENT, oid="none"),
    row(omap_rm("k"), ENOENT, ENOENT, oid="none"), row(omap_rm_range("a", "b"), ENOENT, ENOENT, oid="none"),
    row(write_full("x"), oid="plain"),
    row([omap_keys(), omap_vals(), omap_header(), omap_vals_by_keys("a")], 0, keys(), values(), b"", pairs({}),
        oid="plain"))

table(
    "compare omap", row(omap_set(a="1", b="2")),
    row(omap_cmp(a=(EQ, "1"), b=(EQ, "2"))), row(omap_cmp(a=(EQ, "2")), ECANCELED, ECANCELED),
    row(omap_cmp(a=(LT, "2"))), row(omap_cmp(a=(GT, "0"))), row(omap_cmp(a=(GT, "1")), ECANCELED, ECANCELED),
    row(omap_cmp(none=(EQ, ""))), row(omap_cmp(none=(EQ, "x")), ECANCELED, ECANCELED),
    row(omap_cmp(a=(NE, "2")), EINVAL, EINVAL), row(omap_cmp(a=(9, "2")), EINVAL, EINVAL),
    row([omap_cmp(a=(EQ, "1")), omap_rm("a")]), row(omap_keys(), 0, keys("b")),
    row(bare(0x1219), EINVAL, EINVAL),
    row(omap_cmp(a=(EQ, "1")), ENOENT, oid="none"))

table(
    "many omap keys",
    row(omap_set(**{"k%04d" % i: "v" for i in range(1500)})),
    row(omap_keys("", 5000), 0, keys(*["k%04d" % i for i in range(1024)], more=1)),
    row(omap_keys("k1023", 5000), 0, keys(*["k%04d" % i for i in range(1024, 1500)])),
    row(omap_vals("k1490", 5), 0, values(1, **{"k%04d" % i: "v" for i in range(1491, 1496)})))

table(
    "compound", HELLO,
    row([write(0, "J"), create(exclusive=True)], EEXIST, 0, EEXIST), row(read(), 0, b"hello"),
    row([create(exclusive=True) | FAILOK, write(0, "J")], 0, EEXIST, 0), row(read(), 0, b"Jello"),
    row([write(0, "C"), read(0, 1)], 0, 0, b""), row(read(0, 1), 0, b"C"),
    row([read(0, 1), write(0, "D")], 0, b"C", 0, flags=RETURNVEC), row(read(0, 1), 0, b"D"),
    row([read(), read(), stat()], 0, b"Dello", b"Dello", size(5)),
    row([getxattr("none"), read()], ENODATA, ENODATA, (0, b"")),
    row([getxattr("none") | FAILOK, read()], 0, ENODATA, b"Dello"),
    row([write_full("y" * 65)]), row([read(), write(0, "z")], EOVERFLOW, EOVERFLOW, 0, flags=RETURNVEC),
    row(read(0, 1), 0, b"y"),
    row(bare(0x1299), EOPNOTSUPP, EOPNOTSUPP), row(bare(0x2299), EOPNOTSUPP, EOPNOTSUPP),
    row(bare(0x1204), EOPNOTSUPP, EOPNOTSUPP), row(bare(0x2208), EOPNOTSUPP, EOPNOTSUPP),
    row(bare(0x2207)), row(bare(0x120a), EINVAL), row(set_alloc_hint(1 << 20, 4096), 0, oid="hint"),
    row(stat(), 0, size(0), oid="hint"))

table(
    "cache tiers and manifests", HELLO,
    row(bare(0x121d), 0, b"\1"), row(bare(0x221c)), row(bare(0x121d), 0, b"\0"),
    row(read(), 0, b"hello"), row(bare(0x221c)),
    row([bare(0x221c), setxattr("a", "1")]), row(bare(0x121d), 0, b"\1"),
    row([bare(0x221c), bare(0x121d)], 0, 0, b"\1", flags=RETURNVEC), row(bare(0x121d), 0, b"\0"),
    row(bare(0x121d), ENOENT, oid="none"), row(bare(0x221c), 0, oid="none"),
    *[row(bare(code), result, oid=oid) for oid in ("a", "none") for code, result in
      ((0x821f, EINVAL), (0x8220, EINVAL), (0x8221, EINVAL), (0x2224, EINVAL), (0x2225, EINVAL))],
    row(bare(0x8221), EINVAL, flags=SKIPRWLOCKS), row(bare(0x821f), EINVAL, flags=SKIPRWLOCKS),
    *[row(bare(code), ENOENT, ENOENT, oid="none")
      for code in (0x2227, 0x8228, 0x2229, 0x222a, 0x822b, 0x822c)],
    row(bare(0x2227), EINVAL, EINVAL), row(bare(0x8228), EINVAL, EINVAL), row(bare(0x2229)),
    row(bare(0x222a), EOPNOTSUPP, EOPNOTSUPP), row(bare(0x822b)), row(bare(0x822c), EINVAL, EINVAL),
    row(read(), 0, b"hello"))


def tmap(*commands):
    return b"".join(c.encode() + blob(k) + b"".join(blob(v) for v in rest) for c, k, *rest in commands)


table(
    "trivial maps",
    row(bare(0x320a, b"", tmap(("r", "k"))), ENOENT, ENOENT), row(bare(0x320a)), row(stat(), ENOENT),
    row(bare(0x320a, b"", tmap(("h", "head"), ("s", "k", "1"), ("c", "l", "2")))),
    row(bare(0x120c), 0, blob("head") + pairs({"k": "1", "l": "2"})),
    row(bare(0x320a, b"", tmap(("c", "l", "2"))), EEXIST, EEXIST),
    row(bare(0x320a, b"", tmap(("?", "l"))), EINVAL, EINVAL),
    row(bare(0x320a, b"", tmap(("R", "none"), ("s", "a", "0"), ("r", "k")))),
    row(bare(0x120c), 0, blob("head") + pairs({"a": "0", "l": "2"})),
    row(bare(0x3222)), row([stat(), omap_vals(), omap_header()], 0, size(0), values(a="0", l="2"), b"head"),
    row(bare(0x3222), ENODATA, ENODATA), row(bare(0x3222, b"\1")), row(bare(0x3222), ENODATA, ENODATA, oid="none"),
    row(bare(0x220b, b"", blob("h") + pairs({"x": "1"}))), row(read(), 0, blob("h") + pairs({"x": "1"})),
    row(write_full("junk")), row(bare(0x3222), EINVAL, EINVAL), row(bare(0x120c), 0, b"junk"))

table(
    "classes",
    row(call("hello.say_hello", b"you"), ENOENT, oid="none"),
    row(call("hello.record_hello", b"you")), row(read(), 0, b"Hello, you!"),
    row(call("hello.record_hello", b"you"), EEXIST, EEXIST),
    row(call("hello.say_hello"), 0, b"Hello, world!"),
    row(call("hello.say_hello", b"y" * 101), EINVAL, EINVAL),
    row(call("hello.replay"), 0, b"Hello, you!"),
    row(call("hello.turn_it_to_11")), row(call("hello.replay"), 0, b"HELLO, YOU!"),
    row(call("hello.bad_reader"), EIO, EIO), row(call("hello.bad_writer"), EIO, EIO),
    row(call("hello.none"), EOPNOTSUPP), row(call("none.none"), EPERM),
    row(call("hello.writes_dont_return_data"), 0, (42, b""), oid="w"),
    row(call("hello.writes_dont_return_data"), 42, (42, b"you might see this"), oid="w", flags=RETURNVEC),
    row(getxattrs(), 0, pairs({"foo": "bar"}), oid="w"),
    row(call("hello.write_return_data"), 42, (42, b"you might see this"), oid="w", flags=RETURNVEC),
    row(call("hello.write_too_much_return_data"), 0, (42, b""), oid="w"),
    row(call("hello.write_too_much_return_data"), EOVERFLOW, EOVERFLOW, oid="w", flags=RETURNVEC),
    row([setxattr("k", "v"), call("hello.record_hello")], EEXIST, 0, EEXIST), row(getxattr("k"), ENODATA),
    row([call("hello.record_hello") | FAILOK, setxattr("k", "v")], 0, EEXIST, 0), row(getxattr("k"), 0, b"v"),
    row([call("hello.say_hello", b"a"), read(0, 5), call("hello.say_hello", b"b")], 0, b"Hello, a!", b"HELLO",
        b"Hello, b!"))

CREATED = "n" * 2048
table(
    "limits",
    row(write_full("x"), oid=CREATED), row(read(), 0, b"x", oid=CREATED), row(delete(), oid=CREATED),
    row(write_full("x"), ENAMETOOLONG, oid="n" * 2049), row(read(), ENAMETOOLONG, oid="n" * 2049))


def check(name, at, got, want):
    if got != want:
        FAILURES.append(name)
        print("%s: %s\n  expected %.300r\n  got      %.300r" % (name, at, want, got))


def run_row(pool, name, index, item):
    oid, ops, result, expected, flags = item
    got, outputs, _ = pool.run(oid if len(oid) > 1000 else "%s %s" % (name, oid), ops, flags)
    at = "request %d %r" % (index, ops)
    check(name, at, got, result)
    for i, want in enumerate(expected):
        rval, out = outputs[i]
        if want is ...:
            continue
        if isinstance(want, tuple):
            check(name, "%s, operation %d" % (at, i), (rval, out), want)
        elif isinstance(want, int):
            check(name, "%s, result %d" % (at, i), rval, want)
        else:
            check(name, "%s, output %d" % (at, i), (rval, out), (0, want))


def do(pool, oid, *ops, flags=0):
    """Runs what is to succeed; the outputs."""
    result, outputs, _ = pool.run(oid, list(ops), flags)
    assert result >= 0, (oid, ops, result)
    return [out for _, out in outputs]


def refused(name, pool, oid, *ops, flags=0):
    result, _, _ = pool.run(oid, list(ops), flags)
    return result


def versions(pool):
    """The version of an object counts requests that change it."""
    name = "versions"
    do(pool, name, write_full("1"))
    first = pool.run(name, [stat()])[2]
    for ops, grows in (([setxattr("a", "1")], 1), ([read()], 0), ([write(0, "x"), write(1, "y")], 1),
                       ([bare(0x221c)], 0), ([truncate(1)], 1), ([omap_set(k="v")], 1)):
        before = pool.run(name, [stat()])[2]
        do(pool, name, *ops)
        after = pool.run(name, [stat()])[2]
        check(name, "after %r" % ops, after > before, bool(grows))
    now = pool.run(name, [stat()])[2]
    check(name, "it only grows", now > first, True)
    for version, result in ((0, EINVAL), (now - 1, ERANGE), (now, 0), (now + 1, EOVERFLOW)):
        check(name, "assert %d of %d" % (version, now), pool.run(name, [assert_ver(version)])[0], result)
    check(name, "guard", pool.run(name, [assert_ver(now - 1), write_full("never")])[0], ERANGE)
    check(name, "guard", pool.run(name, [assert_ver(now), write_full("2")])[0], 0)
    check(name, "absent", pool.run("versions none", [assert_ver(1)])[0], ENOENT)


def copied(raw):
    """A decoded `object_copy_data_t`, as far as it does not depend on the store."""
    def take(n):
        nonlocal raw
        out, raw = raw[:n], raw[n:]
        return out

    def string():
        return take(struct.unpack("<I", take(4))[0])

    assert take(2) == b"\x08\x05"
    take(4)
    length, _mtime = struct.unpack("<QQ", take(16))
    attrs = {}
    for _ in range(struct.unpack("<I", take(4))[0]):
        key = string()
        attrs[key] = string()
    data, omap = string(), string()
    at = raw[:6 + 1 + 8 + 1]
    take(len(at))
    after = string()
    at = at + blob(after) + take(1)
    complete = (at[6], at[15], at[-1]) == (1, 1, 1)
    header = string()
    assert take(12) == bytes(12), "snapshots"
    flags, digest = struct.unpack("<II", take(8))
    return length, attrs, data, omap[4:], at, complete, header, digest if flags & 1 else None


def copies(pool):
    name = "copies"
    pool.at(locator="copies")
    where = locator(pool.id, "copies")
    source = [setxattr("a", "1"), setxattr("b", "2"), omap_set(k="v", l="w"), omap_set_header("head")]
    do(pool, "source", write_full("older"))
    do(pool, "source", write_full("hello world"), *source)
    for step, parts in ((1000, 1), (11, 3), (4, 5)):
        at, data, omap, seen, header = cursor(), b"", b"", {}, b""
        for n in range(1, 20):
            length, attrs, some, more, at, complete, head, digest = copied(do(pool, "source", copy_get(at, step))[0])
            data, omap, header = data + some, omap + more, header + head
            seen.update(attrs)
            if len(some) == length:
                check(name, "digest", digest, 0x366b9a55)
            if complete:
                break
        check(name, "in parts of %d" % step, (length, data, seen, omap, header),
              (11, b"hello world", {b"a": b"1", b"b": b"2"}, pairs({"k": "v", "l": "w"})[4:], b"head"))
        check(name, "parts of %d" % step, n, parts)
    whole = [stat(), read(), getxattrs(), omap_vals(), omap_header()]
    want = do(pool, "source", *whole)
    version = pool.run("source", [stat()])[2]
    do(pool, "copy", write_full("something longer than that"), setxattr("c", "3"), omap_set(x="y"))
    for copy in (copy_from("source", where), copy_from("source", where, version),
                 copy_from2("source", where, 5, 7)):
        do(pool, "copy", copy)
        check(name, "%r" % copy, do(pool, "copy", *whole), want)
        check(name, "version", pool.run("copy", [stat()])[2], version)
    for copy, result in ((copy_from("none", where), ENOENT), (copy_from("copy", where), EINVAL),
                         (copy_from("source", where, version - 1), ERANGE),
                         (copy_from("source", where, version + 1), EOVERFLOW), (bare(0x221a), EINVAL)):
        got = pool.run("copy", [setxattr("d", "4"), copy])[0]
        check(name, "%r" % copy, got, result)
        check(name, "nothing changed", do(pool, "copy", getxattrs())[0], pairs({"a": "1", "b": "2"}))
    got = pool.run("copy", [copy_from("none", where) | FAILOK])[0]
    check(name, "it may not fail", got, ENOENT)
    do(pool, "copy", setxattr("c", "3"), copy_from("source", where), setxattr("d", "4"))
    check(name, "with others", do(pool, "copy", getxattrs())[0], pairs({"a": "1", "b": "2", "d": "4"}))
    check(name, "guarded", pool.run("copy", [create(True), copy_from("source", where)])[0], EEXIST)
    do(pool, "source", write_full("changed"))
    check(name, "apart", do(pool, "copy", read())[0], b"hello world")
    do(pool, "empty", create())
    do(pool, "copy", copy_from("empty", where))
    check(name, "empty", do(pool, "copy", *whole), [size(0), b"", pairs({}), values(), b""])
    big = bytes(range(256)) * 4096 * 5
    do(pool, "source", write_full(big))
    do(pool, "copy", copy_from("source", where))
    do(pool, "source", write(0, "X" * 4096))
    check(name, "big", do(pool, "copy", read())[0] == big, True)
    check(name, "absent", pool.run("none", [copy_get(cursor(), 10)])[0], ENOENT)
    check(name, "no cursor", pool.run("source", [bare(0x121e)])[0], EINVAL)
    pool.at()


def copies_across(pool):
    """Copies from one PG, and OSD, to all others."""
    name = "copies across"
    where = locator(pool.id)
    big = bytes(range(256)) * 4096 * 17
    for _ in range(3):
        do(pool, "far", write_full("older"))
    do(pool, "far", write_full(big), setxattr("a", "1"), omap_set_header("head"),
       omap_set(**{"k%05d" % i: "v" * 100 for i in range(5000)}))
    do(pool, "near", write_full("x"))
    version = pool.run("far", [stat()])[2]
    for i in range(12):
        oid = "copy %d" % i
        do(pool, oid, write_full("old"), setxattr("b", "2"))
        do(pool, oid, copy_from("far", where, version))
        got = do(pool, oid, read(), getxattrs(), omap_header(), omap_vals("k04990", 3))
        check(name, oid, got[0] == big, True)
        check(name, oid, got[1:], [pairs({"a": "1"}), b"head",
                                   values(1, **{"k%05d" % n: "v" * 100 for n in (4991, 4992, 4993)})])
        check(name, oid, pool.run(oid, [stat()])[2], version)
        for source, at, result in (("none", 0, ENOENT), ("far", version + 1, EOVERFLOW), ("far", 1, ERANGE)):
            check(name, "%s of %s" % (oid, source), pool.run(oid, [copy_from(source, where, at)])[0], result)
        do(pool, oid, copy_from("near", where))
        check(name, oid, do(pool, oid, read(), getxattrs(), omap_vals()), [b"x", pairs({}), values()])


PROMOTE, UNSET_MANIFEST, FLUSH, EVICT = bare(0x2229), bare(0x222a), bare(0x822b), bare(0x822c)
WHOLE = [stat(), read(), getxattrs(), omap_vals()]
SOURCE = [size(6), b"source", pairs({"a": "1"}), values(k="v")]
TARGET = [size(7), b"target!", pairs({"t": "2"}), values(l="w")]


def redirect(pool, other, n, flags=0):
    """Makes an object of the one pool a redirect to one of the other."""
    here, there = "redirect %s" % n, "target %s" % n
    do(pool, here, write_full("source"), setxattr("a", "1"), omap_set(k="v"))
    do(other, there, write_full("target!"), setxattr("t", "2"), omap_set(l="w"))
    do(pool, here, set_redirect(there, locator(other.id), flags=flags))
    return here, there


def redirects(pool, other):
    """What is asked of a redirect its target answers, in another PG or OSD too."""
    name = "redirects"
    for n in range(8):
        here, there = redirect(pool, other, n)
        check(name, here, do(pool, here, *WHOLE), TARGET)
        check(name, "version", pool.run(here, [stat()])[2], other.run(there, [stat()])[2])
        got = do(pool, here, *WHOLE, flags=IGNORE_REDIRECT)
        check(name, "itself", got, [size(0), b"", pairs({"a": "1"}), values()])
        do(pool, here, write(0, "T"), setxattr("z", "3"))
        check(name, "written", do(other, there, read(), getxattrs()), [b"Target!", pairs({"t": "2", "z": "3"})])
        for ops, result, want in (
                ([getxattr("none")], ENODATA, b""), ([getxattr("none") | FAILOK, read(0, 3)], 0, b"Tar"),
                ([cmpxattr("z", EQ, "4"), write_full("no")], ECANCELED, b""),
                ([create(True)], EEXIST, b""), ([call("hello.say_hello", b"you")], 0, b"Hello, you!"),
                ([assert_ver(1)], ERANGE, b""), ([bare(0x121d)], 0, b"\1")):
            got = pool.run(here, ops)
            check(name, "%r" % ops, (got[0], got[1][-1][1]), (result, want))
        got = pool.run(here, [read(0, 3), setxattr("y", "4")], RETURNVEC)
        check(name, "returned", (got[0], got[1][0][1]), (0, b"Tar"))
        do(pool, here, delete())
        check(name, "deleted", other.run(there, [stat()])[0], ENOENT)
        check(name, "deleted", pool.run(here, [stat()])[0], ENOENT)
        check(name, "not itself", do(pool, here, stat(), flags=IGNORE_REDIRECT), [size(0)])
        do(pool, here, write_full("new"))
        check(name, "made", do(other, there, read()), [b"new"])
        do(pool, here, UNSET_MANIFEST)
        check(name, "unset", do(pool, here, *WHOLE), [size(0), b"", pairs({"a": "1"}), values()])
        check(name, "unset twice", pool.run(here, [UNSET_MANIFEST])[0], EOPNOTSUPP)
    here, there = redirect(pool, other, "own data")
    do(pool, here, write_full("local"), flags=IGNORE_REDIRECT)
    do(pool, here, write_full("there"))
    check(name, "own data is read", do(pool, here, read()) + do(other, there, read()), [b"local", b"there"])
    here, there = redirect(pool, other, "to another")
    do(pool, here, set_redirect("nothing", locator(other.id), version=777))
    check(name, "to another", pool.run(here, [stat()])[0], ENOENT)
    check(name, "version", pool.run(here, [stat()], IGNORE_REDIRECT)[2], 777)
    for ops, result in (
            ([set_redirect(here, locator(pool.id))], EINVAL), ([set_redirect("x", locator(9999))], ENOENT),
            ([bare(0x2227, b"", b"\x09")], EINVAL), ([FLUSH], EBUSY),
            ([set_redirect("x", locator(other.id), flags=WITH_REFERENCE)], ENOENT),
            ([set_chunk(0, 1, locator(other.id), "x", 0, WITH_REFERENCE)], EINVAL)):
        check(name, "%r" % ops, pool.run(here, ops)[0], result)
    check(name, "absent", pool.run("none", [set_redirect("x", locator(other.id))])[0], ENOENT)


def redirect_snapshots(pool, other):
    """A snapshot from before a redirect shows the object. (A newer one of a redirect ends Ceph's OSD.)"""
    name = "redirect snapshots"
    here, there = "redirect snapped", "target snapped"
    do(pool, here, write_full("source"))
    do(other, there, write_full("target!"))
    snap = ctypes.c_uint64()
    assert LIB.rados_ioctx_selfmanaged_snap_create(pool.io, ctypes.byref(snap)) == 0
    assert LIB.rados_ioctx_selfmanaged_snap_set_write_ctx(pool.io, snap, ctypes.byref(snap), 1) == 0
    handle = ctypes.c_void_p(write_request([set_redirect(there, locator(other.id))]))
    check(name, "set", LIB.rados_write_op_operate(handle, pool.io, here.encode(), None, 0), 0)
    LIB.rados_release_write_op(handle)
    assert LIB.rados_ioctx_selfmanaged_snap_set_write_ctx(pool.io, ctypes.c_uint64(0), None, 0) == 0
    for at, want in ((snap.value, b"source"), (HEAD, b"target!")):
        LIB.rados_ioctx_snap_set_read(pool.io, ctypes.c_uint64(at))
        check(name, "at %x" % at, do(pool, here, read()), [want])
    assert LIB.rados_ioctx_selfmanaged_snap_remove(pool.io, snap) == 0


def promoted(pool, other):
    """A redirect takes over its target's content."""
    name = "promoted"
    for n in range(4):
        here, there = redirect(pool, other, "promoted %d" % n)
        do(pool, here, PROMOTE)
        want = TARGET[:2] + [pairs({"a": "1", "t": "2"})] + TARGET[3:]
        check(name, here, do(pool, here, *WHOLE), want)
        check(name, "version", pool.run(here, [stat()])[2], other.run(there, [stat()])[2])
        do(pool, here, write(0, "X"))
        check(name, "apart", do(pool, here, read()) + do(other, there, read()), [b"Xarget!", b"target!"])
        check(name, "no redirect", pool.run(here, [UNSET_MANIFEST])[0], EOPNOTSUPP)
        do(pool, here, PROMOTE), do(pool, here, FLUSH)
    here, there = redirect(pool, other, "big")
    big = bytes(range(256)) * 4096 * 9
    do(other, there, write_full(big))
    do(pool, here, PROMOTE)
    check(name, "big", do(pool, here, read())[0] == big, True)
    here, there = redirect(pool, other, "to nothing")
    do(other, there, delete())
    do(pool, here, PROMOTE)
    check(name, "nothing", pool.run(here, [stat()])[0], ENOENT)


def references(pool, other):
    """The target counts a redirect with a reference, and goes with the last one."""
    name = "references"
    for n, end, flags in ((0, UNSET_MANIFEST, 0), (1, delete(), IGNORE_REDIRECT), (2, PROMOTE, 0)):
        here, there = redirect(pool, other, "referenced %d" % n, WITH_REFERENCE)
        second = "second %d" % n
        do(pool, second, write_full("x"))
        do(pool, second, set_redirect(there, locator(other.id), flags=WITH_REFERENCE))
        check(name, "there", do(pool, here, read()), [b"target!"])
        for flag in (0, WITH_REFERENCE):
            got = pool.run(here, [set_redirect(there, locator(other.id), flags=flag)])[0]
            check(name, "twice", got, EINVAL)
        refs = do(other, there, getxattr("chunk_refs"))[0]
        check(name, "both", (blob(here) in refs, blob(second) in refs), (True, True))
        do(pool, second, UNSET_MANIFEST)
        for i in range(40):
            refs = do(other, there, getxattr("chunk_refs"))[0]
            if blob(second) not in refs:
                break
            time.sleep(0.1)
        check(name, "one", (blob(here) in refs, blob(second) in refs), (True, False))
        do(pool, here, end, flags=flags)
        for i in range(40):
            gone = other.run(there, [stat()])[0]
            if gone:
                break
            time.sleep(0.1)
        check(name, "gone with %r" % end, gone, ENOENT)


def chunks(pool, other):
    """Parts of an object that are in other objects too, and can be left to them."""
    name = "chunks"
    part = lambda start, length, target, offset=0, flags=WITH_REFERENCE: set_chunk(
        start, length, locator(other.id), target, offset, flags)

    def made(n, evicted=True, data="abcdefgh"):
        here, ca, cb = "chunked %s" % n, "ca %s" % n, "cb %s" % n
        do(pool, here, write_full(data), setxattr("x", "1")), do(other, ca, write_full("..AAAA"))
        do(other, cb, write_full("BBBB"))
        do(pool, here, part(0, 4, ca, 2)), do(pool, here, part(4, 4, cb))
        if evicted:
            do(pool, here, EVICT)
        return here, ca, cb

    def itself(oid):
        return do(pool, oid, read(0, 8), flags=IGNORE_REDIRECT)[0]

    def counted(oid, source):
        result, outs, _ = other.run(oid, [getxattr("chunk_refs")])
        return result == 0 and blob(source) in outs[0][1]

    def released(oid, source):
        for i in range(40):
            if not counted(oid, source):
                return True
            time.sleep(0.1)
        return False

    here, ca, cb = made("set", evicted=False)
    for op, result in (
            (part(0, 0, ca), EINVAL), (part(6, 4, ca), ERANGE), (part(0, 4, ca, 2, 0), EOPNOTSUPP),
            (part(2, 4, cb), EOPNOTSUPP), (part(0, 4, ca, 2), EOPNOTSUPP), (FLUSH, EINVAL),
            (bare(0x8228, b"", b"\x09"), EINVAL)):
        check(name, "%r" % op, pool.run(here, [op])[0], result)
    check(name, "own data", do(pool, here, read(), stat(), getxattrs()), [b"abcdefgh", size(8), pairs({"x": "1"})])
    check(name, "counted", (counted(ca, here), counted(cb, here)), (True, True))
    version = pool.run(here, [stat()])[2]
    check(name, "references", pool.run(here, [call("cas.references_chunk", blob(ca))])[0], 1)
    check(name, "no references", pool.run(here, [call("cas.references_chunk", blob("x"))])[0], ENOLINK)
    do(pool, here, EVICT)
    check(name, "given up", (itself(here), pool.run(here, [stat()], IGNORE_REDIRECT)[2]), (bytes(8), version))
    for op, want in ((read(0, 8), b"AAAABBBB"), (read(2, 4), b"AABB"), (read(1, 2), b"AA"), (read(5, 3), b"BBB"),
                     (sync_read(0, 4), b"AAAA")):
        check(name, "%r" % op, (do(pool, here, op), itself(here)), ([want], bytes(8)))
    check(name, "two reads", do(pool, here, read(0, 3), read(3, 3)), [b"AAA", b"ABB"])
    for op, want in ((read(2, 100), b"AABBBB"), (sparse_read(0, 8), extents((0, 8), data="AAAABBBB")),
                     (mapext(0, 8), extents((0, 8))), (cmpext(0, "AAAAB"), b""), (getxattr("x"), b"1"),
                     (call("hello.say_hello", b"you"), b"Hello, you!")):
        check(name, "%r" % op, do(pool, here, op), [want])
        do(pool, here, EVICT)
    do(pool, "plain", write_full("x"))
    check(name, "absent target", pool.run("plain", [part(0, 1, "none")])[0], ENOENT)
    check(name, "absent", pool.run("none", [part(0, 1, ca)])[0], ENOENT)
    do(pool, here, PROMOTE)
    check(name, "promoted", (itself(here), do(pool, here, read())), (b"AAAABBBB", [b"AAAABBBB"]))
    check(name, "still counted", (counted(ca, here), counted(cb, here)), (True, True))
    do(pool, here, UNSET_MANIFEST)
    check(name, "unset", (itself(here), released(ca, here), released(cb, here)), (b"AAAABBBB", True, True))
    check(name, "unset twice", pool.run(here, [UNSET_MANIFEST])[0], EOPNOTSUPP)
    check(name, "evicted whole", pool.run(here, [EVICT])[0], EINVAL)
    check(name, "flushed whole", pool.run(here, [FLUSH])[0], 0)
    for n, (op, want, keeps) in enumerate((
            (write(5, "x"), b"AAAABxBB", (True, False)), (write(8, "x"), b"AAAABBBB", (True, True)),
            (append("x"), b"AAAABBBB", (True, True)), (truncate(6), b"AAAABB", (True, False)),
            (truncate(2), b"AA", (False, False)), (zero(0, 2), b"\0\0AABBBB", (False, True)),
            (write_full("new"), b"new", (False, False)), (setxattr("y", "2"), b"AAAABBBB", (True, True)),
            (omap_set(k="v"), b"AAAABBBB", (True, True)), (create(), b"AAAABBBB", (True, True)))):
        for evicted in (True, False):
            here, ca, cb = made("%d %s" % (n, evicted), evicted, "AAAABBBB")
            do(pool, here, op)
            check(name, "%r" % op, itself(here), want)
            kept = tuple(counted(oid, here) if keep else not released(oid, here) for oid, keep in zip((ca, cb), keeps))
            check(name, "%r keeps" % op, kept, keeps)
    here, ca, cb = made("deleted")
    do(pool, here, delete())
    check(name, "deleted", (released(ca, here), released(cb, here)), (True, True))
    here, ca, cb = made("partly", evicted=False)
    do(pool, here, append("ij")), do(pool, here, EVICT)
    check(name, "partly", itself(here), b"abcdefgh")
    here, ca, cb = made("source")
    do(pool, "chunked copy", copy_from(here, locator(pool.id)))
    check(name, "copied", do(pool, "chunked copy", read()), [b"AAAABBBB"])
    check(name, "copied whole", pool.run("chunked copy", [UNSET_MANIFEST])[0], EOPNOTSUPP)


def chunk_snapshots(pool, other):
    """A clone has its head's chunks, and shares their references. (The trim of one ends Ceph's OSD.)"""
    name, here, there = "chunk snapshots", "chunks snapped", "chunk snapped"
    do(pool, here, write_full("abcd")), do(other, there, write_full("CCCC"))
    do(pool, here, set_chunk(0, 4, locator(other.id), there, 0, WITH_REFERENCE)), do(pool, here, EVICT)
    snap = ctypes.c_uint64()
    assert LIB.rados_ioctx_selfmanaged_snap_create(pool.io, ctypes.byref(snap)) == 0
    assert LIB.rados_ioctx_selfmanaged_snap_set_write_ctx(pool.io, snap, ctypes.byref(snap), 1) == 0
    handle = ctypes.c_void_p(write_request([write(1, "x")]))
    check(name, "written", LIB.rados_write_op_operate(handle, pool.io, here.encode(), None, 0), 0)
    LIB.rados_release_write_op(handle)
    assert LIB.rados_ioctx_selfmanaged_snap_set_write_ctx(pool.io, ctypes.c_uint64(0), None, 0) == 0
    for ops, head in (([stat()], b"CxCC"), ([write(0, "y")], b"yxCC"), ([delete()], None)):
        do(pool, here, *ops)
        LIB.rados_ioctx_snap_set_read(pool.io, snap)
        check(name, "snapshot", do(pool, here, read(0, 4), stat())[0], b"CCCC")
        LIB.rados_ioctx_snap_set_read(pool.io, ctypes.c_uint64(HEAD))
        time.sleep(0.3)
        check(name, "counted %r" % ops, blob(here) in do(other, there, getxattr("chunk_refs"))[0], True)
        got = pool.run(here, [read(0, 4)])
        check(name, "head %r" % ops, (got[0], got[1][0][1]), (ENOENT if head is None else 0, head or b""))


def snapshot_copies(pool):
    """A source may be a snapshot (not of the object itself: Ceph waits for ever)."""
    name = "snapshot copies"
    pool.at(locator="copies")
    where = locator(pool.id, "copies")
    snap = ctypes.c_uint64()
    pool.write("snapped", b"before")
    do(pool, "snapped", setxattr("a", "1"), omap_set(k="v"))
    assert LIB.rados_ioctx_selfmanaged_snap_create(pool.io, ctypes.byref(snap)) == 0
    assert LIB.rados_ioctx_selfmanaged_snap_set_write_ctx(pool.io, snap, ctypes.byref(snap), 1) == 0
    pool.write("snapped", b"after it")
    pool.write("later", b"x")
    do(pool, "snapped", setxattr("a", "2"), omap_set(k="w"))
    ask = [read(), getxattr("a"), omap_vals()]
    for source, snapid, want in (("snapped", HEAD, [b"after it", b"2", values(k="w")]),
                                 ("snapped", snap.value, [b"before", b"1", values(k="v")])):
        do(pool, "copy", copy_from(source, where, snapid=snapid))
        check(name, "%s %x" % (source, snapid), do(pool, "copy", *ask), want)
    for source, snapid, result in (("later", snap.value, ENOENT), ("none", snap.value, ENOENT)):
        got = pool.run("copy", [copy_from(source, where, snapid=snapid)])[0]
        check(name, "%s %x" % (source, snapid), got, result)
    assert LIB.rados_ioctx_selfmanaged_snap_remove(pool.io, snap) == 0
    pool.at()


HOBJECT_MIN = versioned(4, 3, blob("") + blob("") + le("Q", 0) + le("I", 0) + b"\0" + blob("") + le("q", -(1 << 63)))


def listing(pool):
    """In a pool of one PG any object's name leads to it."""
    name = "listing"
    for oid, value in (("l1", "1"), ("l2", "2"), ("l3", "1")):
        do(pool, oid, setxattr("color", value))
    do(pool.at("other"), "l4", setxattr("color", "1"))
    files = ["f1.00000000", "f2.00000000", "f3.00000000"]
    for oid, tag in zip(files, (blob("T"), blob("U"), b"\x09")):
        do(pool.at(), oid, setxattr("scrub_tag", tag))
    pgls = le("QI", 100, 0)

    def listed(code, indata, nspace=""):
        result, outputs, _ = pool.at(nspace).run("any", [Op(code, pgls, indata)])
        pool.at()
        out = outputs[0][1]
        return result, sorted(oid for oid in ["l1", "l2", "l3", "l4"] + files if blob(oid) in out)

    plain = blob("pg") + blob("filter")
    every = sorted(["l1", "l2", "l3"] + files)
    for code in (0x1501, 0x1505):
        check(name, "plain %#x" % code, listed(code, HOBJECT_MIN), (1, every))
        check(name, "namespace %#x" % code, listed(code, HOBJECT_MIN, "other"), (1, ["l4"]))
        check(name, "no cursor", listed(code, b""), (EINVAL, []))
    check(name, "all namespaces", listed(0x1505, HOBJECT_MIN, "\1"), (1, sorted(every + ["l4"])))
    for code in (0x1502, 0x1506):
        for kind in ("plain", "hello.hello"):
            ask = plain + blob(kind) + blob("_color")
            check(name, "%s %#x" % (kind, code), listed(code, ask + blob("1") + HOBJECT_MIN), (1, ["l1", "l3"]))
            check(name, "%s %#x" % (kind, code), listed(code, ask + blob("3") + HOBJECT_MIN), (1, []))
            ask = plain + blob(kind) + blob("color") + blob("1")
            check(name, "%s without prefix" % kind, listed(code, ask + HOBJECT_MIN), (1, []))
        for tag, result, oids in ((versioned(1, 1, blob("T")), 1, ["f2.00000000", "f3.00000000"]),
                                  (versioned(2, 1, blob("T") + b"zz"), 1, ["f2.00000000", "f3.00000000"]),
                                  (versioned(1, 1, blob("")), 1, files), (versioned(2, 2, blob("T")), EINVAL, []),
                                  (versioned(1, 1, b""), EINVAL, []), (blob("T"), EINVAL, [])):
            check(name, "tag %r" % tag, listed(code, plain + blob("cephfs.inode_tag") + tag + HOBJECT_MIN),
                  (result, oids))
        for kind, result in (("lock.none", EINVAL), ("none.none", EPERM), ("none", EINVAL), (".none", EINVAL),
                             ("plain", EINVAL), ("parent", EINVAL), ("cephfs.none", EINVAL), ("rgw.x", EINVAL)):
            check(name, "filter %s" % kind, listed(code, plain + blob(kind))[0], result)
        check(name, "no filter", listed(code, b"")[0], EINVAL)
    check(name, "hit sets", pool.run("any", [bare(0x1503)])[:2], (0, [(0, le("I", 0))]))
    check(name, "hit set", pool.run("any", [bare(0x1504)])[0], ENOENT)
    ask = versioned(1, 1, le("II", 0, 0) + blob("") * 2 + le("Q", 0) + le("Q", 10))
    check(name, "scrub errors", pool.run("any", [bare(0x1507, b"", ask)])[0], ENOENT)
    check(name, "scrub errors", pool.run("any", [bare(0x1507)])[0], EINVAL)
    check(name, "unknown", pool.run("any", [bare(0x1599)])[0], EINVAL)


def names(pool):
    """Names, locator keys and namespaces tell objects apart."""
    name = "names"
    for nspace, key in (("", None), ("one", None), ("", "key"), ("one", "key")):
        do(pool.at(nspace, key), "same", write_full(nspace + str(key)))
    for nspace, key in (("", None), ("one", None), ("", "key"), ("one", "key")):
        check(name, "%s %s" % (nspace, key), do(pool.at(nspace, key), "same", read())[0], raw(nspace + str(key)))
    for nspace, key, result in (("n" * 256, None, 0), ("n" * 257, None, ENAMETOOLONG), ("", "k" * 2048, 0),
                                ("", "k" * 2049, ENAMETOOLONG)):
        check(name, "long", pool.at(nspace, key).run("x", [write_full("x")])[0], result)
    pool.at()


def capabilities(cluster, pool_name):
    """What a user may call, by the class, the method and the letters of its capability."""
    name = "capabilities"
    say, record = call("hello.say_hello"), call("hello.record_hello", b"x")
    stat_lock = call("lock.get_info", blob("l"))
    for caps, results in (
            ("allow r", (EPERM, EPERM, 0, EPERM)),
            ("allow rw", (EPERM, EPERM, 0, 0)),
            ("allow rwx", (0, EEXIST, 0, 0)),
            ("allow rx", (0, EEXIST, 0, EPERM)),
            ("allow x", (0, EEXIST, EPERM, EPERM)),
            ("allow class-read", (0, EPERM, EPERM, EPERM)),
            ("allow r class-read", (0, EPERM, 0, EPERM)),
            ("allow class-write", (EPERM, EEXIST, EPERM, EPERM)),
            ("allow class hello", (0, EEXIST, EPERM, EPERM)),
            ("allow class hello say_hello", (0, EPERM, EPERM, EPERM)),
            ("allow class lock", (EPERM, EPERM, EPERM, EPERM)),
            ("allow r, allow class hello record_hello", (EPERM, EEXIST, 0, EPERM)),
            ("allow *", (0, EEXIST, 0, 0))):
        user = "client.caps%d" % (hash(caps) & 0xffffff)
        ask = {"prefix": "auth get-or-create-key", "entity": user,
               "caps": ["mon", "allow r", "osd", caps]}
        result, key, message = cluster.command(json.dumps(ask))
        assert result == 0, message
        other = Cluster(name=user).set("key", key.decode().strip()).connect()
        pool = other.pool(pool_name)
        got = tuple(pool.run("capabilities", [op])[0] for op in (say, record, stat(), setxattr("z", "1")))
        check(name, caps, got, results)
        check(name, caps + ", unknown", pool.run("capabilities", [call("none.x")])[0], EPERM)
        check(name, caps + ", unknown", pool.run("capabilities", [call("hello.x")])[0], EOPNOTSUPP)
        other.close()
        cluster.command(json.dumps({"prefix": "auth rm", "entity": user}))


def full(cluster, pool_name):
    """A pool over its quota: what grows fails with EDQUOT for who tries, the rest works."""
    name = "full"
    pool = cluster.pool(pool_name)
    do(pool, "big", write_full("x" * 65536), setxattr("a", "1"))
    command(cluster, prefix="osd pool set-quota", pool=pool_name, field="max_bytes", val="4096")
    for i in range(240):
        if pool.run("probe %d" % i, [create()], FULL_TRY)[0] == EDQUOT:
            break
        time.sleep(0.25)
    for oid, op, flags, result in (
            ("new1", write_full("y"), FULL_TRY, EDQUOT), ("new2", create(), FULL_TRY, EDQUOT),
            ("big", append("y"), FULL_TRY, EDQUOT), ("big", setxattr("a", "2"), FULL_TRY, 0),
            ("big", setxattr("a", "2"), 0, 0), ("big", write(0, "y"), FULL_TRY, 0),
            ("big", omap_set(k="v"), FULL_TRY, 0), ("big", read(0, 1), 0, 0),
            ("new3", call("hello.record_hello", b"y"), FULL_TRY, EDQUOT), ("new4", write_full("y"), FULL_FORCE, 0),
            ("new4", truncate(1), FULL_TRY, 0), ("big", delete(), FULL_TRY, 0)):
        check(name, "%s %r" % (oid, op), pool.run(oid, [op], flags)[0], result)


def blocklisted(cluster, pool_name):
    name = "blocklisted"
    other = Cluster().connect()
    pool = other.pool(pool_name)
    do(pool, name, write_full("x"))
    addrs = ctypes.c_char_p()
    assert LIB.rados_getaddrs(other.handle, ctypes.byref(addrs)) == 0
    addr = addrs.value.decode()
    command(cluster, prefix="osd blocklist", blocklistop="add", addr=addr)
    for _ in range(40):
        result = pool.run(name, [stat()])[0]
        if result < 0:
            break
        time.sleep(0.25)
    check(name, "reading", result, ESHUTDOWN)
    check(name, "writing", pool.run(name, [write_full("y")])[0], ESHUTDOWN)
    command(cluster, prefix="osd blocklist", blocklistop="rm", addr=addr)
    other.close()


def large(pool):
    """A request of more than `osd_max_write_size` is refused whole."""
    name = "large"
    check(name, "90 MiB and more", pool.run(name, [write_full(bytes((90 << 20) + 1))])[0], EMSGSIZE)
    check(name, "it is not there", pool.run(name, [stat()])[0], ENOENT)


def command(cluster, **words):
    result, out, message = cluster.command(json.dumps(words))
    assert result == 0, (words, message)
    return out


def main(filters):
    cluster = Cluster().set("rados_osd_op_timeout", "15").connect()
    for pool, pgs in (("operations", 8), ("operations1", 1), ("operations2", 1)):
        command(cluster, prefix="osd pool create", pool=pool, pg_num=pgs, pgp_num=pgs)
        command(cluster, prefix="osd pool application enable", pool=pool, app="rados")
    pool = cluster.pool("operations")
    wanted = lambda name: not filters or any(f in name for f in filters)
    requests = 0
    for name, rows in CASES.items():
        if wanted(name):
            for index, item in enumerate(rows):
                run_row(pool, name, index, item)
                requests += 1
    do(pool, "capabilities", call("hello.record_hello", b"caps"))
    for function, args in ((versions, (pool,)), (copies, (pool,)), (copies_across, (pool,)),
                           (snapshot_copies, (pool,)), (names, (pool,)),
                           *[(check_of, (pool, cluster.pool("operations1")))
                             for check_of in (redirects, redirect_snapshots, promoted, references, chunks,
                                              chunk_snapshots)],
                           (listing, (cluster.pool("operations1"),)), (capabilities, (cluster, "operations")),
                           (blocklisted, (cluster, "operations")), (large, (pool,)),
                           (full, (cluster, "operations2"))):
        if wanted(function.__name__):
            function(*args)
    for pool in ("operations", "operations1", "operations2"):
        command(cluster, prefix="osd pool rm", pool=pool, pool2=pool, yes_i_really_really_mean_it=True)
    cluster.close()
    print("%d requests of the table, %d differ" % (requests, len(FAILURES)))
    return 1 if FAILURES else 0


sys.exit(main(sys.argv[1:]))
