#!/bin/bash
# iSCSI: tgt serves an image through its rbd backing store, a user-space initiator (libiscsi) uses it.
. "$(dirname "$0")/_lib.sh"
. "$(dirname "$0")/_qemu.sh"
qemu_unpack
ceph osd pool create p95 32
rbd pool init p95
rbd create p95/lun --size 16M
tgtd=
trap 'rc=$?; [ -z "$tgtd" ] || kill -9 "$tgtd" 2>/dev/null || true; rm -rf "$T"; [ $rc = 0 ] || echo "FAILED: $0 (exit $rc)" >&2' EXIT

# A target daemon of our own: its control socket is private, its portal a free port of the loopback.
export TGT_IPC_SOCKET="$T/tgtd"
port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
iqn=iqn.2026-01.io.spirula:lun
url=iscsi://127.0.0.1:$port
tgt() { tgtadm -C 0 --lld iscsi "$@"; }
start_tgtd() {
  tgtd -f -C 0 --iscsi "portal=127.0.0.1:$port" >"$T/log" 2>&1 &
  tgtd=$!
  for _ in $(seq 100); do
    if tgt --mode system --op show >/dev/null 2>&1; then break; fi
    kill -0 "$tgtd" 2>/dev/null || { cat "$T/log" >&2; fail "tgtd did not start"; }
    sleep 0.1
  done
  tgt --mode target --op new --tid 1 --targetname "$iqn"
  tgt --mode logicalunit --op new --tid 1 --lun 1 --bstype rbd --backing-store p95/lun --bsopts "conf=$CEPH_CONF;id=admin" ||
    { cat "$T/log" >&2; fail "no LUN"; }
  tgt --mode target --op bind --tid 1 --initiator-address ALL
}
# The clean way: no LUN is open any more when the daemon ends.
stop_tgtd() {
  tgt --mode logicalunit --op delete --tid 1 --lun 1
  tgt --mode target --op delete --tid 1
  tgt --mode system --op delete
  wait "$tgtd" || fail "tgtd exited with $?"
  tgtd=
}
start_tgtd

has "$iqn" iscsi-ls -s "$url"
has "Lun:1" iscsi-ls -s "$url"
has "Vendor:IET" iscsi-inq "$url/$iqn/1"
has "RETURNED LOGICAL BLOCK ADDRESS:32767" iscsi-readcapacity16 "$url/$iqn/1"

# SCSI conformance tests. (Not UNMAP and WRITE SAME: tgt 1.0.85 takes librbd's answer to a discard for an
# error, and does not return from a WRITE SAME, on any cluster.)
for test in Read10.Simple Read16.BeyondEol Write10.Simple Write16.BeyondEol Verify16.Simple; do
  timeout 30 iscsi-test-cu -d -f -t "ALL.$test" "$url/$iqn/1" >"$T/out" 2>&1 ||
    { cat "$T/out" >&2; fail "iscsi-test-cu $test"; }
done

# A disk goes out over iSCSI and comes back: over iSCSI, and from the image.
/usr/bin/python3 - "$T/disk" <<'P'
import random, sys
dice = random.Random(95)
with open(sys.argv[1], "wb") as f:
    f.truncate(16 << 20)
    for _ in range(200):
        f.seek(dice.randrange(0, 16 << 20, 512) % ((16 << 20) - (256 << 10)))
        f.write(dice.randbytes(dice.randrange(512, 256 << 10, 512)))
P
"$QEMU_IMG" convert -n -f raw -O raw "$T/disk" "$url/$iqn/1"
"$QEMU_IMG" compare -f raw -F raw "$T/disk" "$url/$iqn/1"
rbd export --no-progress p95/lun - | cmp - "$T/disk" || fail "the image is not what iSCSI wrote"
io() {
  local args=() c
  for c in "$@"; do args+=(-c "$c"); done
  "$QEMU_IO" -f raw "${args[@]}" "$url/$iqn/1" >"$T/out" 2>&1 || { cat "$T/out" >&2; fail "qemu-io $*"; }
  ! grep -q "verification failed" "$T/out" || { cat "$T/out" >&2; fail "qemu-io $*"; }
}
io "write -P 0x5a 1M 3M" "aio_write -P 0x5b 8M 2M" aio_flush "write -z 2M 1M" flush \
  "read -P 0x5a 1M 1M" "read -P 0 2M 1M" "read -P 0x5a 3M 1M" "read -P 0x5b 8M 2M"

# A snapshot beneath a running target, gone back to when the target is down.
rbd snap create --no-progress p95/lun@s
io "write -P 0x5c 0 12M"
rbd export --no-progress p95/lun@s "$T/s"
stop_tgtd
id=$(rbd info --format json p95/lun | /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
expect "" "$(rados -p p95 listwatchers "rbd_header.$id")" "watchers"
rbd snap rollback --no-progress p95/lun@s
start_tgtd
"$QEMU_IMG" compare -q -f raw -F raw "$T/s" "$url/$iqn/1" || fail "iSCSI does not read what was rolled back"
io "read -P 0x5a 1M 1M" "read -P 0 2M 1M" "read -P 0x5b 8M 2M"
stop_tgtd
