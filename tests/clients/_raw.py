"""Any list of OSD operations through the C librados.

The C interface has no call for many operations, and gives no output of operations in a write. But a class
call without names is an operation with any input, with its output and its own result: such a call is
added for each operation, and its code, flags and arguments are then written over in place (`ceph_osd_op`,
38 bytes: code, flags, a union of 28 bytes, length of the input). The OSD looks at codes alone, so one
kind of request serves reads and writes.
"""
import ctypes
import os
import struct

LIB = ctypes.CDLL("librados.so.2", use_errno=True)
LIBC = ctypes.CDLL(None)
CALL = 0x1401
ARGS = 28
HEAD = 6
# Flags of a request, as the library names them (LIBRADOS_OPERATION_*).
BALANCE_READS, LOCALIZE_READS, ORDER_READS_WRITES, IGNORE_CACHE, SKIPRWLOCKS = 1, 2, 4, 8, 16
IGNORE_OVERLAY, FULL_TRY, FULL_FORCE, IGNORE_REDIRECT, ORDERSNAP, RETURNVEC = 32, 64, 128, 256, 512, 1024
FAILOK = 2
EXCL = 1


class Op:
    """One operation: its code, the bytes of its arguments, its input and its flags."""

    def __init__(self, code, args=b"", indata=b"", flags=0):
        self.code, self.args, self.indata, self.flags = code, args, bytes(indata), flags

    def __or__(self, flags):
        return Op(self.code, self.args, self.indata, self.flags | flags)

    def __repr__(self):
        return "op %#06x %s %r" % (self.code, self.args.hex(), self.indata[:40])


def _new(ops):
    """A request of class calls that carry the inputs, and where their results go."""
    LIB.rados_create_read_op.restype = ctypes.c_void_p
    handle = LIB.rados_create_read_op()
    results = []
    for op in ops:
        out, length, rval = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_int()
        LIB.rados_read_op_exec(
            ctypes.c_void_p(handle), b"", b"", op.indata, ctypes.c_size_t(len(op.indata)),
            ctypes.byref(out), ctypes.byref(length), ctypes.byref(rval))
        results.append((out, length, rval))
    return handle, results


def write_request(ops):
    """The same as a write of the library, which sends the snapshot context of its handle."""
    LIB.rados_create_write_op.restype = ctypes.c_void_p
    handle = LIB.rados_create_write_op()
    for op in ops:
        LIB.rados_write_op_exec(
            ctypes.c_void_p(handle), b"", b"", op.indata, ctypes.c_size_t(len(op.indata)), None)
    _overwrite(handle, ops)
    return handle


def read_request(ops):
    handle, results = _new(ops)
    _overwrite(handle, ops)
    return handle, results


def _overwrite(handle, ops):
    start = _first(handle)
    for i, op in enumerate(ops):
        raw = struct.pack("<HI", op.code, op.flags) + op.args.ljust(ARGS, b"\0")
        ctypes.memmove(start + i * STRIDE, raw, len(raw))


def _first(handle):
    return ctypes.c_void_p.from_address(handle).value


def _stride():
    """Bytes from one operation of a request to the next."""
    handle, _ = _new([Op(0, indata=b"x" * 0x51), Op(0, indata=b"x" * 0x52)])
    start = _first(handle)
    memory = ctypes.string_at(start, 1024)
    head = struct.pack("<HI", CALL, 0)
    at = memory.index(head, HEAD)
    assert memory.startswith(head) and memory[at + 9] == 0x52, "not the librados that is known"
    LIB.rados_release_read_op(ctypes.c_void_p(handle))
    return at


STRIDE = _stride()


class Cluster:
    def __init__(self, conf=None, name="client.admin"):
        self.handle = ctypes.c_void_p()
        assert LIB.rados_create2(ctypes.byref(self.handle), None, name.encode(), ctypes.c_uint64(0)) == 0
        conf = conf or os.environ["CEPH_CONF"]
        assert LIB.rados_conf_read_file(self.handle, conf.encode()) == 0, conf

    def set(self, option, value):
        assert LIB.rados_conf_set(self.handle, option.encode(), value.encode()) == 0
        return self

    def connect(self):
        r = LIB.rados_connect(self.handle)
        assert r == 0, r
        return self

    def pool(self, name):
        return Pool(self, name)

    def command(self, text):
        """A monitor command in JSON; returns result, output and message."""
        array = (ctypes.c_char_p * 1)(text.encode())
        out, out_len = ctypes.c_void_p(), ctypes.c_size_t()
        msg, msg_len = ctypes.c_void_p(), ctypes.c_size_t()
        r = LIB.rados_mon_command(
            self.handle, array, ctypes.c_size_t(1), b"", ctypes.c_size_t(0), ctypes.byref(out),
            ctypes.byref(out_len), ctypes.byref(msg), ctypes.byref(msg_len))
        return r, take(out, out_len), take(msg, msg_len)

    def close(self):
        LIB.rados_shutdown(self.handle)


class Pool:
    def __init__(self, cluster, name):
        self.io = ctypes.c_void_p()
        r = LIB.rados_ioctx_create(cluster.handle, name.encode(), ctypes.byref(self.io))
        assert r == 0, (name, r)
        LIB.rados_ioctx_get_id.restype = ctypes.c_int64
        self.id = LIB.rados_ioctx_get_id(self.io)

    def at(self, nspace="", locator=None):
        LIB.rados_ioctx_set_namespace(self.io, nspace.encode())
        LIB.rados_ioctx_locator_set_key(self.io, None if locator is None else locator.encode())
        return self

    def run(self, oid, ops, flags=0):
        """The request's result, and each operation's own result and output."""
        handle, results = read_request(ops)
        r = LIB.rados_read_op_operate(ctypes.c_void_p(handle), self.io, oid.encode(), flags)
        version = self.version()
        LIB.rados_release_read_op(ctypes.c_void_p(handle))
        return r, [(rval.value, take(out, length)) for out, length, rval in results], version

    def write(self, oid, data):
        """By the library's own call, with the snapshot context of the pool's handle."""
        r = LIB.rados_write_full(self.io, oid.encode(), data, ctypes.c_size_t(len(data)))
        assert r == 0, (oid, r)

    def version(self):
        LIB.rados_get_last_version.restype = ctypes.c_uint64
        return LIB.rados_get_last_version(self.io)


def take(pointer, length):
    if not pointer:
        return b""
    data = ctypes.string_at(pointer, length.value)
    LIBC.free(pointer)
    return data
