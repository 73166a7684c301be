#!/bin/bash
# One client session after another, each with its messages logged: the input of normalize.py.
# usage: script.sh OUTPUT-DIRECTORY   (with CEPH_CONF naming the cluster)
set -u
out=$1
mkdir -p "$out"
n=0
data=$(mktemp); head -c 10000 /dev/zero | tr '\0' 'x' >"$data"
big=$(mktemp); head -c 9000000 /dev/zero >"$big"
trap 'rm -f "$data" "$big"' EXIT

# step COMMAND...: runs a client with debug output into its own file; its exit code is part of the trace.
step() {
  n=$((n + 1))
  local file; file=$(printf '%s/%02d' "$out" "$n") rc=0
  "$@" --debug_ms=1 --debug_objecter=20 --log_to_stderr=false --log_file="$file.log" >"$file.out" 2>&1 || rc=$?
  { echo "step $n: ${*//$data/DATA} -> exit $rc"; /usr/bin/python3 "$(dirname "$0")/normalize.py" <"$file.log"; } |
    sed "s#$big#BIG#g; s#$out#OUT#g" >"$file.trace"
}

ceph osd pool create trace 8 >/dev/null
ceph osd pool application enable trace rados >/dev/null
sleep 2
step ceph -s
step ceph osd pool create trace2 8
step ceph osd pool create trace2 8
step ceph osd pool ls
step ceph osd getmap -o /dev/null
step ceph osd pool rm nosuch nosuch --yes-i-really-really-mean-it
step ceph fsid
p() { step rados -p trace "$@"; }
p put a "$data"
p put big "$big"
p get a /dev/null
p get big /dev/null
p get absent /dev/null
p stat a
p stat absent
p append a "$data"
p truncate a 5000
p create fresh
p create fresh
p setxattr a name value
p getxattr a name
p getxattr a absent
p listxattr a
p rmxattr a name
p setomapval a k1 v1
p listomapkeys a
p listomapvals a
p getomapval a k1
p getomapval a absent
p setomapheader a head
p getomapheader a
p rmomapkey a k1
p clearomap a
p ls
p -N space put b "$data"
p --all ls
p rm a
p rm a
p df
step rados lspools
cat "$out"/*.trace >"$out/trace"
