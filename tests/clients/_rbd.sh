# Sourced by the scripts of `rbd`: a transcript of commands, compared with the one that Ceph 16.2.15 gave.
# On Spirula:  spirula vstart --osds 3 -- bash 9x_rbd_NAME.sh
# On a Ceph:   CEPH_CONF=DIR/ceph.conf bash 9x_rbd_NAME.sh   (add RECORD=1 to write 9x_rbd_NAME.want anew)
# What differs between any two runs (ids, dates, addresses, numbers of a group's snapshots, which are taken side by
# side) is masked; sizes, other snapshots' numbers, words and exit codes are not.
# The libraries' log is left out: a client that exits may lose its last lines.
. "$(dirname "$0")/_lib.sh"
WANT=${0%.sh}.want
RUN=$T/transcript
: >"$T/masks"
export TZ=UTC CEPH_ARGS="--log_to_stderr=false --err_to_stderr=false --log_file=/dev/null"

# fresh POOL...: empty pools that `rbd pool init` has seen.
fresh() {
  local p
  for p in "$@"; do
    ceph osd pool rm "$p" "$p" --yes-i-really-really-mean-it >/dev/null 2>&1 || true
    ceph osd pool create "$p" 8 >/dev/null 2>&1
    rbd pool init "$p"
  done
}

# mask VALUE NAME: VALUE is NAME in the rest of the transcript.
mask() { [ -z "$1" ] || echo "s#$1#$2#g" >>"$T/masks"; }

masked() {
  tr '\r' '\n' | sed -E -f "$T/masks" -e "s#$T#T#g" \
    -e 's/[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [0-9]{4}/DATE/g' \
    -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+([+][0-9]+)? ?/DATE /g' \
    -e 's/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/UUID/g' \
    -e 's#127\.0\.0\.1:[0-9]+/[0-9]+#ADDR#g' -e 's/client\.?[0-9]+/client.N/g' \
    -e 's/(cookie|notify_id|notifier_id)[ =:]+[0-9]+/\1=N/g' \
    -e 's/(rbd_data|journal_data|journal|rbd_header|rbd_object_map)\.([0-9]+\.)?[0-9a-f]{6,}/\1.ID/g' \
    -e 's/(rbd_data|journal_data)\.[0-9]+\.([A-Z]+)/\1.\2/g' \
    -e 's/^(\tjournal: )[0-9a-f]+$/\1ID/' -e "s/^(rbd journal )'.*'/\1'ID'/" \
    -e 's/\.group\.[0-9a-f]+_[0-9a-f]+_[0-9a-f]+/.group.ID/' -e 's/^ *[0-9]+ +\.group/ N .group/' \
    -e 's/\b(id|image_id|pool_id)(:|":) ?"?[0-9]*[0-9a-f]{6,}"?/\1\2ID/g' \
    -e 's/  +/ /g' -e 's/ +$//' -e '/complete\.\.\./d' -e '/^$/d'
}

# left POOL: the objects a pool still has, but for data that only waits for its snapshots' end.
left() { rados -p "$1" ls --all | grep -v rbd_data | sort | xargs; }

# t COMMAND...: one command of the transcript: its words, what it says, and how it exits if not with 0.
t() {
  local rc=0
  "$@" >"$T/o" 2>&1 </dev/null || rc=$?
  { echo "\$ $*"; cat "$T/o"; [ $rc = 0 ] || echo "exit $rc"; } | masked >>"$RUN"
}

# q COMMAND...: as t, for one whose output holds times or speeds.
q() {
  local rc=0
  "$@" >"$T/o" 2>&1 </dev/null || rc=$?
  [ $rc != 0 ] || : >"$T/o"
  { echo "\$ $*"; cat "$T/o"; [ $rc = 0 ] || echo "exit $rc"; } | masked >>"$RUN"
}

# same IMAGE FILE: the bytes of an image or snapshot.
same() {
  rbd export --no-progress "$1" "$T/export" >/dev/null 2>&1 || fail "export of $1"
  cmp "$T/export" "$2" || fail "$1 is not $2"
  rm -f "$T/export"
}

# patch IMAGE FILE OFFSET SIZE: random bytes into both (the image's through a diff that holds one extent).
patch() {
  head -c "$4" /dev/urandom >"$T/patch"
  dd if="$T/patch" of="$2" bs=64K oflag=seek_bytes seek="$3" conv=notrunc status=none
  /usr/bin/python3 - "$T/patch" "$3" "$(stat -c %s "$2")" >"$T/patch.diff" <<'P'
import struct, sys
data = open(sys.argv[1], "rb").read()
out = b"rbd diff v1\n" + b"s" + struct.pack("<Q", int(sys.argv[3]))
out += b"w" + struct.pack("<QQ", int(sys.argv[2]), len(data)) + data + b"e"
sys.stdout.buffer.write(out)
P
  rbd import-diff --no-progress "$T/patch.diff" "$1"
}

# Ends each script.
compare() {
  if [ -n "${RECORD:-}" ]; then cp "$RUN" "$WANT"; return; fi
  diff -u "$WANT" "$RUN" >"$T/diff" || { cat "$T/diff" >&2; fail "not what Ceph says"; }
}
