#!/bin/bash
# The cluster as its first user sees it: healthy, three OSDs up, pool `rbd` ready.
. "$(dirname "$0")/_lib.sh"

has HEALTH_OK ceph -s
has "3 osds: 3 up" ceph -s
has HEALTH_OK ceph health
expect 3 "$(json ceph osd stat -- 'd["num_up_osds"]')" "OSDs up"
expect HEALTH_OK "$(json ceph status -- 'd["health"]["status"]')" "health in json"
expect rbd "$(ceph osd pool ls)" "pools of a new cluster"
has "$(sed -n 's/^fsid = //p' "$CEPH_CONF")" ceph fsid
has "osd.2" ceph osd tree
has "active+clean" ceph pg stat
expect_rc 22 ceph no such command
expect_rc 0 ceph osd dump
expect_rc 0 ceph mon dump
expect_rc 0 ceph df
expect_rc 0 ceph versions
