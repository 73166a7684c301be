#!/bin/bash
# Live migration: prepare, use, execute, commit and abort; with snapshots and a clone. See _rbd.sh.
. "$(dirname "$0")/_rbd.sh"
fresh p95 p95b
t ceph osd set-require-min-compat-client mimic
P=p95
id() { rbd info "$1" --format json | /usr/bin/python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])'; }

head -c 3000000 /dev/urandom >"$T/0"
truncate -s 8M "$T/0"
rbd import --no-progress "$T/0" $P/i --object-size 1M
rbd snap create --no-progress $P/i@s
cp --sparse=always "$T/0" "$T/1"
patch $P/i "$T/1" 900000 400000

mask "$(id $P/i)" SOURCE
t rbd migration prepare $P/i p95b/moved --object-size 2M
mask "$(id p95b/moved)" MOVED
t rbd migration prepare $P/i p95b/moved
t rbd info p95b/moved
t rbd status p95b/moved
t rbd info $P/i
t rbd ls $P
t rbd trash ls --all $P
t rbd snap ls p95b/moved
same p95b/moved "$T/1"
same p95b/moved@s "$T/0"
patch p95b/moved "$T/1" 3500000 300000
same p95b/moved "$T/1"
t rbd migration commit --no-progress p95b/moved
t rbd migration execute --no-progress p95b/moved
t rbd status p95b/moved
same p95b/moved "$T/1"
same p95b/moved@s "$T/0"
t rbd migration commit --no-progress p95b/moved
t rbd info p95b/moved
t rbd status p95b/moved
same p95b/moved "$T/1"
t rbd object-map check --no-progress p95b/moved
t rbd trash ls --all $P

# back, in vain
t rbd migration prepare p95b/moved $P/again
patch $P/again "$T/1" 10000 20000
t rbd migration abort --no-progress $P/again
t rbd info p95b/moved
t rbd ls $P
t rbd snap ls p95b/moved
t rbd migration execute --no-progress p95b/moved
t rbd migration abort --no-progress p95b/moved

# within a pool, under the same name, with a clone behind it
t rbd snap protect p95b/moved@s
t rbd clone p95b/moved@s p95b/clone --rbd-default-clone-format 1
t rbd migration prepare p95b/clone p95b/clone
t rbd info p95b/clone
same p95b/clone "$T/0"
t rbd migration execute --no-progress p95b/clone
t rbd migration commit --no-progress p95b/clone
t rbd info p95b/clone
same p95b/clone "$T/0"
t rbd children p95b/moved@s
t rbd rm --no-progress p95b/clone
t rbd snap unprotect p95b/moved@s
t rbd snap purge --no-progress p95b/moved
t rbd rm --no-progress p95b/moved
t left $P
t left p95b
compare
