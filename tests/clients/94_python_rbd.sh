#!/bin/bash
# python3-rbd as in its documentation.
. "$(dirname "$0")/_lib.sh"
ceph osd pool create p94 8
/usr/bin/python3 "$(dirname "$0")/_python_rbd.py" p94
