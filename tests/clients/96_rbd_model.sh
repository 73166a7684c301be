#!/bin/bash
# Random operations on images of each kind beside a model in memory: one seed, the same each time. MODEL_SEED=n plays
# another, MODEL_SECONDS and MODEL_STEPS for longer.
. "$(dirname "$0")/_rbd.sh"
fresh p96 p96data
/usr/bin/python3 "$(dirname "$0")/_rbd_model.py"
