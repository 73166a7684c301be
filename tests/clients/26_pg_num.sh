#!/bin/bash
# PGs that are split and merged under load: objects, omaps, snapshots and watches stay, counts are right.
. "$(dirname "$0")/_lib.sh"

ceph osd pool create pgs 8 8
ceph osd pool application enable pgs rados
r() { rados -p pgs "$@"; }

# What the commands refuse, and with which words.
expect_rc 34 ceph osd pool set pgs pg_num 0
expect_rc 34 ceph osd pool set pgs pg_num 70000
expect_rc 22 ceph osd pool set pgs pgp_num 0
expect_rc 22 ceph osd pool set pgs pgp_num 9
grep -qF 'specified pgp_num 9 > pg_num 8' "$T/out" || fail "pgp_num: $(cat "$T/out")"
ceph osd pool set pgs nopgchange 1
expect_rc 1 ceph osd pool set pgs pg_num 16
grep -qF 'pool pg_num change is disabled' "$T/out" || fail "nopgchange: $(cat "$T/out")"
ceph osd pool set pgs nopgchange 0

# Each object tells its name; some have an omap, all were changed after a snapshot.
for i in $(seq 40); do
  echo "old $i" >"$T/in"; r put "o$i" "$T/in"
  [ $((i % 4)) = 0 ] && r setomapval "o$i" key "value $i"
done
r mksnap before
for i in $(seq 40); do echo "new $i" >"$T/in"; r put "o$i" "$T/in"; done

check() {
  for i in $(seq 1 6 40); do
    r get "o$i" "$T/got"; expect "new $i" "$(cat "$T/got")" "$1: o$i"
    r -s before get "o$i" "$T/got" >/dev/null; expect "old $i" "$(cat "$T/got")" "$1: o$i before"
  done
  for i in 4 20 40; do has "value $i" rados -p pgs getomapval "o$i" key; done
  expect "$(seq 40 | sed 's/^/o/' | sort)" "$(r ls | grep '^o' | sort)" "$1: listing"
}

# to NUMBER: the pool has so many PGs, all of them well.
to() {
  ceph osd pool set pgs pg_num "$1" 2>/dev/null
  for _ in $(seq 60); do
    [ "$(ceph osd pool get pgs pg_num)" = "pg_num: $1" ] &&
      [ "$(json ceph pg stat -- "[s['num'] for s in d['pg_summary']['num_pg_by_state'] if s['name'] == 'active+clean'] == [d['pg_summary']['num_pgs']]")" = True ] &&
      return
    sleep 0.5
  done
  fail "pg_num does not become $1: $(ceph osd pool ls detail | grep pgs)"
}

r bench 60 write -b 4096 -t 8 --no-cleanup --run-name load >"$T/bench" 2>&1 & load=$!
for n in 32 12 8; do
  to "$n"
  check "with $n PGs"
done
kill -INT "$load"; wait "$load" || true
grep -qi 'error' "$T/bench" && fail "the load saw: $(cat "$T/bench")"

# Counters are of all objects: heads and clones.
heads=$(r ls | wc -l)
for _ in $(seq 40); do
  found=$(json rados df -- "[p['num_objects'] for p in d['pools'] if p['name'] == 'pgs'][0]")
  [ "$found" = $((heads + 40)) ] && break
  sleep 0.5
done
expect $((heads + 40)) "$found" "objects counted"
r rmsnap before
ceph osd pool rm pgs pgs --yes-i-really-really-mean-it
echo "26_pg_num: ok"
