#!/bin/bash
# Our own client tools, and that they and Ceph's tools see the same objects.
. "$(dirname "$0")/_lib.sh"
: "${SPIRULA:?set SPIRULA to the spirula binary}"

own() { "$SPIRULA" rados -p own "$@"; }
cmd() { "$SPIRULA" ceph "$@"; }

# Commands: monitor's, manager's, a daemon's; outputs, errors and exit codes.
cmd osd pool create own 8
cmd osd pool application enable own rados
has "services:" cmd -s
has '"fsid"' cmd -s -f json
has "own" cmd osd pool ls
has "pgs" cmd pg stat
has "version" cmd tell osd.0 version
expect "$(ceph fsid)" "$(cmd fsid)" "fsid"
expect "$(ceph osd pool get own all)" "$(cmd osd pool get own all)" "osd pool get"
expect_rc 22 cmd osd nonsense
grep -q 'Error EINVAL: invalid command' "$T/out" || fail "unknown command: $(cat "$T/out")"
expect_rc 2 cmd osd pool get nosuch all
grep -q 'Error ENOENT' "$T/out" || fail "absent pool: $(cat "$T/out")"
expect_rc 1 "$SPIRULA" rados -p nosuch ls
grep -q '(2) No such file or directory' "$T/out" || fail "absent pool: $(cat "$T/out")"
has "own" "$SPIRULA" rados lspools

# Data: written by one, read by the other.
for size in 0 1 4096 4194304 9000001; do
  head -c "$size" /dev/urandom >"$T/in"
  own put "obj$size" "$T/in"
  own get "obj$size" "$T/got"; cmp "$T/in" "$T/got" || fail "$size bytes differ"
  rados -p own get "obj$size" "$T/got"; cmp "$T/in" "$T/got" || fail "$size bytes differ in rados"
  has "size $size" own stat "obj$size"
done
rados -p own put theirs "$T/in"
own get theirs "$T/got"; cmp "$T/in" "$T/got" || fail "written by rados"
expect "$(rados -p own ls | sort | xargs)" "$(own ls | sort | xargs)" "listing"

head -c 5000 /dev/urandom >"$T/a"; head -c 3000 /dev/urandom >"$T/b"
own put a "$T/a"; own append a "$T/b"; own truncate a 6000
cat "$T/a" "$T/b" | head -c 6000 >"$T/want"
own get a - >"$T/got"; cmp "$T/want" "$T/got" || fail "append and truncate"

# xattrs and omap
own setxattr a color blue
expect blue "$(rados -p own getxattr a color)" "xattr in rados"
expect blue "$(own getxattr a color)" "xattr"
expect color "$(own listxattr a | xargs)" "listxattr"
own rmxattr a color
expect_rc 1 own getxattr a color
grep -q '(61) No data available' "$T/out" || fail "absent xattr: $(cat "$T/out")"
own setomapval a k1 v1; own setomapval a k2 v2
expect "$(rados -p own listomapvals a)" "$(own listomapvals a)" "listomapvals"
own rmomapkey a k1
expect k2 "$(own listomapkeys a | xargs)" "rmomapkey"
own setomapheader a hello
has hello own getomapheader a

# Namespaces and locator keys
own -N ns1 put inside "$T/b"
expect inside "$(own -N ns1 ls)" "namespace"
expect "$(rados -p own --all ls | sort)" "$(own --all ls | sort)" "all namespaces"
own --object-locator anchor put located "$T/b"
rados -p own --object-locator anchor get located "$T/got"; cmp "$T/b" "$T/got" || fail "locator"

# Absence and removal
own rm a
expect_rc 1 own stat a
grep -q '(2) No such file or directory' "$T/out" || fail "stat of an absent object"
expect_rc 1 own rm a

# Who may not, may not.
cmd auth get-or-create client.own mon 'allow r' osd 'allow r pool=own' -o "$T/keyring"
expect_rc 1 "$SPIRULA" rados --id own -k "$T/keyring" -p own put x "$T/b"
grep -q '(1) Operation not permitted' "$T/out" || fail "write with a read cap: $(cat "$T/out")"
"$SPIRULA" rados --id own -k "$T/keyring" -p own get theirs - >/dev/null
printf '[client.own]\n\tkey = AQAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==\n' >"$T/keyring"
expect_rc 13 cmd --id own -k "$T/keyring" -s

# Measuring: each tool reads what the other wrote.
has "Total writes made" own bench 2 write -b 4096 -t 8 --no-cleanup
has "Total reads made" rados -p own bench 1 seq -t 8
has "Total reads made" own bench 1 rand -t 8
has "Removed" own cleanup
rados -p own bench 1 write -b 4096 -t 4 --no-cleanup >/dev/null
has "Total reads made" own bench 1 seq -t 4
has "Removed" own cleanup
for mode in write read; do
  has '"iops"' "$SPIRULA" load -p own --connections 2 --depth 4 --objects 20 --seconds 1 --json "$mode"
done
cmd osd pool rm own own --yes-i-really-really-mean-it
