"""10,000 objects and compound operations through python3-rados; exits non-zero on any difference."""
import os
import rados

COUNT = 10_000


def content(i):
    return b"%06d" % i * (1 + i % 50)


def many_objects(io):
    window = []
    for i in range(COUNT):
        window.append(io.aio_write_full("o%d" % i, content(i)))
        if len(window) == 64:
            for c in window:
                c.wait_for_complete_and_cb()
                assert c.get_return_value() == 0, c.get_return_value()
            window = []
    for c in window:
        c.wait_for_complete_and_cb()
    names = {o.key for o in io.list_objects()}
    assert names == {"o%d" % i for i in range(COUNT)}, len(names)
    for i in range(0, COUNT, 7):
        assert io.read("o%d" % i) == content(i), i


def compound(io):
    with rados.WriteOpCtx() as op:
        op.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
        op.write_full(b"body")
        op.set_xattr("x", b"1")
        io.set_omap(op, ("a", "b", "c"), (b"1", b"2", b"3"))
        io.operate_write_op(op, "compound")
    with rados.ReadOpCtx() as op:
        keys, ret = io.get_omap_vals(op, "", "", 10)
        io.operate_read_op(op, "compound")
        assert dict(keys) == {"a": b"1", "b": b"2", "c": b"3"}
    # All or nothing: the exclusive create fails, so the write beside it must not happen.
    try:
        with rados.WriteOpCtx() as op:
            op.write_full(b"other")
            op.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
            io.operate_write_op(op, "compound")
        raise AssertionError("exclusive create of an existing object succeeded")
    except rados.ObjectExists:
        pass
    assert io.read("compound") == b"body"


def main():
    with rados.Rados(conffile=os.environ["CEPH_CONF"]) as cluster:
        cluster.create_pool("py")
        with cluster.open_ioctx("py") as io:
            many_objects(io)
            compound(io)
        cluster.delete_pool("py")
        assert not cluster.pool_exists("py")


main()
