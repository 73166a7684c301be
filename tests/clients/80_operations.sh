#!/bin/bash
# Every operation of the OSD, alone and in compound requests, with results and outputs: the table of
# `_operations.py`. It holds on a real Ceph too: CEPH_CONF=/etc/ceph/ceph.conf bash 80_operations.sh
. "$(dirname "$0")/_lib.sh"
/usr/bin/python3 "$(dirname "$0")/_operations.py" "$@"
