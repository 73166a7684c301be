#!/bin/bash
# python3-rados: connect with the conf, write, read and list 10,000 objects; compound operations.
. "$(dirname "$0")/_lib.sh"
/usr/bin/python3 "$(dirname "$0")/_objects.py"
