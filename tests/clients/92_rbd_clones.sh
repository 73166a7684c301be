#!/bin/bash
# Clones of both kinds, their parents and children, flatten, deep copies, trash, locks. See _rbd.sh.
. "$(dirname "$0")/_rbd.sh"
fresh p92 p92b
P=p92

head -c 3000000 /dev/urandom >"$T/0"
truncate -s 8M "$T/0"
rbd import --no-progress "$T/0" $P/parent --object-size 1M
rbd snap create --no-progress $P/parent@s

# clones of version 1
t rbd clone $P/parent@s $P/early --rbd-default-clone-format 1
t rbd snap protect $P/parent@s
t rbd clone $P/parent@s $P/v1 --rbd-default-clone-format 1
t rbd clone $P/parent@s p92b/v1 --rbd-default-clone-format 1
t rbd clone $P/parent@s $P/v1
t rbd children $P/parent@s
t rbd children $P/parent@s --format json
t rbd info $P/v1
t rbd snap unprotect $P/parent@s
same $P/v1 "$T/0"
cp --sparse=always "$T/0" "$T/1"
patch $P/v1 "$T/1" 100000 70000
patch $P/v1 "$T/1" 5000000 70000
same $P/v1 "$T/1"
same $P/parent "$T/0"
t rbd diff $P/v1
t rbd diff --whole-object $P/v1
t rbd du $P/v1
t rbd object-map check $P/v1 --no-progress
t rbd snap create --no-progress $P/v1@mid
t rbd resize --no-progress $P/v1 --size 2M --allow-shrink
t rbd info $P/v1
t rbd resize --no-progress $P/v1 --size 8M
truncate -s 2M "$T/1"; truncate -s 8M "$T/1"
same $P/v1 "$T/1"
t rbd flatten --no-progress $P/v1
same $P/v1 "$T/1"
t rbd info $P/v1
t rbd flatten --no-progress $P/v1
t rbd children $P/parent@s
t rbd rm --no-progress p92b/v1
t rbd snap unprotect $P/parent@s

# clones of version 2
t ceph osd set-require-min-compat-client mimic
t rbd clone $P/parent@s $P/v2 --rbd-default-clone-format 2
t rbd clone $P/parent@s p92b/v2 --rbd-default-clone-format 2 --object-size 2M
t rbd snap ls $P/parent
t rbd children $P/parent
t rbd info $P/parent@s
t rbd info $P/v2
same p92b/v2 "$T/0"
cp --sparse=always "$T/0" "$T/2"
patch p92b/v2 "$T/2" 1500000 2000000
t rbd snap create --no-progress p92b/v2@x
same p92b/v2@x "$T/2"
t rbd deep cp --no-progress p92b/v2 $P/deep
t rbd info $P/deep
same $P/deep "$T/2"
same $P/deep@x "$T/2"
t rbd deep cp --no-progress --flatten p92b/v2 $P/flat
t rbd info $P/flat
same $P/flat "$T/2"
t rbd snap rm --no-progress $P/parent@s
t rbd snap ls $P/parent
t rbd snap ls --all $P/parent
t rbd rm --no-progress $P/parent
t rbd children --all $P/parent
same p92b/v2 "$T/2"
t rbd snap rm --no-progress p92b/v2@x
t rbd flatten --no-progress p92b/v2
t rbd rm --no-progress $P/v2
t rbd snap purge --no-progress $P/deep
t rbd rm --no-progress $P/deep
t rbd snap ls --all $P/parent
t rbd sparsify --no-progress p92b/v2
same p92b/v2 "$T/2"

# trash
t rbd trash mv $P/flat
t rbd trash mv $P/absent
t rbd ls $P
id=$(rbd trash ls $P | cut -d' ' -f1)
mask "$id" TRASHED
t rbd trash ls $P
t rbd trash ls -l $P
t rbd trash restore $P/$id --image flat2
t rbd trash ls $P
t rbd trash mv $P/flat2 --expires-at 2100-01-01
t rbd trash rm --no-progress $P/$id
t rbd trash purge --no-progress $P
t rbd trash restore $P/nothing
t rbd trash rm --no-progress $P/nothing
t rbd trash restore $P/$id
t rbd snap purge --no-progress $P/flat2
t rbd trash mv $P/flat2
t rbd trash purge --no-progress $P
t rbd trash ls $P

# locks
t rbd lock add $P/parent mine
t rbd lock add $P/parent mine
t rbd lock add $P/parent other
t rbd lock ls $P/parent
who=$(rbd lock ls $P/parent --format json | /usr/bin/python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["locker"])')
t rbd lock rm $P/parent other "$who"
t rbd lock rm $P/parent mine "$who"
t rbd lock ls $P/parent
t rbd lock add --shared tag $P/parent one
t rbd lock add --shared tag $P/parent two
t rbd lock ls $P/parent
rbd lock ls $P/parent --format json | /usr/bin/python3 -c 'import json,sys
for l in json.load(sys.stdin): print(l["id"], l["locker"])' | while read -r lock who; do
  t rbd lock rm $P/parent "$lock" "$who"
done

t rbd snap purge --no-progress $P/v1
for i in $P/parent $P/v1 p92b/v2; do t rbd rm --no-progress $i; done
t rbd ls $P
t left $P
t left p92b
compare
