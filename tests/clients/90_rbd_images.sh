#!/bin/bash
# Images: create, info, ls, du, resize, rename, copies, export and import, features, metadata, config. See _rbd.sh.
. "$(dirname "$0")/_rbd.sh"
fresh p90 p90b
P=p90

t rbd pool stats $P
t rbd create $P/a --size 8M
t rbd create $P/a --size 8M
t rbd create $P/plain --size 8M --image-feature layering --object-size 1M
t rbd create $P/striped --size 8M --object-size 1M --stripe-unit 64K --stripe-count 4
t rbd create $P/apart --size 8M --data-pool p90b
t rbd create $P/journaled --size 8M --image-feature exclusive-lock,journaling
t rbd create $P/old --size 8M --image-format 1
t rbd create $P/implied --size 8M --image-feature fast-diff
t rbd create $P/bad --size 8M --object-size 3000
t rbd create nowhere/bad --size 8M
for i in a plain striped apart journaled; do t rbd info $P/$i; done
t rbd info $P/a --format json
t rbd info $P/absent
t rbd ls $P
t rbd ls -l $P
t rbd ls $P --format json
t rbd ls -l $P --format json
t rbd status $P/a

# bytes
head -c 3000000 /dev/urandom >"$T/f"
truncate -s 8M "$T/f"
t rbd import --no-progress "$T/f" $P/in --object-size 1M
same $P/in "$T/f"
t rbd import --no-progress "$T/f" $P/in
t rbd import --no-progress "$T/f" $P/instriped --object-size 1M --stripe-unit 64K --stripe-count 4
same $P/instriped "$T/f"
t rbd import --no-progress "$T/f" $P/inapart --data-pool p90b
same $P/inapart "$T/f"
t rbd import --no-progress "$T/f" $P/injournaled --image-feature exclusive-lock,journaling
same $P/injournaled "$T/f"
t rbd du $P/in
t rbd du $P/plain
t rbd du -p $P
t rbd cp --no-progress $P/in p90b/copy
same p90b/copy "$T/f"
t rbd cp --no-progress $P/in p90b/copy
t rbd deep cp --no-progress $P/in $P/deep
same $P/deep "$T/f"
t rbd export --no-progress --export-format 2 $P/in "$T/v2"
t rbd import --no-progress --export-format 2 "$T/v2" $P/fromv2
same $P/fromv2 "$T/f"

# sizes
t rbd resize --no-progress $P/in --size 12M
truncate -s 12M "$T/f"
same $P/in "$T/f"
t rbd resize --no-progress $P/in --size 2M
t rbd resize --no-progress $P/in --size 2M --allow-shrink
truncate -s 2M "$T/f"
same $P/in "$T/f"
t rbd resize --no-progress $P/in --size 8M
truncate -s 8M "$T/f"
same $P/in "$T/f"
t rbd rename $P/in $P/out
t rbd rename $P/out $P/a
t rbd rename $P/absent $P/b
t rbd ls $P

# features
t rbd feature disable $P/a journaling
t rbd feature disable $P/a object-map
t rbd feature disable $P/a fast-diff,object-map
t rbd feature disable $P/a deep-flatten
t rbd feature enable $P/a deep-flatten
t rbd feature enable $P/a object-map,fast-diff
t rbd feature enable $P/plain exclusive-lock
t rbd feature enable $P/plain journaling
t rbd info $P/plain
t rbd info $P/a

# metadata and config
t rbd image-meta set $P/a k v
t rbd image-meta set $P/a k2 v2
t rbd image-meta get $P/a k
t rbd image-meta get $P/a none
t rbd image-meta list $P/a
t rbd image-meta ls $P/a --format json
t rbd image-meta remove $P/a k
t rbd image-meta remove $P/a k
t rbd image-meta list $P/a
t rbd config image set $P/a rbd_cache false
t rbd config image get $P/a rbd_cache
t rbd config image get $P/a nonsense
t rbd config image remove $P/a rbd_cache
t rbd config image remove $P/a rbd_cache
t rbd config pool set $P rbd_cache_size 1048576
t rbd config pool get $P rbd_cache_size
t rbd config pool remove $P rbd_cache_size
t rbd config pool get $P rbd_cache_size
t rbd config global set global rbd_cache_size 2097152
t rbd config global get global rbd_cache_size
t rbd config global remove global rbd_cache_size
some() { "$@" | grep -E 'values|rbd_(cache|qos_bps_limit|validate_pool) '; }
t rbd config image set $P/a rbd_qos_bps_limit 1000000000
t some rbd config image list $P/a
t some rbd config pool ls $P
t rbd config image remove $P/a rbd_qos_bps_limit
mask "$(rbd config global get global rbd_config_pool_override_update_timestamp)" TIME
t rbd config global list global

# what the client alone does
echo secret >"$T/secret"
t rbd create $P/locked --size 32M --image-feature layering
t rbd encryption format $P/locked luks2 "$T/secret" --cipher-alg aes-128
rbd export --no-progress $P/locked "$T/locked"
cmp -n 6 "$T/locked" <(printf 'LUKS\xba\xbe') || fail "encrypted image"
t rbd persistent-cache flush $P/locked
t rbd persistent-cache invalidate $P/locked
t rbd rm --no-progress $P/locked
t rbd device list

# A watcher is told of changes.
mkfifo "$T/keep"
rbd watch $P/a <"$T/keep" >"$T/watch" 2>&1 &
watcher=$!
exec 9>"$T/keep"
for _ in $(seq 100); do
  if rbd status $P/a | grep -q watcher=; then break; fi
  sleep 0.1
done
t rbd status $P/a
t rbd snap create --no-progress $P/a@s
t rbd rm --no-progress $P/a
t rbd snap rm --no-progress $P/a@s
t rbd rm --no-progress $P/a
echo >&9
exec 9>&-
wait "$watcher"
t cat "$T/watch"

t rbd pool stats $P
t rbd pool stats $P --format json
for i in a plain striped apart journaled implied out instriped inapart injournaled deep fromv2; do t rbd rm --no-progress $P/$i; done
t rbd rm --no-progress $P/absent
t rbd ls $P
t left p90b
rbd rm --no-progress p90b/copy
compare
