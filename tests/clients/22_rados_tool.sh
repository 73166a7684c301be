#!/bin/bash
# The rest of the tool `rados`: copies of pools, locks, clones, hints, tiers, scrub reports, load. See _rbd.sh.
. "$(dirname "$0")/_rbd.sh"
for p in p22 p22b; do
  ceph osd pool rm $p $p --yes-i-really-really-mean-it >/dev/null 2>&1 || true
  ceph osd pool create $p 8 >/dev/null 2>&1
done
r() { rados -p p22 "$@"; }

# objects
head -c 10000 /dev/urandom >"$T/in"
t r create a
t r create a
t r put b "$T/in"
t r touch b 86400
t r stat b
t r stat2 b
t r stat2 absent
t r touch new
t r truncate b 5000
t r truncate absent 10
t r set-alloc-hint b 4194304 4096
t r set-alloc-hint hinted 1 1
t r mapext b
t r mapext absent
t r append absent "$T/in"
t r rm absent hinted absent
t r ls

# xattrs and omap
t r setxattr b name value
t r listxattr b
t r getxattr b none
t r rmxattr b none
t r setomapval b k v
t r setomapval b l w
t r listomapkeys b
t r listomapvals b
t r getomapval b none
t r rmomapkey b none
t r setomapheader b header
t r getomapheader b
t r clearomap b a
t r listomapkeys b
t r listomapkeys none

# snapshots
t r mksnap one
t r mksnap one
t r rm a
t r truncate b 100
t r listsnaps b
t r listsnaps none
t r -s one stat b
t r rollback b one
t r rollback a one
t r rollback none one
t r rollback b two
t r stat a
t r rmsnap one
t r rmsnap one

# locks
t r lock get b l1 --lock-cookie c1 --lock-description "first lock" --lock-tag t
t r lock get b l1 --lock-cookie c1 --lock-tag t
t r lock get b l1 --lock-cookie c1 --lock-tag other
t r lock get b l2 --lock-type shared --lock-cookie c2 --lock-duration 60
t r lock list b
t r lock list absent
q r lock info b l1
t r lock info b none
locker() { r lock info b l1 | sed 's/.*"name":"\(client[^"]*\)".*/\1/'; }
t r lock break b l1 client.0 --lock-cookie c1
t r lock break b l1 "$(locker)" --lock-cookie other
t r lock break b l1 "$(locker)" --lock-cookie c1
t r lock info b l1
t r lock break b none client.0

# tiers and manifests, on a pool that is none of either
t r cache-flush b
t r cache-flush absent
t r cache-try-flush b
t r cache-try-flush absent
t r cache-evict b
t r cache-evict absent
t r cache-flush-evict-all
t r cache-try-flush-evict-all
t r tier-promote b
t r tier-promote absent
t r tier-flush b
t r tier-evict b
t r unset-manifest b
t r unset-manifest absent
t r set-redirect absent --target-pool p22b b
t r set-chunk absent 0 10 --target-pool p22b b 0

# scrub reports: no copies were compared yet
t rados list-inconsistent-pg p22
t rados list-inconsistent-pg absent
pg=$(json ceph osd map p22 b -- 'd["pgid"]')
mask "$pg" PG
t r list-inconsistent-obj "$pg"
t r list-inconsistent-snapset 1.zz

# whole pools
for i in 1 2 3; do r put "o$i" "$T/in"; r setxattr "o$i" x "$i"; r setomapval "o$i" k "$i"; done
r -N apart put o1 "$T/in"
t rados cppool p22 p22
t rados cppool p22 absent
t rados cppool p22 p22b
for i in 1 2 3; do
  rados -p p22b get "o$i" "$T/out" && cmp "$T/in" "$T/out" || fail "o$i in a copy of its pool"
  expect "$i" "$(rados -p p22b getxattr "o$i" x)" "an xattr in a copy of its pool"
  has "|$i|" rados -p p22b listomapvals "o$i"
done
q r export "$T/pool"
t rados purge p22b
t rados purge p22b --yes-i-really-really-mean-it
expect "" "$(rados -p p22b ls --all)" "objects of a purged pool"
t rados -p p22b import --dry-run "$T/pool"
q rados -p p22b import "$T/pool"
t rados -p p22b import --no-overwrite "$T/pool"
expect "$(r ls --all | sort)" "$(rados -p p22b ls --all | sort)" "objects of an imported pool"
for i in 1 2 3; do
  rados -p p22b get "o$i" "$T/out" && cmp "$T/in" "$T/out" || fail "o$i in an imported pool"
  expect "$i" "$(rados -p p22b getxattr "o$i" x)" "an xattr in an imported pool"
done
q r load-gen --num-objects 10 --min-object-size 1000 --max-object-size 100000 --max-ops 8 --run-length 2

for p in p22 p22b; do ceph osd pool rm $p $p --yes-i-really-really-mean-it; done
compare
