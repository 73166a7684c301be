#!/bin/bash
# Full OSDs: what health and the map say by the ratios, which requests to a full pool wait, fail and go through, and that
# those that wait go on. Passes on a real Ceph too, where the small device at the end is left out.
. "$(dirname "$0")/_lib.sh"

# within SECONDS WANT WHAT COMMAND...: the command says WANT in time.
within() {
  local left=$(($1 * 4)) want=$2 what=$3; shift 3
  for _ in $(seq "$left"); do [ "$("$@" 2>/dev/null)" != "$want" ] || return 0; sleep 0.25; done
  fail "$what: expected '$want', got '$("$@")'"
}

# The checks about fullness.
checks() { ceph health detail | awk 'NR > 1 && /^[^ ]/ { on = /FULL/ } NR > 1 && on'; }
flags() { json ceph osd dump -- '[p["flags_names"] for p in d["pools"] if p["pool_name"] == "'"$1"'"][0].replace(",selfmanaged_snaps", "")'; }
used() { json ceph osd df -- "$1(o['utilization'] for o in d['nodes']) / 100"; }

# What a device that is really full does.
small() {
  ceph osd pool create small 4
  ceph osd pool application enable small x
  rados -p small put waits /etc/hostname
  timeout -k 1 120 rados -p small bench 100 write -b 1M -t 16 --no-cleanup --run-name full >"$T/bench" 2>&1 &
  local bench=$! paused
  within 60 hashpspool,full "flags of the pool on a full device" flags small
  grep -q "osd.0 is full" <(ceph health detail) || fail "health of a full device: $(ceph health detail)"
  kill "$bench"
  wait "$bench" || true
  rados -p small put waits "$0" & paused=$!
  sleep 1
  kill -0 "$paused" || fail "a write to a full device did not wait"
  within 20 True "use of a full device" json ceph osd df -- 'd["nodes"][0]["utilization"] > 90'
  within 20 0 "what is left for the pool" json ceph df -- '[p["stats"]["max_avail"] for p in d["pools"] if p["name"] == "small"][0]'
  rados -p small ls | grep '^benchmark_data' | xargs -n 50 rados -p small --force-full rm
  within 60 hashpspool "flags of the pool when there is space again" flags small
  wait "$paused"
  rados -p small get waits - | cmp - "$0" || fail "what waited for space"
  head -c 4000000 /dev/urandom >"$T/more"
  for o in 1 2 3 4; do rados -p small put "more$o" "$T/more"; done
  rados -p small get more4 - | cmp - "$T/more" || fail "what is written when there is space again"
}
if [ "${1:-}" = small ]; then small; exit; fi

ceph osd pool create p28 8
ceph osd pool application enable p28 x
head -c 2000000 /dev/urandom >"$T/data"
for o in a b c d $(seq 16); do rados -p p28 put "$o" "$T/data"; done
osds=$(ceph osd ls)
n=$(wc -w <<<"$osds")
pools=$(ceph osd pool ls)
within 30 True "use of OSDs" used '0 < min'
near=$(used '1/8 * min'); back=$(used '1/6 * min'); full=$(used '1/4 * min')

# health_of OSD-CODE OSD-SUMMARY OSD-DETAIL POOL-CODE POOL-SUMMARY POOL-DETAIL
health_of() {
  echo "$1: $n $2 osd(s)"
  for o in $osds; do echo "    osd.$o is $3"; done
  echo "$4: $(wc -w <<<"$pools") pool(s) $5"
  for p in $pools; do echo "    pool '$p' is $6"; done
}
states() { json ceph osd dump -- '*{",".join(o["state"]) for o in d["osds"]}'; }

ceph osd set-nearfull-ratio "$near"
within 20 "$(health_of '[WRN] OSD_NEARFULL' nearfull 'near full' '[WRN] POOL_NEARFULL' nearfull nearfull)" nearfull checks
expect exists,nearfull,up "$(states)" "states of OSDs"
expect hashpspool,nearfull "$(flags p28)" "flags of a pool"
ceph osd set-backfillfull-ratio "$back"
within 20 "$(health_of '[WRN] OSD_BACKFILLFULL' backfillfull 'backfill full' '[WRN] POOL_BACKFILLFULL' backfillfull backfillfull)" backfillfull checks
expect backfillfull,exists,up "$(states)" "states of OSDs"
expect hashpspool,backfillfull "$(flags p28)" "flags of a pool"
ceph osd set-full-ratio "$full"
within 20 "$(health_of '[ERR] OSD_FULL' full full '[WRN] POOL_FULL' full 'full (no space)')" full checks
expect exists,full,up "$(states)" "states of OSDs"
expect hashpspool,full "$(flags p28)" "flags of a pool"
expect "{'severity': 'HEALTH_ERR', 'summary': {'message': '$n full osd(s)', 'count': $n}}" \
  "$(json ceph health detail -- '{k: d["checks"]["OSD_FULL"][k] for k in ("severity", "summary")}')" "OSD_FULL"
within 20 0 "what is left for the pool" json ceph df -- '[p["stats"]["max_avail"] for p in d["pools"] if p["name"] == "p28"][0]'

# Writes of a full pool. The tool waits, unless it is told to insist.
/usr/bin/python3 "$(dirname "$0")/_full.py" p28 full
expect_rc 124 timeout 2 rados -p p28 rm 1
rados -p p28 --force-full rm 1
rados -p p28 put late "$T/data" & late=$!
sleep 1
kill -0 "$late" || fail "a write to a full pool did not wait"
ceph osd set-full-ratio 0.95
ceph osd set-backfillfull-ratio 0.9
ceph osd set-nearfull-ratio 0.85
within 20 "" "health with ratios as they were" checks
expect hashpspool "$(flags p28)" "flags of a pool"
wait "$late"
rados -p p28 get late - | cmp - "$T/data" || fail "what waited is not what was written"

# As full as said by hand; the most is that no writes are taken at all.
expect "Invalid type use (none, nearfull, backfillfull, full, failsafe)" "$(ceph tell osd.0 injectfull x)" "injectfull"
for o in $osds; do ceph tell "osd.$o" injectfull failsafe; done
within 30 exists,full,up "OSDs that are full by hand" states
/usr/bin/python3 "$(dirname "$0")/_full.py" p28 failsafe
for o in $osds; do ceph tell "osd.$o" injectfull none; done
within 30 "" "health with nothing by hand" checks
rados -p p28 put late "$T/data"
ceph log last 200 | grep -qE 'osd\.0 .*\[ERR\] full status failsafe engaged, dropping updates, now [0-9]+% full' || fail "$(ceph log last 200)"

# Ratios have an order.
ceph osd set-nearfull-ratio 0.96
ceph osd set-full-ratio 0.98
expect "[ERR] OSD_OUT_OF_ORDER_FULL: full ratio(s) out of order
    backfillfull_ratio (0.9) < nearfull_ratio (0.96), increased
    osd_failsafe_full_ratio (0.97) < full_ratio (0.98), increased" "$(checks)" "ratios out of order"
ceph osd set-full-ratio 0.95
ceph osd set-nearfull-ratio 0.85
expect "" "$(checks)" "ratios in order"

[ -z "${SPIRULA:-}" ] || env -u CEPH_CONF "$SPIRULA" vstart --osds 1 --device-size 256M -- bash "$0" small
