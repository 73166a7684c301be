#!/bin/bash
# Random operations on images of each kind beside a model in memory (96_rbd_model.py; MODEL_SECONDS, MODEL_STEPS, MODEL_SEED).
. "$(dirname "$0")/_rbd.sh"
fresh p96 p96data
/usr/bin/python3 "$(dirname "$0")/96_rbd_model.py"
