#!/bin/bash
# Watch and notify: librados through ctypes, `rados watch|notify|listwatchers`.
. "$(dirname "$0")/_lib.sh"
/usr/bin/python3 "$(dirname "$0")/85_watch.py"

ceph osd pool create p85 8
rados -p p85 create o
mkfifo "$T/keep"
rados -p p85 watch o <"$T/keep" >"$T/watch" 2>&1 &
watcher=$!
exec 9>"$T/keep"
for _ in $(seq 100); do
  rados -p p85 listwatchers o >"$T/list"
  if [ -s "$T/list" ]; then break; fi
  sleep 0.1
done
cookie=$(sed -n 's/^watcher=.*:0\/[0-9]* client\.[0-9]* cookie=\([0-9]*\)$/\1/p' "$T/list")
[ -n "$cookie" ] || fail "listwatchers: $(cat "$T/list")"
has "cookie $cookie" rados -p p85 notify o hello
grep -q "NOTIFY cookie $cookie notify_id [0-9]* from [0-9]*" "$T/watch" || fail "watch: $(cat "$T/watch")"
echo >&9
exec 9>&-
wait "$watcher"
expect "" "$(rados -p p85 listwatchers o)" "watchers at the end"
expect_rc 1 rados -p p85 notify absent hello
