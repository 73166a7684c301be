#!/bin/bash
# Class methods: every call that was measured on a Ceph cluster, with the same answers and stored bytes here.
. "$(dirname "$0")/_lib.sh"
tests=$(cd "$(dirname "$0")/../../crates/cls/tests" && pwd)
ceph osd pool create classes 8 >/dev/null 2>&1
PYTHONDONTWRITEBYTECODE=1 expect_rc 0 /usr/bin/python3 "$tests/play.py" "$CEPH_CONF" classes "$tests"/measured/*.txt
