#!/bin/bash
# Snapshots of objects: the recorded answers of a real Ceph through python3-rados, pool snapshots through `rados`.
. "$(dirname "$0")/_lib.sh"
/usr/bin/python3 "$(dirname "$0")/_snapshots.py" "$(dirname "$0")/../../crates/osd/src/snap/ceph.txt"

ceph osd pool create p27 4
r() { rados -p p27 "$@"; }
sums() { rados df -f json | /usr/bin/python3 -c "
import json, sys
print(*[(p['num_objects'], p['num_object_clones']) for p in json.load(sys.stdin)['pools'] if p['name'] == 'p27'])"; }

# wait_for WANT WHAT COMMAND...
wait_for() {
  local want=$1 what=$2; shift 2
  for _ in $(seq 150); do [ "$("$@")" != "$want" ] || return 0; sleep 0.2; done
  fail "$what: expected '$want', got '$("$@")'"
}

head -c 10000 /dev/urandom >"$T/a"; head -c 6000 /dev/urandom >"$T/b"
r put o "$T/a"; r setxattr o k old; r setomapval o ok old; r put gone "$T/a"
r mksnap s1
r put o "$T/b"; r setxattr o k new; r setomapval o ok new; r rm gone; r put later "$T/b"
expect "gone later o" "$(r ls | sort | xargs)" "a deleted object that a snapshot shows is listed"
r -s s1 get o "$T/got"; cmp "$T/a" "$T/got" || fail "data at a snapshot"
r -s s1 get gone "$T/got"; cmp "$T/a" "$T/got" || fail "deleted data at a snapshot"
has "size 10000" r -s s1 stat o
has old r -s s1 getxattr o k
has old r -s s1 getomapval o ok
expect_rc 1 r -s s1 get later "$T/got"
expect_rc 1 r get gone "$T/got"
has "$(printf '1\t1\t10000\t[]\nhead\t-\t6000')" r listsnaps o
wait_for "(5, 2)" "objects and clones" sums

r rollback o s1
r get o "$T/got"; cmp "$T/a" "$T/got" || fail "data after a rollback"
expect old "$(r getxattr o k)" "xattr after a rollback"
has old r getomapval o ok
r rollback later s1
expect_rc 1 r stat later
r rollback gone s1
r get gone "$T/got"; cmp "$T/a" "$T/got" || fail "a deleted object after a rollback"

r rmsnap s1
wait_for "(2, 0)" "objects and clones after trimming" sums
expect "gone o" "$(r ls | sort | xargs)" "listing after trimming"
