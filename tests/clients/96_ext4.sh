#!/bin/bash
# A file system on images: ext4 by mke2fs, checked by e2fsck after writes, a snapshot, a rollback, a
# clone and a flatten. It is written through rbd-fuse where this machine lets us mount, else through
# python3-rbd (always with NO_FUSE=1).
. "$(dirname "$0")/_lib.sh"
ceph osd pool create p96 32
rbd pool init p96
fuse=
trap 'rc=$?; unmount; rm -rf "$T"; [ $rc = 0 ] || echo "FAILED: $0 (exit $rc)" >&2' EXIT
# Progress is not wanted, errors are.
rbd() { command rbd "$@" 2>"$T/err" || { cat "$T/err" >&2; return 1; }; }

mount_images() {
  [ -z "${NO_FUSE-}" ] || return 1
  mkdir -p "$T/mnt"
  rbd-fuse -p p96 -c "$CEPH_CONF" -f "$T/mnt" >"$T/fuse" 2>&1 &
  fuse=$!
  for _ in $(seq 100); do
    if mountpoint -q "$T/mnt"; then return 0; fi
    if ! kill -0 "$fuse" 2>/dev/null; then break; fi
    sleep 0.1
  done
  echo "no mount of rbd-fuse here, python3-rbd writes: $(cat "$T/fuse")"
  kill "$fuse" 2>/dev/null || true
  fuse=
  NO_FUSE=1
  return 1
}
unmount() {
  [ -n "$fuse" ] || return 0
  fusermount -u "$T/mnt" || kill "$fuse"
  wait "$fuse" || true
  fuse=
}

# edit IMAGE COMMAND...: commands of debugfs that change the image's file system, which stays sound.
edit() {
  local image=$1 file=$T/edited c; shift
  if mount_images; then file=$T/mnt/$image; else rbd export "p96/$image" "$file"; fi
  fsck "$file" "before $*"
  for c in "$@"; do debugfs -w -R "$c" "$file" >"$T/out" 2>&1; done
  fsck "$file" "after $*"
  if [ -n "$fuse" ]; then unmount; else store "$file" "$image"; fi
}
# store FILE IMAGE: the file's differing blocks go into the image.
store() {
  /usr/bin/python3 - "$@" <<'P'
import sys
import rados, rbd
with rados.Rados(conffile="") as cluster, cluster.open_ioctx("p96") as io, rbd.Image(io, sys.argv[2]) as image:
    with open(sys.argv[1], "rb") as f:
        for offset in range(0, image.size(), 65536):
            block = f.read(65536)
            if image.read(offset, len(block)) != block:
                image.write(block, offset)
P
  rm "$1"
}
fsck() { e2fsck -fn "$1" >"$T/out" 2>&1 || { cat "$T/out" >&2; fail "e2fsck of $1 ($2)"; }; }
# check IMAGE PRESENT ABSENT WHEN: the image's file system is sound, with one file and without the other.
check() {
  rm -f "$T/check"
  rbd export "$1" "$T/check"
  fsck "$T/check" "$4"
  debugfs -R "cat $2" "$T/check" 2>/dev/null | cmp - "$T/$2" || fail "$2 in $1 ($4)"
  if debugfs -R "stat $3" "$T/check" 2>/dev/null | grep -q Inode; then fail "$3 is in $1 ($4)"; fi
}

head -c 5M /dev/urandom >"$T/a"
head -c 3M /dev/urandom >"$T/b"
truncate -s 40M "$T/disk"
mke2fs -q -F -t ext4 -E root_owner=0:0 "$T/disk"
debugfs -w -R "write $T/a a" "$T/disk" >/dev/null 2>&1
rbd import "$T/disk" p96/disk
rbd snap create p96/disk@one
rbd export p96/disk@one - | cmp - "$T/disk" || fail "export differs from import"
check p96/disk a b "imported"

edit disk "write $T/b b" "rm a"
check p96/disk b a "written"
check p96/disk@one a b "the snapshot"
rbd snap protect p96/disk@one
rbd snap create p96/disk@two
rbd clone p96/disk@one p96/child
check p96/child a b "the clone"
expect "p96/child" "$(rbd children p96/disk@one)" "children"
rbd snap rollback p96/disk@one
check p96/disk a b "rolled back"
rbd snap rollback p96/disk@two
check p96/disk b a "rolled forth"

edit child "write $T/b b" "rm a"
check p96/child b a "the clone, written"
check p96/disk@one a b "its parent"
rbd flatten p96/child
expect "" "$(rbd children p96/disk@one)" "children after flatten"
rbd snap unprotect p96/disk@one
rbd snap purge p96/disk
rbd rm p96/disk
check p96/child b a "the clone, flattened and alone"

rbd resize --size 80M p96/child
rbd export p96/child "$T/grown"
resize2fs -f "$T/grown" >"$T/out" 2>&1 || { cat "$T/out" >&2; fail "resize2fs"; }
fsck "$T/grown" "grown"
