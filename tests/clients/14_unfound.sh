#!/bin/bash
# A PG that is not healthy: objects that only a dead OSD had are listed, waited for and given up; recovery is put first;
# reads are answered by copies. In a cluster of its own, each daemon as a process.
. "$(dirname "$0")/_lib.sh"

if [ -z "${IN_PROCS:-}" ]; then
  IN_PROCS=1 "${SPIRULA:?path of spirula}" vstart --procs --osds 3 --device-size 256M --dir "$T/c" -- bash "$0"
  exit
fi
D=$(dirname "$CEPH_CONF")

# until_ok SECONDS WHAT COMMAND...: the command succeeds by then.
until_ok() {
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >"$T/until" 2>&1; do
    [ $SECONDS -lt $end ] || { cat "$T/until"; ceph -s; ceph pg dump pgs_brief; fail "not in time: $what"; }
    sleep 0.3
  done
}
state_has() { json ceph pg "$PG" query -- "d['state']" | grep -qE -- "$1"; }
says() { local want=$1; shift; "$@" 2>&1 | grep -qF -- "$want"; }
is_down() { [ "$(json ceph osd dump -- "[o['up'] for o in d['osds'] if o['osd'] == $1][0]")" = 0 ]; }
kill_osd() {
  kill -9 "$(cat "$D/run/osd.$1.pid")"
  until_ok 30 "osd.$1 is down" is_down "$1"
}
start_osd() {
  "$SPIRULA" engine --osd "$1" --dir "$D" --parent $$ >>"$D/log/osd.$1.out" 2>&1 &
  echo $! >"$D/run/osd.$1.pid"
}

ceph config set global osd_heartbeat_grace 6
ceph config set osd osd_heartbeat_interval 1
ceph osd pool create p 1 1 >/dev/null
ceph osd pool set p size 2
ceph osd pool set p min_size 1
PG=$(json ceph osd map p a -- "d['pgid']")
rados -p p create o
until_ok 60 "clean" state_has "^active.clean$"
A=$(json ceph osd map p a -- "d['acting'][0]")
B=$(json ceph osd map p a -- "d['acting'][1]")

# Reads that any copy may answer are answered by the one that is not the primary, too.
printf before | rados -p p put o -
cat >"$T/read.py" <<'P'
import ctypes, os, sys
lib = ctypes.CDLL("librados.so.2")
cluster, io = ctypes.c_void_p(), ctypes.c_void_p()
assert lib.rados_create(ctypes.byref(cluster), b"admin") == 0
assert lib.rados_conf_read_file(cluster, os.environ["CEPH_CONF"].encode()) == 0
assert lib.rados_connect(cluster) == 0
assert lib.rados_ioctx_create(cluster, b"p", ctypes.byref(io)) == 0
lib.rados_create_read_op.restype = ctypes.c_void_p
for n in range(40):
    op = ctypes.c_void_p(lib.rados_create_read_op())
    buf, length, rc = ctypes.create_string_buffer(64), ctypes.c_size_t(), ctypes.c_int()
    lib.rados_read_op_read(op, ctypes.c_uint64(0), ctypes.c_size_t(64), buf, ctypes.byref(length), ctypes.byref(rc))
    assert lib.rados_read_op_operate(op, io, b"o", int(sys.argv[1])) == 0
    assert buf.raw[:length.value] == b"before", buf.raw
    lib.rados_release_read_op(op)
lib.rados_ioctx_destroy(io)
lib.rados_shutdown(cluster)
P
served() { json ceph tell "osd.$B" perf dump -- "d['osd']['op']"; }
answers_reads() {
  local before; before=$(served)
  python3 "$T/read.py" "$1" || return 1
  [ "$(served)" -gt "$before" ]
}
until_ok 60 "reads at a copy" answers_reads 1

# B is away while A alone is written to; then A dies.
ceph osd set noout
ceph osd set norecover
kill_osd "$B"
printf after | rados -p p put o -
printf after | rados -p p put new -
has "pg has no unfound objects" ceph pg "$PG" mark_unfound_lost revert
start_osd "$B"
until_ok 60 "recovery waits" state_has active.recover
until_ok 30 "forcing" says "instructing pg(s) [$PG] on osd.$A to force-recovery" ceph pg force-recovery "$PG"
until_ok 20 "forced" state_has "forced_recovery"
until_ok 30 "not forcing" says "instructing pg(s) [$PG] on osd.$A to cancel-force-recovery" ceph pg cancel-force-recovery "$PG"
sleep 3
kill_osd "$A"
until_ok 60 "unfound" state_has active.recovery_unfound
expect 2 "$(json ceph pg "$PG" list_unfound -- "d['num_unfound']")" "unfound objects"
expect "osd is down" "$(json ceph pg "$PG" list_unfound -- "d['might_have_unfound'][0]['status']")" "who may have them"
expect "$A" "$(json ceph pg "$PG" query -- "d['recovery_state'][0]['might_have_unfound'][0]['osd']")" "who may have them"
expect_rc 22 ceph pg "$PG" mark_unfound_lost revert
grep -qF "pg has 2 unfound objects but we haven't probed all sources, not marking lost" "$T/out" || fail "$(cat "$T/out")"
until_ok 30 "health tells" says "OBJECT_UNFOUND: 2/" ceph health detail
ceph osd lost "$A" --yes-i-really-mean-it
rados -p p get o "$T/waited" &
reader=$!
sleep 2
kill -0 $reader || fail "nobody knows what the object is, and it is read"
has "pg has 2 objects unfound and apparently lost marking" ceph pg "$PG" mark_unfound_lost revert
wait $reader
expect before "$(cat "$T/waited")" "what it went back to"
expect_rc 1 rados -p p stat new
found() { ! says OBJECT_UNFOUND ceph health detail; }
until_ok 30 "health is well" found
ceph osd unset norecover
start_osd "$A"
until_ok 90 "clean again" state_has "^active.clean$"
expect before "$(rados -p p get o -)" "after all are back"
expect_rc 1 rados -p p stat new
