#!/bin/bash
# Scrubs of three copies, of which one is damaged on its device: what `rados list-inconsistent-obj` and health
# say, repair, and a read at the primary that another copy answers. In a cluster of its own.
. "$(dirname "$0")/_lib.sh"

if [ -z "${SCRUB_INSIDE:-}" ]; then
  rm -rf "$T"
  SCRUB_INSIDE=1 exec "${SPIRULA:?the binary}" vstart --osds 3 --size 3 --device-size 256M -- bash "$0"
fi

D=$(dirname "$CEPH_CONF")
stamp() { json ceph pg 2.0 query -- 'd["info"]["stats"]["last_scrub_stamp"]'; }
# scrub WORD: orders it, and waits until one has ended.
scrub() {
  local before; before=$(stamp)
  has "instructing pg 2.0 on osd.$FIRST to $1" ceph pg "$1" 2.0
  for _ in $(seq 300); do [ "$(stamp)" = "$before" ] || return 0; sleep 0.2; done
  fail "no end of $1"
}
# within WANT WHAT COMMAND...
within() {
  local want=$1 what=$2 got=; shift 2
  for _ in $(seq 150); do got=$("$@") || true; [ "$got" != "$want" ] || return 0; sleep 0.2; done
  fail "$what: '$got' instead of '$want'"
}
state() { json ceph pg 2.0 query -- 'd["state"]'; }
checks() { json ceph health -- '" ".join(sorted(d["checks"]))'; }
errors() { json rados list-inconsistent-obj 2.0 -- '[(o["object"]["name"], o["errors"], o["union_shard_errors"], [(s["osd"], s["errors"]) for s in o["shards"] if s["errors"]], o.get("selected_object_info", {}).get("size")) for o in d["inconsistents"]]'; }
# damage OSD TEXT: one byte of what holds this text on the device is another one.
damage() {
  /usr/bin/python3 - "$1" "$2" "$D" <<'PY'
import os, sys
osd, text, cluster = sys.argv[1], sys.argv[2].encode(), sys.argv[3]
names = [os.path.join(at, n) for at, _, files in os.walk(cluster) for n in files]
block = [n for n in names if os.path.getsize(n) >= 1 << 28 and os.path.dirname(n).endswith(osd)]
assert len(block) == 1, (block, names)
f = os.open(block[0], os.O_RDWR)
found, at = 0, 0
while at < os.fstat(f).st_size:
    try:
        at = os.lseek(f, at, os.SEEK_DATA)
    except OSError:
        break
    raw = os.pread(f, (1 << 20) + len(text), at)
    i = raw.find(text)
    if i >= 0:
        os.pwrite(f, b"#", at + i)
        found += 1
        at += i
    at += 1 << 20
assert found, "not on the device"
PY
}

ceph osd pool create p29 1
ceph osd pool application enable p29 rados
within active+clean "the PG" state
FIRST=$(json ceph pg 2.0 query -- 'd["acting"][0]'); SECOND=$(json ceph pg 2.0 query -- 'd["acting"][1]')
for name in one two; do
  yes "this is what object $name has" | head -c 200000 >"$T/$name" || true
  rados -p p29 put "$name" "$T/$name"
done
rados -p p29 setxattr one k v; rados -p p29 setomapval one k v
expect_rc 1 rados list-inconsistent-snapset 2.0
scrub deep-scrub
expect "[]" "$(errors)" "nothing is wrong"
expect "" "$(checks)" "health"

damage "$SECOND" "this is what object one has"
scrub scrub
expect "[]" "$(errors)" "a light scrub reads no data"
scrub deep-scrub
expect "[('one', [], ['read_error'], [($SECOND, ['read_error'])], 200000)]" "$(errors)" "what is wrong"
has '["2.0"]' rados list-inconsistent-pg p29
within "OSD_SCRUB_ERRORS PG_DAMAGED" "health" checks
has "Possible data damage: 1 pg inconsistent" ceph health detail
has "pg 2.0 is active+clean+inconsistent" ceph health detail
scrub repair
within active+clean "the PG is repaired" state
within "" "health" checks
scrub deep-scrub
expect "[]" "$(errors)" "it was repaired"

damage "$FIRST" "this is what object two has"
ceph tell osd."$FIRST" cache drop >/dev/null
rados -p p29 get two "$T/got"
cmp "$T/two" "$T/got" || fail "data of another copy"
within active+clean "the copy is replaced" state
scrub deep-scrub
expect "[]" "$(errors)" "it was replaced"
has "osd.$FIRST" ceph log last 100 debug cluster
has "2.0 repair 1 errors, 1 fixed" ceph log last 100 debug cluster
