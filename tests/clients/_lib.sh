# Sourced by the client scripts: strict mode, a scratch directory, and checks that name what failed.
# Runs inside `spirula vstart ... -- bash SCRIPT`, so CEPH_CONF names the cluster.
set -euo pipefail
: "${CEPH_CONF:?run me inside: spirula vstart --osds 3 -- bash $0}"
T=$(mktemp -d)
trap 'rc=$?; rm -rf "$T"; [ $rc = 0 ] || echo "FAILED: $0 line $LINENO (exit $rc)" >&2' EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }

# expect WANT GOT WHAT
expect() { [ "$1" = "$2" ] || fail "$3: expected '$1', got '$2'"; }

# expect_rc RC COMMAND...: the command must exit with RC; its output is left in $T/out.
expect_rc() {
  local want=$1 rc=0; shift
  "$@" >"$T/out" 2>&1 || rc=$?
  [ "$rc" = "$want" ] || { cat "$T/out" >&2; fail "'$*' exited with $rc instead of $want"; }
}

# has TEXT COMMAND...: the command's output must contain TEXT.
has() {
  local want=$1; shift
  "$@" >"$T/out" 2>&1 || { cat "$T/out" >&2; fail "'$*' failed"; }
  grep -qF -- "$want" "$T/out" || { cat "$T/out" >&2; fail "'$*' does not say '$want'"; }
}

# json COMMAND... -- PYTHON-EXPRESSION over the parsed document d
json() {
  local cmd=()
  while [ "$1" != -- ]; do cmd+=("$1"); shift; done
  shift
  "${cmd[@]}" -f json 2>/dev/null | /usr/bin/python3 -c "import json,sys; d=json.load(sys.stdin); print($1)"
}
