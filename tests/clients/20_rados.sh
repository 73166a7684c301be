#!/bin/bash
# Objects through the `rados` tool: data, xattrs, omap, namespaces, listing, errors.
. "$(dirname "$0")/_lib.sh"

ceph osd pool create p1 32
ceph osd pool application enable p1 rados
r() { rados -p p1 "$@"; }

for size in 0 1 4096 100000 4194304 9000001; do
  head -c "$size" /dev/urandom >"$T/in"
  r put "obj$size" "$T/in"
  r get "obj$size" "$T/out.$size"
  cmp "$T/in" "$T/out.$size" || fail "object of $size bytes differs"
  has "size $size" rados -p p1 stat "obj$size"
done
expect "obj0 obj1 obj100000 obj4096 obj4194304 obj9000001" "$(r ls | sort | xargs)" "listing"

# Overwrite, append, truncate.
head -c 5000 /dev/urandom >"$T/a"; head -c 3000 /dev/urandom >"$T/b"
r put a "$T/a"; r append a "$T/b"
cat "$T/a" "$T/b" >"$T/ab"
r get a "$T/got"; cmp "$T/ab" "$T/got" || fail "append"
r truncate a 6000
head -c 6000 "$T/ab" >"$T/want"
r get a "$T/got"; cmp "$T/want" "$T/got" || fail "truncate"
r put a "$T/b" --offset 1000
{ head -c 1000 "$T/a"; cat "$T/b"; tail -c +4001 "$T/want"; } >"$T/want2"
r get a "$T/got"; cmp "$T/want2" "$T/got" || fail "write at an offset"

# Copies: to other PGs, and to other OSDs.
for i in 1 2 3 4; do
  r cp a "copy$i"
  r get "copy$i" "$T/got"; cmp "$T/want2" "$T/got" || fail "copy $i"
  r rm "copy$i"
done

# xattrs
r setxattr a color blue
expect blue "$(r getxattr a color)" getxattr
r setxattr a shape round
expect "color shape" "$(r listxattr a | sort | xargs)" listxattr
r rmxattr a color
expect_rc 1 rados -p p1 getxattr a color
grep -q '(61) No data available' "$T/out" || fail "absent xattr: $(cat "$T/out")"

# omap
r setomapval a k1 v1; r setomapval a k2 v2
expect "k1 k2" "$(r listomapkeys a | xargs)" listomapkeys
has "v2" rados -p p1 getomapval a k2
has "k1" rados -p p1 listomapvals a
r setomapheader a hello
has hello rados -p p1 getomapheader a
r rmomapkey a k1
expect k2 "$(r listomapkeys a)" "after rmomapkey"
r clearomap a
expect "" "$(r listomapkeys a)" "after clearomap"

# Namespaces and locator keys.
r -N ns1 put nsobj "$T/b"
expect nsobj "$(r -N ns1 ls)" "namespace listing"
has nsobj rados -p p1 --all ls
r --object-locator anchor put located "$T/b"
r --object-locator anchor get located "$T/got"; cmp "$T/b" "$T/got" || fail "locator key"

# Absence and removal.
r rm a
expect_rc 1 rados -p p1 stat a
grep -q '(2) No such file or directory' "$T/out" || fail "stat of an absent object: $(cat "$T/out")"
expect_rc 1 rados -p p1 rm a
expect_rc 1 rados -p p1 get a "$T/got"
has p1 rados df
