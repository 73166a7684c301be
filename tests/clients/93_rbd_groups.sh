#!/bin/bash
# Groups with snapshots, namespaces. See _rbd.sh.
. "$(dirname "$0")/_rbd.sh"
fresh p93
P=p93

head -c 2000000 /dev/urandom >"$T/0"
truncate -s 4M "$T/0"
cp --sparse=always "$T/0" "$T/a"; cp --sparse=always "$T/0" "$T/b"
for i in a b; do rbd import --no-progress "$T/0" $P/$i --object-size 1M; done
t rbd group create $P/g
t rbd group create $P/g
t rbd group ls $P
t rbd group image add $P/g $P/a
t rbd group image add $P/g $P/b
t rbd group image add $P/g $P/b
t rbd group image add $P/g $P/absent
t rbd group image ls $P/g
t rbd group image ls $P/g --format json
t rbd rm --no-progress $P/a
t rbd info $P/a
t rbd group create $P/h
t rbd group image add $P/h $P/a
t rbd group rename $P/h $P/k
t rbd group rename $P/h $P/k
t rbd group snap create $P/g@one
t rbd group snap create $P/g@one
patch $P/a "$T/a" 100000 300000
patch $P/b "$T/b" 1900000 300000
t rbd group snap create $P/g@two
t rbd group snap ls $P/g
t rbd group snap rename $P/g@two second
t rbd group snap ls $P/g --format json
t rbd snap ls $P/a
t rbd snap ls --all $P/a
t rbd group snap rollback --no-progress $P/g@one
same $P/a "$T/0"
same $P/b "$T/0"
t rbd group snap rollback --no-progress $P/g@second
same $P/a "$T/a"
same $P/b "$T/b"
t rbd group snap rollback --no-progress $P/g@none
t rbd group snap rm $P/g@second
t rbd group snap rm $P/g@second
t rbd group image rm $P/g $P/b
t rbd group image rm $P/g $P/b
t rbd group image ls $P/g
t rbd group rm $P/g
t rbd group rm $P/k
t rbd group rm $P/k
t rbd group ls $P
t rbd info $P/a
t rbd snap ls --all $P/a
same $P/a "$T/a"

# namespaces
t rbd namespace create $P/n
t rbd namespace create $P/n
t rbd namespace create $P/m
t rbd namespace ls $P
t rbd namespace ls $P --format json
t rbd create $P/none/i --size 4M
t rbd import --no-progress "$T/0" $P/n/i
same $P/n/i "$T/0"
t rbd ls $P
t rbd ls $P/n
t rbd info $P/n/i
t rbd snap create --no-progress $P/n/i@s
t rbd snap protect $P/n/i@s
t rbd clone $P/n/i@s $P/m/c --rbd-default-clone-format 2
t rbd clone $P/n/i@s $P/c --rbd-default-clone-format 2
t rbd children $P/n/i@s
t rbd info $P/m/c
t rbd cp --no-progress $P/n/i $P/m/copy
same $P/m/c "$T/0"
same $P/m/copy "$T/0"
t rbd group create $P/n/g
t rbd group image add $P/n/g $P/n/i
t rbd group image add $P/n/g $P/a
t rbd group image ls $P/n/g
t rbd namespace rm $P/n
t rbd rm --no-progress $P/m/c
t rbd rm --no-progress $P/c
t rbd rm --no-progress $P/m/copy
t rbd namespace rm $P/m
t rbd namespace rm $P/m
t rbd group rm $P/n/g
t rbd snap unprotect $P/n/i@s
t rbd snap purge --no-progress $P/n/i
t rbd rm --no-progress $P/n/i
t rbd namespace rm $P/n
t rbd namespace ls $P
for i in a b; do t rbd rm --no-progress $P/$i; done
t left $P
compare
