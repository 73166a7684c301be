"""Operations of the OSD by name: each function makes one `Op`, with the arguments and input that
Ceph's `ceph_osd_op` (include/rados.h) and its clients give it."""
import struct

from _raw import EXCL, FAILOK, Op

CRC32C, XXHASH32, XXHASH64 = 2, 0, 1
EQ, NE, GT, GTE, LT, LTE = 1, 2, 3, 4, 5, 6
STRING, U64 = 1, 2
HEAD = (1 << 64) - 2
SNAPDIR = (1 << 64) - 1
WITH_REFERENCE = 0x80


def extent(offset, length, truncate_size=0, truncate_seq=0):
    return struct.pack("<QQQI", offset, length, truncate_size, truncate_seq)


def raw(text):
    return text.encode() if isinstance(text, str) else bytes(text)


def blob(text):
    text = raw(text)
    return struct.pack("<I", len(text)) + text


def blobs(items):
    return struct.pack("<I", len(items)) + b"".join(blob(i) for i in items)


def pairs(items):
    items = sorted(items.items()) if isinstance(items, dict) else items
    return struct.pack("<I", len(items)) + b"".join(blob(k) + blob(v) for k, v in items)


def versioned(version, compat, body):
    return struct.pack("<BBI", version, compat, len(body)) + body


def read(offset=0, length=0, **truncation):
    return Op(0x1201, extent(offset, length, **truncation))


def sync_read(offset=0, length=0):
    return Op(0x120b, extent(offset, length))


def sparse_read(offset, length, **truncation):
    return Op(0x1205, extent(offset, length, **truncation))


def mapext(offset, length):
    return Op(0x1203, extent(offset, length))


def stat():
    return Op(0x1202)


def cmpext(offset, data):
    return Op(0x1220, extent(offset, len(raw(data))), raw(data))


def checksum(kind, offset, length, chunk, init):
    return Op(0x121f, struct.pack("<QQIB", offset, length, chunk, kind), init)


def write(offset, data, **truncation):
    return Op(0x2201, extent(offset, len(raw(data)), **truncation), raw(data))


def write_full(data):
    return Op(0x2202, extent(0, len(raw(data))), raw(data))


def truncate(size, **truncation):
    return Op(0x2203, extent(size, 0, **truncation))


def trimtrunc(size, seq):
    return Op(0x2209, extent(0, 0, size, seq))


def zero(offset, length):
    return Op(0x2204, extent(offset, length))


def delete():
    return Op(0x2205)


def append(data):
    return Op(0x2206, extent(0, len(raw(data))), raw(data))


def create(exclusive=False, category=b""):
    return Op(0x220d, b"", category, EXCL if exclusive else 0)


def writesame(offset, length, data):
    return Op(0x2226, struct.pack("<QQQ", offset, length, len(raw(data))), raw(data))


def set_alloc_hint(size, write_size, flags=0):
    return Op(0x2223, struct.pack("<QQI", size, write_size, flags))


def xattr(code, name, value=b"", comparison=0, mode=0):
    name, value = raw(name), raw(value)
    return Op(code, struct.pack("<IIBB", len(name), len(value), comparison, mode), name + value)


def getxattr(name):
    return xattr(0x1301, name)


def getxattrs():
    return Op(0x1302)


def cmpxattr(name, comparison, value):
    if isinstance(value, int):
        op = xattr(0x1303, name, struct.pack("<Q", value), comparison, U64)
        return op
    return xattr(0x1303, name, value, comparison, STRING)


def setxattr(name, value):
    return xattr(0x2301, name, value)


def rmxattr(name):
    return xattr(0x2304, name)


def omap_keys(after="", most=1024):
    return Op(0x1211, b"", blob(after) + struct.pack("<Q", most))


def omap_vals(after="", most=1024, prefix=""):
    return Op(0x1212, b"", blob(after) + struct.pack("<Q", most) + blob(prefix))


def omap_header():
    return Op(0x1213)


def omap_vals_by_keys(*keys):
    return Op(0x1214, b"", blobs(keys))


def omap_cmp(**assertions):
    body = b"".join(blob(k) + blob(v) + struct.pack("<I", c) for k, (c, v) in assertions.items())
    return Op(0x1219, b"", struct.pack("<I", len(assertions)) + body)


def omap_set(**items):
    return Op(0x2215, b"", pairs(items))


def omap_set_header(header):
    return Op(0x2216, b"", raw(header))


def omap_clear():
    return Op(0x2217)


def omap_rm(*keys):
    return Op(0x2218, b"", blobs(keys))


def omap_rm_range(start, end):
    return Op(0x222c, b"", blob(start) + blob(end))


def assert_ver(version):
    return Op(0x1208, struct.pack("<QQ", 0, version))


def call(name, indata=b""):
    cls, method = (raw(part) for part in name.split("."))
    args = struct.pack("<BBBI", len(cls), len(method), 0, len(indata))
    return Op(0x1401, args, cls + method + indata)


def locator(pool, key="", nspace="", hash_=-1):
    return versioned(6, 3, struct.pack("<qi", pool, -1) + blob(key) + blob(nspace) + struct.pack("<q", hash_))


def cursor(attrs=False, offset=0, data=False, omap_after="", omap=False):
    body = struct.pack("<BQB", attrs, offset, data) + blob(omap_after) + struct.pack("<B", omap)
    return versioned(1, 1, body)


def copy_get(at, most):
    return Op(0x121e, struct.pack("<Q", most), at + struct.pack("<Q", most))


def copy_from(oid, loc, version=0, snapid=HEAD, flags=0):
    args = struct.pack("<QQBI", snapid, version, flags, 0)
    return Op(0x221a, args, blob(oid) + loc)


def copy_from2(oid, loc, size, seq, version=0, snapid=HEAD, flags=0x20):
    args = struct.pack("<QQBI", snapid, version, flags, 0)
    return Op(0x222d, args, blob(oid) + loc + struct.pack("<IQ", seq, size))


def set_redirect(oid, loc, version=0, flags=0):
    return Op(0x2227, struct.pack("<QQBI", HEAD, version, 0, 0), blob(oid) + loc, flags)


def set_chunk(offset, length, loc, oid, target_offset, flags=0):
    return Op(0x8228, b"", struct.pack("<QQ", offset, length) + loc + blob(oid) + struct.pack("<Q", target_offset),
              flags)


def bare(code, args=b"", indata=b""):
    return Op(code, args, indata)
