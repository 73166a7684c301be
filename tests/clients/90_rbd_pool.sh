#!/bin/bash
# rbd's objects of a pool: trash, namespaces, groups with their snapshots, mirroring.
. "$(dirname "$0")/_lib.sh"
pool=rbd_pool
ceph osd pool create $pool 8 >/dev/null 2>&1
rbd pool init $pool
on() { rbd -p $pool "$@"; }
for image in a b c; do on create --size 16M $image; done

# trash
on trash mv a
id=$(on trash ls | awk '{print $1}')
has 'USER' on trash ls -l
on trash restore --image renamed "$id"
on trash mv renamed --expires-at 2040-01-01
expect_rc 1 on trash rm "$id"
on trash rm --no-progress --force "$id"
expect '' "$(on trash ls)" 'trash'
expect_rc 2 on trash restore "$id"

# namespaces
for name in n2 n1; do rbd namespace create $pool/$name; done
expect_rc 17 rbd namespace create $pool/n1
expect 'n1 n2' "$(echo $(rbd namespace ls $pool | grep -v NAME))" 'namespaces'
rbd create --size 4M $pool/n1/x
expect x "$(rbd ls $pool/n1)" 'images of a namespace'
expect_rc 16 rbd namespace rm $pool/n1
rbd rm --no-progress $pool/n1/x
rbd namespace rm $pool/n1
expect_rc 2 rbd namespace rm $pool/n1

# groups
rbd group create $pool/g
expect_rc 17 rbd group create $pool/g
for image in b c; do rbd group image add $pool/g $pool/$image; done
expect "$pool/b $pool/c" "$(echo $(rbd group image ls $pool/g | sort))" 'images of a group'
has 'op_features: group' on info b
head -c 1M /dev/urandom >"$T/before"
rbd import --no-progress "$T/before" $pool/before
rbd group image add $pool/g $pool/before
rbd group snap create $pool/g@s1
expect_rc 17 rbd group snap create $pool/g@s1
has "group ($pool/g@s1)" on snap ls --all before
on bench --io-type write --io-size 4K --io-total 64K before >/dev/null
rbd group snap rename $pool/g@s1 s2
rbd group snap rollback --no-progress $pool/g@s2
on export --no-progress before "$T/after"
cmp "$T/before" "$T/after"
has 's2' rbd group snap ls $pool/g
rbd group snap rm $pool/g@s2
for image in b c before; do rbd group image rm $pool/g $pool/$image; done
rbd group rename $pool/g $pool/h
expect h "$(rbd group ls $pool)" 'groups'
rbd group rm $pool/h
expect '' "$(rbd group ls $pool)" 'groups'

# mirroring
rbd mirror pool enable $pool image
peer=$(rbd mirror pool peer add $pool client.x@remote)
expect_rc 22 rbd mirror pool peer add $pool client.x@remote
has "UUID: $peer" rbd mirror pool info $pool
rbd mirror pool peer set $pool "$peer" site-name other
has 'Name: other' rbd mirror pool info $pool
on mirror image enable b snapshot >/dev/null
on mirror image snapshot b >/dev/null
has "mirror (primary peer_uuids:[$peer])" on snap ls --all b
has 'description: status not found' on mirror image status b
has '1 unknown' rbd mirror pool status $pool
on mirror image demote b >/dev/null
on mirror image promote b >/dev/null
expect_rc 16 rbd mirror pool disable $pool
on mirror image disable b >/dev/null
rbd mirror pool peer remove $pool "$peer"
rbd mirror pool disable $pool

# The manager's module for images, which only Ceph has.
ceph versions | grep -q spirula || exit 0
off() { expect_rc 95 "$@"; grep -q rbd_support "$T/out" || fail "$*: $(cat "$T/out")"; }
off rbd perf image iostat $pool
off rbd trash purge schedule add -p $pool 1d
off rbd trash purge schedule list -p $pool
off rbd trash purge schedule remove -p $pool
off rbd mirror snapshot schedule add -p $pool 1d
off rbd mirror snapshot schedule list -p $pool
off rbd mirror snapshot schedule remove -p $pool
# The tool goes on to the answer that is not there.
expect_rc 74 rbd trash purge schedule status
expect_rc 74 rbd mirror snapshot schedule status
