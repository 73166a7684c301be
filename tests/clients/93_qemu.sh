#!/bin/bash
# qemu-img and qemu-io on rbd:POOL/IMAGE: create, convert, compare, check, bench, snapshot, resize, discard.
. "$(dirname "$0")/_lib.sh"
. "$(dirname "$0")/_qemu.sh"
qemu_unpack
ceph osd pool create p93 32
rbd pool init p93
img() { "$QEMU_IMG" "$@"; }
# snapshot OPTION...: of the image `disk`, which `qemu-img snapshot` takes for raw only in this long form.
snapshot() { img snapshot -q --image-opts "$@" driver=raw,file.driver=rbd,file.pool=p93,file.image=disk; }
# io IMAGE COMMAND...: each must succeed; a pattern that differs is a failure, too.
io() {
  local image=$1 args=() c; shift
  for c in "$@"; do args+=(-c "$c"); done
  "$QEMU_IO" -f raw "${args[@]}" "$image" >"$T/out" 2>&1 || { cat "$T/out" >&2; fail "qemu-io $image $*"; }
  if grep -q "Pattern verification failed" "$T/out"; then cat "$T/out" >&2; fail "qemu-io $image $*"; fi
}

img create -f raw -o cluster_size=1M rbd:p93/disk 48M >"$T/out"
expect 50331648 "$(img info --output=json rbd:p93/disk | /usr/bin/python3 -c 'import json,sys; print(json.load(sys.stdin)["virtual-size"])')" "size"
has "order 20" rbd info p93/disk
io rbd:p93/disk "write -P 0x11 0 1M" "write -P 0x22 3M 5M" "write -P 0x33 40000k 3k" "aio_write -P 0x44 20M 2M" aio_flush flush
io rbd:p93/disk "read -P 0x11 0 1M" "read -P 0 1M 2M" "read -P 0x22 3M 5M" "read -P 0x33 40000k 3k" "read -P 0x44 20M 2M" length

# Discards (whole and in part of objects), zeros, and what is left between.
io rbd:p93/disk "discard 4M 2M" "discard 64k 128k" "write -z 6500k 100k" "write -z -u 7M 1M" \
  "read -P 0x22 3M 1M" "read -P 0 4M 2M" "read -P 0x22 6M 356k" "read -P 0 6500k 100k" "read -P 0x22 6600k 568k" \
  "read -P 0 7M 1M" "read -P 0x11 0 64k" "read -P 0 64k 128k" "read -P 0x11 192k 832k"
img map --output=json rbd:p93/disk >"$T/map"
/usr/bin/python3 - "$T/map" <<'P'
import json, sys
holes = [(e["start"], e["start"] + e["length"]) for e in json.load(open(sys.argv[1])) if not e["data"]]
assert any(a <= 4 << 20 and 6 << 20 <= b for a, b in holes), holes
P

# Snapshots: made, listed, read by name, gone back to, deleted.
snapshot -c one
io rbd:p93/disk "write -P 0x55 0 8M"
snapshot -l >"$T/snaps"
grep -q " one " "$T/snaps" || fail "snapshot -l: $(cat "$T/snaps")"
img convert -f raw -O raw rbd:p93/disk@one "$T/one.raw"
io "$T/one.raw" "read -P 0x11 0 64k" "read -P 0x22 3M 1M" "read -P 0 4M 2M" "read -P 0x44 20M 2M"
expect_rc 1 img compare -f raw -F raw rbd:p93/disk "$T/one.raw"
snapshot -a one
img compare -f raw -F raw rbd:p93/disk "$T/one.raw"
snapshot -d one
expect "" "$(snapshot -l)" "snapshots at the end"

# Convert in both directions, sparse; resize both ways.
img convert -f raw -O qcow2 -c rbd:p93/disk "$T/disk.qcow2"
img check "$T/disk.qcow2" >"$T/out" || { cat "$T/out" >&2; fail "check"; }
img convert -f qcow2 -O raw -W -m 4 "$T/disk.qcow2" rbd:p93/copy
img compare -f raw -F raw rbd:p93/disk rbd:p93/copy
rbd export p93/copy - --no-progress | cmp - "$T/one.raw" || fail "rbd reads another copy than QEMU"
img resize -f raw rbd:p93/copy 56M >"$T/out"
io rbd:p93/copy "read -P 0 48M 8M" "write -P 0x66 55M 1M" "read -P 0x66 55M 1M"
img resize -f raw --shrink rbd:p93/copy 44M >"$T/out"
expect_rc 1 "$QEMU_IO" -f raw -c "read 44M 1M" rbd:p93/copy
img resize -f raw rbd:p93/copy 56M >"$T/out"
io rbd:p93/copy "read -P 0 44M 12M"

# A qcow2 inside an image, which grows while it is written; its internal snapshots; a backing file.
img create -f qcow2 rbd:p93/inner 32M >"$T/out"
"$QEMU_IO" -f qcow2 -c "write -P 0x77 1M 6M" -c "read -P 0x77 1M 6M" rbd:p93/inner >"$T/out"
img snapshot -q -c inside rbd:p93/inner
"$QEMU_IO" -f qcow2 -c "write -P 0x78 0 3M" rbd:p93/inner >"$T/out"
img snapshot -q -a inside rbd:p93/inner
"$QEMU_IO" -f qcow2 -c "read -P 0 0 1M" -c "read -P 0x77 1M 6M" rbd:p93/inner >"$T/out"
! grep "Pattern verification failed" "$T/out" || fail "qcow2 in an image"
img check -f qcow2 rbd:p93/inner >"$T/out" || { cat "$T/out" >&2; fail "check of a qcow2 in an image"; }
expect_rc 63 img check -f raw rbd:p93/disk

img bench -w -f raw -c 400 -d 16 -s 4096 -S 69632 rbd:p93/copy >"$T/out"
img bench -f raw -c 400 -d 16 -s 65536 rbd:p93/copy >"$T/out"
img bench -w -f raw -c 20 -d 4 -s 2M --flush-interval=5 rbd:p93/copy >"$T/out"

# Two writers at once: the exclusive lock goes to and fro between QEMU and rbd.
rbd bench p93/disk --io-type write --io-size 4096 --io-threads 1 --io-total 1M >"$T/bench" 2>&1 &
other=$!
for round in 1 2 3; do io rbd:p93/disk "write -P 0x7$round 46M 4k" "read -P 0x7$round 46M 4k"; done
wait "$other" || { cat "$T/bench" >&2; fail "rbd bench beside QEMU"; }
for image in disk copy inner; do rbd rm --no-progress "p93/$image"; done
expect_rc 1 img info rbd:p93/disk
grep -q "No such file" "$T/out" || fail "an absent image: $(cat "$T/out")"
