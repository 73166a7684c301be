#!/bin/bash
# Journals and what mirroring keeps in a pool. See _rbd.sh.
. "$(dirname "$0")/_rbd.sh"
fresh p94 p94b p94c
P=p94
id() { rbd info "$1" --format json | /usr/bin/python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])'; }

head -c 2000000 /dev/urandom >"$T/0"
truncate -s 4M "$T/0"
dd if=/dev/zero of="$T/0" bs=64K seek=2 count=1 conv=notrunc status=none
t rbd create $P/i --size 4M --object-size 1M --image-feature layering,exclusive-lock,journaling --journal-object-size 1M --journal-splay-width 2
mask "$(id $P/i)" ID
t rbd journal info --pool $P --image i
t rbd journal info --pool $P --image i --format json
t rbd journal status --pool $P --image i
cp --sparse=always "$T/0" "$T/1"
truncate -s 0 "$T/1"; truncate -s 4M "$T/1"
patch $P/i "$T/1" 100000 300000
patch $P/i "$T/1" 1000000 1200000
t rbd snap create --no-progress $P/i@s
same $P/i "$T/1"
q rbd bench --io-type write --io-size 4K --io-total 256K --io-pattern rand $P/i
t rbd journal inspect --pool $P --image i

# A journal whose entries nobody committed: a client that stays.
t rbd create $P/k --size 4M --image-feature exclusive-lock,journaling
mkfifo "$T/stay" "$T/ready"
/usr/bin/python3 - "$T/0" 3<"$T/stay" 4>"$T/ready" <<'W' &
import os, rados, rbd, sys
data = open(sys.argv[1], "rb").read()
with rados.Rados(conffile=os.environ["CEPH_CONF"], conf={"rbd_journal_commit_age": "1000", "rbd_cache": "false"}) as cluster:
    with cluster.open_ioctx("p94") as pool, rbd.Image(pool, "k") as image:
        for at in range(0, len(data), 1 << 17):
            image.write(data[at:at + (1 << 17)], at)
        image.discard(1 << 17, 1 << 16)
        image.flush()
        os.write(4, b"1")
        os.read(3, 1)
W
writer=$!
exec 8>"$T/stay"
read -r -n 1 <"$T/ready"
t rbd journal inspect --pool $P --image k
t rbd journal export --pool $P --image k --path "$T/journal"
echo >&8
wait "$writer"
t rbd create $P/j --size 4M --image-feature exclusive-lock,journaling
mask "$(id $P/j)" TAKER
t rbd journal import --path "$T/journal" --dest-pool $P --dest-journal "$(id $P/j)"
t rbd journal inspect --pool $P --image j
t rbd snap create --no-progress $P/j@replayed
same $P/k "$T/0"
same $P/j@replayed "$T/0"
t rbd snap purge --no-progress $P/j
t rbd rm --no-progress $P/k
t rbd journal status --image absent --pool $P
t rbd feature disable $P/j journaling
t rbd journal info --pool $P --image j
t rbd feature enable $P/j journaling --journal-pool p94b
t rbd info $P/j
t rbd journal info --pool $P --image j
patch $P/j "$T/0" 0 100000
t rbd journal reset --pool $P --image j
t rbd journal status --pool $P --image j
t rbd journal client disconnect --pool $P --image j
t rbd rm --no-progress $P/j

# mirroring: an image
t rbd mirror pool info p94c
t rbd mirror pool enable p94c image --site-name here
t rbd create p94c/m --size 4M
t rbd mirror image enable p94c/m snapshot
t rbd mirror image enable p94c/m snapshot
t rbd mirror image snapshot p94c/m
t rbd snap ls --all p94c/m
t rbd info p94c/m
t rbd mirror image status p94c/m
t rbd mirror pool status p94c
t rbd mirror image demote p94c/m
t rbd info p94c/m
t rbd snap create --no-progress p94c/m@no
t rbd mirror image promote p94c/m
t rbd mirror image promote p94c/m
t rbd mirror image resync p94c/m
t rbd mirror image disable p94c/m
t rbd mirror image disable p94c/m
t rbd snap ls --all p94c/m
t rbd create p94c/j --size 4M
t rbd mirror image enable p94c/j journal
t rbd info p94c/j
t rbd mirror image demote p94c/j
t rbd mirror image promote p94c/j
t rbd mirror image disable p94c/j
t rbd mirror pool disable p94c
t rbd mirror pool info p94c

# mirroring: a pool
t rbd mirror pool enable p94c pool
t rbd create p94c/auto --size 4M --image-feature exclusive-lock,journaling
t rbd info p94c/auto
t rbd mirror pool info p94c --all
peer=$(rbd mirror pool peer add p94c client.other@there)
mask "$peer" PEER
q rbd mirror pool info p94c
t rbd mirror pool peer set p94c "$peer" client client.another
t rbd mirror pool disable p94c
t rbd mirror pool peer remove p94c "$peer"
t rbd mirror pool peer remove p94c "$peer"
t rbd mirror pool demote p94c
t rbd mirror pool promote p94c
t rbd mirror pool disable p94c
t rbd info p94c/auto

# mirroring: another cluster's token
t rbd mirror pool enable p94c image
rbd mirror pool peer bootstrap create --site-name here p94c >"$T/token"
has '"client_id":"rbd-mirror-peer"' base64 -d "$T/token"
t rbd mirror pool peer bootstrap import --site-name there --direction rx-only p94c "$T/token"
t rbd mirror pool peer bootstrap import --site-name there p94c "$T/secret"
t rbd mirror pool info --all p94c
t rbd mirror pool disable p94c
for i in m j auto; do t rbd rm --no-progress p94c/$i; done
t rbd snap purge --no-progress $P/i
t rbd rm --no-progress $P/i
t left $P
t left p94b
t left p94c
compare
