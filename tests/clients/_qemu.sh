# Sourced by the scripts that use QEMU: qemu-img and qemu-io with their rbd driver, of Debian's own release.
# A machine may have qemu-utils from another suite, whose driver needs another librbd: the pair is
# unpacked beside the build and nothing is installed.

# qemu_version: the newest of the suite of the librbd that is here, which the driver has to be built against.
qemu_version() {
  local suite
  suite=$(. /etc/os-release; echo "$VERSION_CODENAME")
  apt-cache madison qemu-block-extra 2>/dev/null | awk -F' *[|] *' -v s="$suite" \
    '$3 ~ " " s "(-[a-z]+)?/main " { sub(/^ +/, "", $2); print $2 }' | sort -V | tail -1
}

# qemu_unpack: sets QEMU_IMG and QEMU_IO.
qemu_unpack() {
  local root version dir lib
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  version=$(qemu_version) || true
  # A new machine may have no package lists yet.
  if [ -z "$version" ] && [ "$(id -u)" = 0 ]; then apt-get update -qq && version=$(qemu_version) || true; fi
  [ -n "$version" ] || fail "no qemu-block-extra of this release; run: sudo apt-get update"
  dir="${CARGO_TARGET_DIR:-$root/target}/clients/qemu-${version//[^A-Za-z0-9.+-]/_}"
  if [ ! -d "$dir" ]; then
    mkdir "$T/qemu"
    local get="apt-get download qemu-utils=$version qemu-block-extra=$version"
    (cd "$T/qemu" && $get >"$T/out" 2>&1) || { cat "$T/out" >&2; fail "cannot get QEMU; run in an empty directory: $get"; }
    for deb in "$T"/qemu/*.deb; do dpkg-deb -x "$deb" "$T/qemu/root"; done
    mkdir -p "$(dirname "$dir")"
    # Another run may have been faster.
    mv -T "$T/qemu/root" "$dir" 2>/dev/null || [ -d "$dir" ] || fail "cannot make $dir"
  fi
  lib=$(dirname "$(find "$dir" -name block-rbd.so)")
  export QEMU_MODULE_DIR=$lib
  QEMU_IMG=$dir/usr/bin/qemu-img
  QEMU_IO=$dir/usr/bin/qemu-io
}
