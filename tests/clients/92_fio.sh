#!/bin/bash
# fio's rbd and rados engines: what was written is read again with its checksums, 4 KiB to 4 MiB.
. "$(dirname "$0")/_lib.sh"
ceph osd pool create p92 32
rbd pool init p92
rbd create p92/i --size 64M
rbd create p92/striped --size 64M --object-size 1M --stripe-unit 64K --stripe-count 4

# run ENGINE NAME OPTION...: one fio job; a block that reads back otherwise fails it.
run() {
  local engine=$1 name=$2; shift 2
  fio --name="$name" --ioengine="$engine" --pool=p92 --clientname=admin --output-format=json --output="$T/$name.json" \
    --randseed=92 --verify_fatal=1 --verify_state_save=0 "$@" >"$T/out" 2>&1 ||
    { cat "$T/out" "$T/$name.json" >&2 || true; fail "fio $name"; }
  /usr/bin/python3 - "$T/$name.json" <<'P'
import json, sys
text = open(sys.argv[1]).read()
job = json.loads(text[text.index("{"):])["jobs"][0]
assert job["error"] == 0, job["error"]
count = {way: job[way]["total_ios"] for way in ("write", "read", "trim")}
print(job["jobname"], *(f"{way} {n}" for way, n in count.items()))
P
}
rbd_job() { run rbd "$@" --rbdname="${IMAGE:-i}"; }
V=(--verify=crc32c --do_verify=1 --iodepth=16)

rbd_job rand4k "${V[@]}" --rw=randwrite --bs=4k --io_size=8M
rbd_job seq64k "${V[@]}" --rw=write --bs=64k --size=32M
rbd_job seq4m "${V[@]}" --rw=write --bs=4m
rbd_job mixed "${V[@]}" --rw=randwrite --bsrange=4k-4m --bs_unaligned=0 --norandommap=0
IMAGE=striped rbd_job striped "${V[@]}" --rw=randwrite --bs=16k --size=32M
# Each block is trimmed, then written (one after the other: fio does not wait for its trim); then all are trimmed.
rbd_job trimwrite "${V[@]}" --iodepth=1 --rw=randtrimwrite --bs=64k --io_size=32M
rbd_job trim --rw=randtrim --bs=64k --iodepth=16 --size=64M
rbd export p92/i - 2>/dev/null | cmp - <(head -c 64M /dev/zero) || fail "a trimmed image is not zeros"

rados_job() { run rados "$@" --conf="$CEPH_CONF" --nrfiles=8; }
rados_job rados4k "${V[@]}" --rw=randwrite --bs=4k --size=8M
rados_job rados64k "${V[@]}" --rw=write --bs=64k --size=32M
rados_job rados4m "${V[@]}" --rw=randwrite --bs=4m --size=64M
rados_job radostrim --rw=randtrim --bs=64k --iodepth=16 --size=32M
