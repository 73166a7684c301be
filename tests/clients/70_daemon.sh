#!/bin/bash
# Admin sockets (`ceph daemon`), debug levels and log files.
. "$(dirname "$0")/_lib.sh"

D=$(dirname "$CEPH_CONF")
d() { ceph daemon "$@"; }

# What every daemon answers.
for name in mon.a mgr.x osd.0; do
  for command in help get_command_descriptions version git_version "config show" "config diff" \
      "perf dump" "perf schema" "log flush" "log reopen" "log dump"; do
    # shellcheck disable=SC2086
    d $name $command >"$T/out" || fail "$name: $command"
    /usr/bin/python3 -m json.tool "$T/out" >/dev/null || fail "$name: $command is not JSON: $(cat "$T/out")"
  done
  expect 16.2.15 "$(json d $name version -- 'd["version"]')" "$name: version"
  has '"log flush"' d $name help
  has 'error getting' d $name config get no_such_option
  has '(2) No such file or directory' d $name config get no_such_option
  expect_rc 22 ceph daemon $name no such command
done
expect_rc 22 ceph daemon osd.77 help

# Of their own.
expect "0" "$(json d osd.0 status -- 'd["whoami"]')" "OSD's status"
expect active "$(json d osd.0 status -- 'd["state"]')" "OSD's state"
expect leader "$(json d mon.a mon_status -- 'd["state"]')" "mon_status"
expect "['a']" "$(json d mon.a quorum_status -- 'd["quorum_names"]')" "quorum_status"
expect 1 "$(json d mon.a perf dump cluster num_mon -- 'd["cluster"]["num_mon"]')" "counter of the monitor"

# Requests: none under way, those that were are remembered and counted.
ceph osd pool create p70 8
echo data >"$T/in"
for i in $(seq 20); do rados -p p70 put "o$i" "$T/in"; done
expect 0 "$(json d osd.0 dump_ops_in_flight -- 'd["num_ops"]')" "requests under way"
expect 0 "$(json d osd.0 ops -- 'len(d["ops"])')" "requests under way"
seen=0
for i in $(ceph osd ls); do
  n=$(json d "osd.$i" dump_historic_ops -- 'len(d["ops"])')
  w=$(json d "osd.$i" perf dump osd op_w -- 'd["osd"]["op_w"]')
  [ "$w" -ge "$(json d "osd.$i" dump_historic_ops -- 'sum("write" in o["description"] for o in d["ops"])')" ] \
    || fail "osd.$i: fewer writes counted than remembered"
  seen=$((seen + n))
done
[ "$seen" -ge 20 ] || fail "only $seen requests are remembered"
timeout 5 ceph daemonperf osd.0 1 1 >"$T/out" || fail "daemonperf: $(cat "$T/out")"

# Options: checked, changed, shown, taken back.
v() { json d osd.0 config get "$1" -- "d['$1']"; }
for i in $(ceph osd ls); do d "osd.$i" config set osd_max_object_size 5M; done
expect 5242880 "$(v osd_max_object_size)" "a size that was set"
head -c 6000000 /dev/urandom >"$T/big"
expect_rc 1 rados -p p70 put big "$T/big"
has '"override": "5242880"' d osd.0 config diff
has '(22) Invalid argument' d osd.0 config set osd_max_object_size many
for i in $(ceph osd ls); do d "osd.$i" config unset osd_max_object_size; done
expect 134217728 "$(v osd_max_object_size)" "the default is back"
rados -p p70 put big "$T/big"

# Log files: one per daemon, in Ceph's form, more of them with a higher level.
lines() { wc -l <"$D/log/$1.log"; }
for name in mon.a osd.0; do
  [ -s "$D/log/$name.log" ] || fail "$name has no log"
  bad=$(grep -vcE '^[0-9-]{10}T[0-9:]{8}\.[0-9]{3}[+-][0-9]{4} [0-9a-f]+ +(-1|[0-9]+) [a-z]+ |^--- | *-?[0-9]+> ' \
    "$D/log/$name.log") || true
  expect 0 "$bad" "lines of $name.log that are not in Ceph's form"
done
d mon.a config set debug_mon 20
expect 20/20 "$(json d mon.a config get debug_mon -- 'd["debug_mon"]')" "debug_mon"
before=$(lines mon.a)
for _ in 1 2 3; do ceph -s >/dev/null; done
d mon.a log flush
[ "$(lines mon.a)" -gt "$before" ] || fail "debug_mon 20 says no more than 1/5"
d mon.a config unset debug_mon
has '(22) Invalid argument' d osd.0 config set debug_osd loud

# Every request, and every message, on demand.
osd=osd.$(json ceph osd map rbd logged -- 'd["acting_primary"]')
d "$osd" config set debug_osd 10
d "$osd" config set debug_ms 1
rados -p rbd put logged /etc/passwd
d "$osd" log flush
d "$osd" config unset debug_ms
d "$osd" config unset debug_osd
for line in ' 10 osd osd_op(client\..* logged \[writefull\]' ' 10 osd reply reqid=' \
  ' 1 ms <== osd_op ' ' 1 ms --> osd_op_reply '; do
  grep -q -- "$line" "$D/log/$osd.log" || fail "no line like '$line' in $osd.log"
done

# A peer that the monitor refuses is in the monitor's log, not in another daemon's.
port=$(grep -o '127.0.0.1:[0-9]*' "$CEPH_CONF" | head -1 | cut -d: -f2)
/usr/bin/python3 - "$port" <<'EOF'
import socket, sys
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
peer.sendall(b"ceph v027" + bytes(200))
while peer.recv(100):
    pass
EOF
d mon.a log flush
grep -q 'connection refused' "$D/log/mon.a.log" || fail "mon.a.log does not say who was refused"

# The same tables over the network: a daemon is asked about itself, the cluster by plain commands.
expect True "$(json ceph tell mgr.x mgr_status -- 'd["initialized"]')" "tell mgr"
expect_rc 22 ceph tell mgr.x pg stat
for name in mon.a mgr.x osd.0; do
  rm -f "$D/log/$name.log"
  expect "{}" "$(ceph tell $name log reopen)" "$name: log reopen"
  [ -f "$D/log/$name.log" ] || fail "$name: no new log file"
  ceph tell $name log dump >"$T/out"
  grep -q 'end dump of recent events' "$D/log/$name.log" || fail "$name: no dump of recent lines"
done

# What the manager was told of options.
ceph tell osd.0 config set debug_ms 3/3 >"$T/out"
shown() { ceph config show "$1" "$2" 2>"$T/err" || cat "$T/err"; }
for _ in $(seq 50); do
  [ "$(shown osd.0 debug_ms)/$(shown mon.a mon_allow_pool_delete)" = 3/3/true ] && break
  sleep 0.2
done
expect 3/3 "$(shown osd.0 debug_ms)" "config show of an OSD"
expect true "$(shown mon.a mon_allow_pool_delete)" "config show of the monitor"
expect 2/5 "$(shown mgr.x debug_mgr)" "config show of the manager"
has '3/3    override' ceph config show osd.0
has 'osd_max_write_size' ceph config show-with-defaults osd.0
has 'no config state for daemon osd.77' shown osd.77 debug_ms
ceph tell osd.0 config unset debug_ms >"$T/out"

# Rotation.
mv "$D/log/mon.a.log" "$D/log/mon.a.log.1"
d mon.a log reopen
d mon.a config set debug_mon 20
ceph -s >/dev/null
d mon.a log flush
d mon.a config unset debug_mon
[ -s "$D/log/mon.a.log" ] || fail "no new log after log reopen"
