#!/bin/bash
# Snapshots and differences: bytes, listings, limits, object maps, an ext4. See _rbd.sh.
. "$(dirname "$0")/_rbd.sh"
fresh p91
I=p91/i

head -c 3000000 /dev/urandom >"$T/0"
truncate -s 8M "$T/0"
rbd import --no-progress "$T/0" $I --object-size 1M
cp --sparse=always "$T/0" "$T/1"
t rbd snap create --no-progress $I@one
t rbd snap create --no-progress $I@one
patch $I "$T/1" 500000 200000
patch $I "$T/1" 6000000 100000
t rbd snap create --no-progress $I@two
cp --sparse=always "$T/1" "$T/2"
patch $I "$T/2" 2900000 1200000
same $I@one "$T/0"
same $I@two "$T/1"
same $I "$T/2"
t rbd snap ls $I
t rbd snap ls $I --format json
t rbd info $I@one
t rbd du $I
t rbd du $I@one
t rbd diff $I
t rbd diff $I@one
t rbd diff --from-snap one $I@two
t rbd diff --from-snap one $I
t rbd diff --whole-object --from-snap one $I
t rbd diff --whole-object $I --format json
t rbd diff --from-snap none $I

# differences as files
t rbd export-diff --no-progress $I@one "$T/d1"
t rbd export-diff --no-progress --from-snap one $I@two "$T/d2"
t rbd export-diff --no-progress --from-snap two $I "$T/d3"
t rbd merge-diff --no-progress "$T/d1" "$T/d2" "$T/d12"
t rbd create p91/back --size 8M
t rbd import-diff --no-progress "$T/d2" p91/back
t rbd import-diff --no-progress "$T/d12" p91/back
same p91/back@two "$T/1"
t rbd import-diff --no-progress "$T/d3" p91/back
same p91/back "$T/2"
t rbd import-diff --no-progress "$T/d12" p91/back
t rbd snap ls p91/back

# rollback, rename, protection, limits
t rbd snap rollback --no-progress $I@one
same $I "$T/0"
same $I@two "$T/1"
t rbd snap rollback --no-progress $I@two
same $I "$T/1"
t rbd diff --from-snap two $I
t rbd snap rename $I@two $I@second
t rbd snap rename $I@second $I@one
t rbd snap protect $I@one
t rbd snap protect $I@one
t rbd snap rm --no-progress $I@one
t rbd snap purge --no-progress $I
t rbd snap ls $I
t rbd snap unprotect $I@one
t rbd snap unprotect $I@one
t rbd snap limit set $I --limit 2
t rbd snap create --no-progress $I@three
t rbd snap create --no-progress $I@four
t rbd info $I
t rbd snap limit clear $I
t rbd snap create --no-progress $I@four
t rbd rm --no-progress $I
t rbd snap rm --no-progress $I@three
t rbd snap rm --no-progress $I@three
t rbd snap rollback --no-progress $I@three
t rbd snap ls $I

# object maps
t rbd object-map check $I --no-progress
t rbd object-map check $I@one --no-progress
t rbd object-map rebuild $I --no-progress
t rbd object-map rebuild $I@one --no-progress
t rbd object-map check $I --no-progress
id=$(rbd info $I --format json | /usr/bin/python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])')
mask "$id" ID
rados -p p91 rm "rbd_object_map.$id"
t rbd object-map check $I --no-progress
t rbd info $I
t rbd object-map rebuild $I --no-progress
t rbd object-map check $I --no-progress
t rbd info $I
t rbd diff --whole-object --from-snap one $I
same $I "$T/1"
t rbd create p91/none --size 4M --image-feature layering
t rbd object-map rebuild p91/none --no-progress

# load
q rbd bench --io-type write --io-size 4K --io-total 1M --io-pattern rand $I
q rbd bench --io-type rw --io-size 64K --io-total 2M $I
q rbd bench --io-type read --io-size 64K --io-total 2M $I
t rbd object-map check $I --no-progress
same $I@one "$T/0"
t rbd sparsify --no-progress $I
t rbd snap purge --no-progress $I
t rbd rm --no-progress $I
t rbd rm --no-progress p91/none

# A file system through write, snapshot, rollback, clone and flatten.
E2="mke2fs -q -t ext4 -E lazy_itable_init=0,nodiscard"
mkdir "$T/tree"; cp "$0" /bin/ls "$T/tree"
truncate -s 16M "$T/fs"; $E2 -d "$T/tree" "$T/fs"
rbd import --no-progress "$T/fs" p91/fs
t rbd snap create --no-progress p91/fs@clean
patch p91/fs "$T/fs" 0 400000
t rbd snap rollback --no-progress p91/fs@clean
t rbd snap protect p91/fs@clean
t rbd clone p91/fs@clean p91/fsclone --rbd-default-clone-format 1
t rbd flatten --no-progress p91/fsclone
t rbd snap unprotect p91/fs@clean
for i in p91/fs p91/fs@clean p91/fsclone; do
  rbd export --no-progress $i "$T/check"
  e2fsck -fn "$T/check" >"$T/fsck" 2>&1 || { cat "$T/fsck"; fail "e2fsck of $i"; }
  rm "$T/check"
done
t rbd snap purge --no-progress p91/fs
t rbd snap purge --no-progress p91/back
for i in fs fsclone back; do t rbd rm --no-progress p91/$i; done
t left p91
compare
