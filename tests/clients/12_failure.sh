#!/bin/bash
# OSDs that are killed, stopped and continued, and leave: what the cluster notices, says and does.
# In a cluster of its own, each daemon as a process.
. "$(dirname "$0")/_lib.sh"

if [ -z "${IN_PROCS:-}" ]; then
  IN_PROCS=1 "${SPIRULA:?path of spirula}" vstart --procs --osds 3 --device-size 256M --dir "$T/c" -- bash "$0"
  exit
fi
D=$(dirname "$CEPH_CONF")
pid() { cat "$D/run/osd.$1.pid"; }
is() { json ceph osd dump -- "[o['$2'] for o in d['osds'] if o['osd'] == $1][0]"; }

# wait_for SECONDS OSD FIELD VALUE: until the map says so.
wait_for() {
  local end=$((SECONDS + $1))
  while [ "$(is "$2" "$3")" != "$4" ]; do
    [ $SECONDS -lt $end ] || { ceph osd dump; ceph log last 20 debug cluster; fail "osd.$2: $3 is not $4 after $1 s"; }
    sleep 0.2
  done
}

start_osd() {
  "$SPIRULA" engine --osd "$1" --dir "$D" --parent $$ >>"$D/log/osd.$1.out" 2>&1 &
  echo $! >"$D/run/osd.$1.pid"
  wait_for 30 "$1" up 1
}
xinfo() { json ceph osd dump -- "[x['$2'] for x in d['osd_xinfo'] if x['osd'] == $1][0]"; }

ceph config set global mon_osd_reporter_subtree_level osd
ceph config set global osd_heartbeat_grace 6
ceph config set osd osd_heartbeat_interval 1
sleep 3

# Four addresses each, and peers that they watch.
expect 12 "$(json ceph osd dump -- 'len({a["addr"] for o in d["osds"] for k in ("public_addrs", "cluster_addrs", "heartbeat_front_addrs", "heartbeat_back_addrs") for a in o[k]["addrvec"]})')" "addresses"

# Killed: its address refuses connections, which is proof.
kill -9 "$(pid 2)"
wait_for 10 2 up 0
[ "$(xinfo 2 dead_epoch)" = "$(is 2 down_at)" ] || fail "dead_epoch $(xinfo 2 dead_epoch)"
host=$(hostname -s)
has "osd.2 failed (root=default,host=$host) (connection refused reported by osd." ceph log last 20 debug cluster
has "osd.2 reported immediately failed by osd." ceph log last 20 debug cluster
sleep 2
has "[WRN] OSD_DOWN: 1 osds down" ceph health detail
has "    osd.2 (root=default,host=$host) is down" ceph health detail
has "down" ceph osd tree down
start_osd 2

# Stopped: silent, and reported by the others; continued, it says so and is up again.
kill -STOP "$(pid 1)"
wait_for 25 1 up 0
has "osd.1 failed (root=default,host=$host) (2 reporters from different osd after" ceph log last 20 debug cluster
kill -CONT "$(pid 1)"
wait_for 20 1 up 1
has "osd.1 marked itself dead as of e" ceph log last 20 debug cluster
has "[WRN] Monitor daemon marked osd.1 down, but it is still running" ceph log last 20 debug cluster
has "wrongly marked me down at e" ceph log last 20 debug cluster

# nodown holds.
ceph osd set nodown
kill -9 "$(pid 2)"
sleep 4
expect 1 "$(is 2 up)" "with nodown"
ceph osd unset nodown
wait_for 15 2 up 0

# Down for long: out, once there is no pool of size 1; back in when it returns.
for pool in $(ceph osd pool ls); do ceph osd pool delete "$pool" "$pool" --yes-i-really-really-mean-it; done
ceph config set mon mon_osd_down_out_interval 5
wait_for 20 2 in 0
has "Marking osd.2 out (has been down for" ceph log last 20 info cluster
has "autoout,exists" ceph osd dump
start_osd 2
wait_for 10 2 in 1

# A clean stop.
kill "$(pid 0)"
wait_for 10 0 up 0
has "osd.0 marked itself down and dead" ceph log last 20 info cluster
echo "failure: ok"
