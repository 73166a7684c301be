#!/bin/bash
# Three monitors as processes: clients go on while one is killed or stopped, two of three gone is no
# quorum, and whoever comes back is in it again. In a cluster of its own.
. "$(dirname "$0")/_lib.sh"

if [ -z "${QUORUM_INSIDE:-}" ]; then
  rm -rf "$T"
  QUORUM_INSIDE=1 exec "${SPIRULA:?the binary}" vstart --mons 3 --osds 1 --device-size 1G --procs -- bash "$0"
fi

D=$(dirname "$CEPH_CONF")
c() { timeout 30 ceph "$@"; }
r() { timeout 30 rados -p p "$@"; }
pid() { cat "$D/run/mon.$1.pid"; }
names() { json c quorum_status -- '",".join(d["quorum_names"])'; }
started=()
trap 'rc=$?; for p in "${started[@]}"; do kill "$p" 2>/dev/null || true; done; rm -rf "$T"; [ $rc = 0 ] || echo "FAILED: $0 line $LINENO (exit $rc)" >&2' EXIT
start() { "$SPIRULA" mon --dir "$D" --id "$1" >"$T/mon.$1.out" 2>&1 & started+=($!); echo $! >"$D/run/mon.$1.pid"; }
# within SECONDS WANT WHAT COMMAND...
within() {
  local end=$((SECONDS + $1)) want=$2 what=$3 got=; shift 3
  while got=$("$@" 2>/dev/null) || true; [ "$got" != "$want" ]; do
    [ $SECONDS -lt $end ] || fail "$what: '$got' instead of '$want'"
    sleep 0.2
  done
}

within 10 a,b,c "the quorum" names
has "quorum a,b,c" c -s
has "3 mons at {a=v2:" c mon stat
c osd pool create p 8
echo before >"$T/before"
r put before "$T/before"

# The leader dies: no command fails.
leader=$(json c quorum_status -- 'd["quorum_leader_name"]')
kill -9 "$(pid "$leader")"
for i in $(seq 5); do
  echo "$i" >"$T/o"
  r put "o$i" "$T/o"
  c osd pool create "q$i" 8
  c config set osd osd_max_backfills "$((i + 1))"
done
rest=$(echo a,b,c | tr , '\n' | grep -v "$leader" | paste -sd,)
within 10 "$rest" "the quorum without its leader" names
has "out of quorum: $leader" c -s
expect before "$(r get before -)" "an object from before"
next=$(json c quorum_status -- 'd["quorum_leader_name"]')
[ "$next" != "$leader" ] || fail "mon.$leader still leads"
grep -q "^e[0-9]*: 3 mons at .* quorum .* $rest\$" <(c mon stat) || fail "mon stat: $(c mon stat)"

# One of two is no majority: nothing is answered, nothing is lost.
other=${rest/$next/}; other=${other/,/}
kill -STOP "$(pid "$other")"
expect_rc 124 timeout 6 ceph osd pool create never 8
kill -CONT "$(pid "$other")"
within 20 "$rest" "the quorum once it goes on" names

# Whoever was away comes back and learns what it missed, and may be the one that is asked.
start "$leader"
within 15 a,b,c "all three" names
port=$(json c mon dump -- "[m['public_addrs']['addrvec'][0]['addr'] for m in d['mons'] if m['name'] == '$leader'][0]")
has q5 timeout 30 ceph -m "v2:$port" osd pool ls
timeout 30 ceph -m "v2:$port" osd pool create late 8
has late c osd pool ls
expect "[0, 1, 2]" "$(json timeout 20 ceph tell "mon.$leader" mon_status -- 'd["quorum"]')" "mon_status of the one that came back"
