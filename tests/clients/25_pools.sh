#!/bin/bash
# Pools beside their objects: snapshots and their ids, quotas, applications, bans, and what users with
# capabilities for RBD may do. Passes on a real Ceph too.
. "$(dirname "$0")/_lib.sh"

ceph osd pool create snaps 8
ceph osd pool create ids 8

# Snapshots of a pool.
has "created pool snaps snap one" ceph osd pool mksnap snaps one
has "pool snaps snap one already exists" ceph osd pool mksnap snaps one
rados -p snaps mksnap two
has "2 snaps" rados -p snaps lssnap
expect_rc 1 rados -p snaps mksnap two
rados -p snaps rmsnap one
has "pool snaps snap one does not exist" ceph osd pool rmsnap snaps one
expect "pool ['two'] 3" "$(json ceph osd dump -- '*[(p["snap_mode"], [s["name"] for s in p["pool_snaps"]], p["snap_seq"]) for p in d["pools"] if p["pool_name"] == "snaps"][0]')" "pool in osd dump"

# Ids of snapshots that clients manage; a user for RBD may have them.
ceph auth get-or-create client.rbd mon 'profile rbd' osd 'profile rbd pool=ids' >"$T/rbd.keyring"
/usr/bin/python3 - "$T/rbd.keyring" <<'P' || fail "snapshot ids"
import os, rados, sys
def connect(**more):
    cluster = rados.Rados(conffile=os.environ["CEPH_CONF"], **more)
    cluster.connect()
    return cluster
def errno(call, *args):
    try:
        call(*args)
    except rados.Error as e:
        return e.errno
def is_(want, got):
    assert want == got, (want, got)
admin = connect()
ids = connect(name="client.rbd", conf={"keyring": sys.argv[1]}).open_ioctx("ids")
is_(95, errno(ids.remove_self_managed_snap, 1))
is_([2, 3], [ids.create_self_managed_snap() for _ in range(2)])
is_(22, errno(admin.open_ioctx("ids").create_snap, "x"))
is_(22, errno(admin.open_ioctx("snaps").create_self_managed_snap))
is_(1, errno(connect(name="client.rbd", conf={"keyring": sys.argv[1]}).open_ioctx("snaps").create_self_managed_snap))
ids.remove_self_managed_snap(2)
ids.remove_self_managed_snap(2)
is_(2, errno(ids.remove_self_managed_snap, 99))
is_(5, ids.create_self_managed_snap())
P
has "pool ids is in unmanaged snaps mode" bash -c '! ceph osd pool mksnap ids x'

# Quotas: the pool is full soon after it has reached one, and not when that is raised.
ceph osd pool application enable ids rbd
for n in 1 2 3; do rados -p ids put "o$n" /etc/hostname; done
has "set-quota max_objects = 2 for pool ids" ceph osd pool set-quota ids max_objects 2
flags() { json ceph osd dump -- '[p["flags_names"] for p in d["pools"] if p["pool_name"] == "ids"][0]'; }
for _ in $(seq 60); do [[ $(flags) = *,full,* ]] && break; sleep 0.5; done
expect "hashpspool,full,full_quota,selfmanaged_snaps" "$(flags)" "flags of a pool beyond its quota"
has "pool 'ids' is full (running out of quota)" ceph health detail
has "max objects: 2 objects  (current num objects: 3 objects)" ceph osd pool get-quota ids
ceph osd pool set-quota ids max_objects 0
for _ in $(seq 60); do [[ $(flags) = *full* ]] || break; sleep 0.5; done
expect "hashpspool,selfmanaged_snaps" "$(flags)" "flags of a pool without quota"
expect_rc 22 ceph osd pool set-quota ids max_bytes 10X

# Applications and variables.
expect_rc 1 ceph osd pool application enable ids rgw
has "set application 'rbd' key 'k' to 'v' on pool 'ids'" ceph osd pool application set ids rbd k v
expect v "$(ceph osd pool application get ids rbd k)" "application metadata"
expect_rc 22 ceph osd pool set ids allow_ec_overwrites true
has "pool 'ids' renamed to 'ids2'" ceph osd pool rename ids ids2

# A banned client is told so; one that is allowed again has to connect anew.
/usr/bin/python3 - <<'P' || fail "ban"
import json, os, rados
admin, banned = [rados.Rados(conffile=os.environ["CEPH_CONF"]) for _ in range(2)]
admin.connect(), banned.connect()
def ban(op, addr):
    command = {"prefix": "osd blocklist", "blocklistop": op, "addr": addr}
    r, _, status = admin.mon_command(json.dumps(command), b"")
    assert r == 0, status
    return status
io = banned.open_ioctx("snaps")
io.write_full("o", b"x")
addr = banned.get_addrs().split("/")
addr = addr[0].removeprefix("v2:") + "/" + addr[1]
assert ban("add", addr).startswith(f"blocklisting {addr} until ")
banned.wait_for_latest_osdmap()
try:
    io.write_full("o", b"y")
    assert False, "a banned client has written"
except rados.Error as e:
    assert e.errno == 108, e
assert admin.open_ioctx("snaps").read("o") == b"x"
assert ban("rm", addr) == f"un-blocklisting {addr}"
assert ban("rm", addr) == f"{addr} isn't blocklisted"
P
# A network; a real cluster's own daemons would be in it.
[ -z "${SPIRULA:-}" ] || {
  ceph osd blocklist range add 127.0.0.0/8 3
  expect_rc 1 timeout 20 rados -p snaps put o /etc/hostname
  sleep 4
  rados -p snaps put o /etc/hostname
}
has "blocklisting 1.2.3.4:0/5 until" ceph osd blocklist add 1.2.3.4:0/5 60
has "1.2.3.4:0/5 " ceph osd blacklist ls
has "removed all blocklist entries" ceph osd blocklist clear
has "listed 0 entries" ceph osd blocklist ls

# Commands that the rbd tool sends. Our manager has no module for them.
expect_rc 2 ceph config-key get rbd/mirror/peer/1/x
[ -z "${SPIRULA:-}" ] || {
  expect_rc 95 ceph rbd task list
  grep -q "Module 'rbd_support' is not enabled/loaded (required by command 'rbd task list')" "$T/out" || fail "$(cat "$T/out")"
}
