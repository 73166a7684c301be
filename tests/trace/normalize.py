#!/usr/bin/python3
"""Reduce a client log made with debug_ms=1 to what must be equal on any cluster.

Reads a log on stdin; prints one line per message, `PEER DIRECTION MESSAGE`, grouped by peer kind and
direction: how the two directions interleave is a race even between two runs on one cluster.
Kept: message types, osd_op operations, reply codes and reply flags. Dropped, because they depend on
time, placement or history: addresses, tids, pg ids, hashes, epochs, versions, lengths of maps, and
osd_map pushes after the first (a map that changes while the client runs is pushed once more), and
mon_map after the first of a session (the bootstrap session may close before its second answer).
"""
import re
import sys

SENT = re.compile(r"-- .*? --> (\S+) -- (.*?) -- (?:0x\S+ con|\?)")
RECEIVED = re.compile(r"-- (\S+) <== (\w+)\.\S+ \S+ \d+ ==== (.*?) ==== \d+\+\d+\+\d+")
OSD_OP = re.compile(r"^osd_op\(\S+ \S+ (\S+) \[(.*)\] snapc \S+ (\S+) e\d+\)")
OSD_REPLY = re.compile(r"^osd_op_reply\(\d+ (\S*) \[(.*)\] v\S+ uv\S+ (\S+) = (-?\d+)")
NAME = re.compile(r"^([a-z_]+)")


def peer_of(message, kinds, address):
    """Mon and mgr are known by what is sent to them; everything else sent goes to an OSD."""
    if message.startswith("osd_op") or message.startswith("ping"):
        return "osd"
    return kinds.get(address, "mon")


def ops_of(text):
    """Operation names and extents; in=/out= byte counts belong to encodings and are kept, except
    listing cursors, which hold epochs."""
    text = re.sub(r"start_epoch \d+", "start_epoch E", text)
    return text


def reduce_message(message):
    found = OSD_OP.match(message)
    if found:
        target, ops, flags = found.groups()
        name = target.split(":", 2)[-1] if ":" in target else target
        return "osd_op %s [%s] %s" % (name, ops_of(ops), flags)
    found = OSD_REPLY.match(message)
    if found:
        name, ops, flags, code = found.groups()
        return "osd_op_reply %s [%s] %s = %s" % (name, ops_of(ops), flags, code)
    if message.startswith("mon_subscribe"):
        wanted = re.findall(r"(\w+)=\d+(\+?)", message)
        return "mon_subscribe " + " ".join(sorted(w + p for w, p in wanted))
    if message.startswith("mon_command_ack"):
        code = re.search(r"\]?\)?=(-?\d+)", message)
        return "mon_command_ack = %s" % (code.group(1) if code else "?")
    if message.startswith(("mon_command", "mgr_command", "command")):
        prefix = re.search(r'"prefix": ?"([^"]*)"', message)
        return "%s %s" % (NAME.match(message).group(1), prefix.group(1) if prefix else "")
    if message.startswith("pool_op_reply"):
        return "pool_op_reply " + re.search(r"= (-?\d+)", message).group(1)
    return NAME.match(message).group(1) if NAME.match(message) else message


def main():
    streams = {}
    kinds = {}
    maps_seen = {}
    with_monmap = set()
    for line in sys.stdin:
        if "<==" in line:
            found = RECEIVED.search(line)
            if not found:
                continue
            session, peer, message = found.groups()
            direction = "<-"
            if message.startswith("mon_map") and session in with_monmap:
                continue
            if message.startswith("mon_map"):
                with_monmap.add(session)
        elif "-->" in line:
            found = SENT.search(line)
            if not found:
                continue
            address, message = found.groups()
            peer, direction = peer_of(message, kinds, address), "->"
        else:
            continue
        if message.startswith("osd_map"):
            maps_seen[peer] = maps_seen.get(peer, 0) + 1
            if peer == "osd" or maps_seen[peer] > 1:
                continue
        streams.setdefault((peer, direction), []).append(reduce_message(message))
    for peer, direction in sorted(streams):
        for message in streams[peer, direction]:
            print(peer, direction, message)


main()
