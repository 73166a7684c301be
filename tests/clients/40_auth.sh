#!/bin/bash
# cephx: both modes, read-only caps, wrong and unknown keys.
. "$(dirname "$0")/_lib.sh"

ceph osd pool create p1 8
echo data >"$T/in"
rados -p p1 put x "$T/in"
rados --ms_client_mode=secure --ms_mon_client_mode=secure -p p1 get x "$T/got"; cmp "$T/in" "$T/got"
rados --ms_client_mode=crc --ms_mon_client_mode=crc -p p1 get x "$T/got"; cmp "$T/in" "$T/got"
head -c 9000000 /dev/urandom >"$T/big"
rados --ms_client_mode=secure -p p1 put big "$T/big"
rados --ms_client_mode=secure -p p1 get big "$T/got"; cmp "$T/big" "$T/got" || fail "secure mode, 9 MB"

ceph auth get-or-create client.ro mon 'allow r' osd 'allow r pool=p1' >"$T/ro.keyring"
ro() { rados --id ro --keyring "$T/ro.keyring" "$@"; }
ro -p p1 get x "$T/got"; cmp "$T/in" "$T/got" || fail "read with a read-only key"
rc=0; ro -p p1 put y "$T/in" >"$T/out" 2>&1 || rc=$?
expect 1 "$rc" "write with a read-only key"
grep -q '(1) Operation not permitted' "$T/out" || fail "write with a read-only key: $(cat "$T/out")"
rc=0; ceph --id ro --keyring "$T/ro.keyring" osd pool create nope >"$T/out" 2>&1 || rc=$?
expect 13 "$rc" "pool creation with a read-only key"

# A wrong key, and a name nobody knows.
printf '[client.admin]\n\tkey = AQDLyAxnAAAAABAA6U8wL5VXcmXjAfSUBnE4tA==\n' >"$T/bad"
expect_rc 13 ceph --keyring "$T/bad" --connect-timeout 10 -s
printf '[client.nobody]\n\tkey = AQDLyAxnAAAAABAA6U8wL5VXcmXjAfSUBnE4tA==\n' >"$T/unknown"
expect_rc 13 ceph --id nobody --keyring "$T/unknown" --connect-timeout 10 -s
