#!/bin/bash
# `rados bench` write, seq, rand and cleanup at 4 KiB and 4 MiB. BENCH_SECONDS: length of each run.
. "$(dirname "$0")/_lib.sh"
S=${BENCH_SECONDS:-2}
ceph osd pool create p1 32
for size in 4096 4194304; do
  rados bench -p p1 "$S" write -b "$size" --no-cleanup >"$T/out" || { cat "$T/out"; fail "bench write $size"; }
  grep -E '^(Bandwidth|Average IOPS)' "$T/out"
  rados bench -p p1 "$S" seq >"$T/out" || { cat "$T/out"; fail "bench seq $size"; }
  rados bench -p p1 "$S" rand >"$T/out" || { cat "$T/out"; fail "bench rand $size"; }
  rados -p p1 cleanup >/dev/null
done
expect "" "$(rados -p p1 ls)" "objects left after cleanup"
