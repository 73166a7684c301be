#!/bin/bash
# python3-rbd as in its documentation, and random operations on images against a model (its seed is printed;
# SEED and STEPS choose others).
. "$(dirname "$0")/_lib.sh"
dir=$(dirname "$0")
ceph osd pool create p94 8
/usr/bin/python3 "$dir/_python_rbd.py" p94
ceph osd pool create model 16
rbd pool init model
/usr/bin/python3 "$dir/_image_model.py" "${SEED:-$RANDOM$RANDOM}" "${STEPS:-1500}"
