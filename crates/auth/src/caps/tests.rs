//! The grammars against a real monitor, and what the grants allow.
//!
//! `VERDICTS` is what `ceph auth caps` of Ceph 16.2.15 answered: the empty string where it accepted
//! the text, otherwise its message.
#![cfg(test)]

use std::collections::BTreeMap;

use spirula_wire::types::EntityNameStr;

use super::*;

const VERDICTS: &[(&str, &str, &str)] = &[
    ("osd", "allow *", ""),
    ("osd", "allow rwx", ""),
    ("osd", "allow all", ""),
    ("osd", "allow r", ""),
    ("osd", "allow rw pool=x", ""),
    ("osd", "allow rw pool x", ""),
    ("osd", "allow pool x rw", ""),
    ("osd", "allow pool=x namespace=y rwx", ""),
    ("osd", "allow rwx pool=x namespace=y", ""),
    ("osd", "allow rwx namespace=y*", ""),
    ("osd", "allow rwx namespace=\"\"", ""),
    ("osd", "allow rwx pool=\"a b\" namespace=\"c d\"", ""),
    ("osd", "allow class-read object_prefix rbd_children, allow rwx pool=rbd", ""),
    ("osd", "allow class-read class-write", ""),
    ("osd", "allow rwx class-read", ""),
    ("osd", "allow r class-read", ""),
    ("osd", "allow x", ""),
    ("osd", "allow w", ""),
    ("osd", "allow wr", "osd capability parse failed, stopped at 'r' of 'allow wr'"),
    ("osd", "allow class foo", ""),
    ("osd", "allow class foo bar", ""),
    (
        "osd",
        "allow class foo pool=x",
        "osd capability parse failed, stopped at '=x' of 'allow class foo pool=x'",
    ),
    ("osd", "allow class foo bar pool=x", ""),
    ("osd", "allow rw tag cephfs data=a", ""),
    ("osd", "allow rw tag cephfs *=*", ""),
    ("osd", "allow rw tag cephfs data = a", ""),
    ("osd", "allow tag cephfs data=a rw", ""),
    ("osd", "allow rw tag cephfs all=all", ""),
    ("osd", "allow rwx network 10.0.0.0/8", ""),
    ("osd", "allow rwx network 999", ""),
    ("osd", "profile rbd", ""),
    (
        "osd",
        "allow profile rbd",
        "osd capability parse failed, stopped at 'allow profile rbd' of 'allow profile rbd'",
    ),
    ("osd", "profile=rbd", ""),
    ("osd", "profile rbd pool=x", ""),
    ("osd", "profile rbd pool=x namespace=y", ""),
    ("osd", "profile rbd pool=x, profile rbd-read-only pool=y", ""),
    ("osd", "profile nonsense", ""),
    ("osd", "allow", "osd capability parse failed, stopped at 'allow' of 'allow'"),
    ("osd", "", "osd capability parse failed, stopped at '' of ''"),
    ("osd", " allow r", ""),
    ("osd", "allow r ", ""),
    ("osd", "allow r;allow w", ""),
    ("osd", "allow r ; allow w", ""),
    (
        "osd",
        "allow r, ,allow w",
        "osd capability parse failed, stopped at ', ,allow w' of 'allow r, ,allow w'",
    ),
    ("osd", "allow r,", "osd capability parse failed, stopped at ',' of 'allow r,'"),
    (
        "osd",
        "allow auid 5 rw",
        "osd capability parse failed, stopped at 'allow auid 5 rw' of 'allow auid 5 rw'",
    ),
    (
        "osd",
        "allow rw auid 5",
        "osd capability parse failed, stopped at 'auid 5' of 'allow rw auid 5'",
    ),
    ("osd", "allow rwx object_prefix abc", ""),
    ("osd", "allow rwx pool=x object_prefix abc", ""),
    ("osd", "allow rwx object_prefix \"a b\"", ""),
    ("osd", "allow  rw", ""),
    ("osd", "allow\trw", ""),
    ("osd", "allow rw  pool=x", ""),
    (
        "osd",
        "allow rw pool= x",
        "osd capability parse failed, stopped at 'pool= x' of 'allow rw pool= x'",
    ),
    ("osd", "allow rwx foo", "osd capability parse failed, stopped at 'foo' of 'allow rwx foo'"),
    ("osd", "ALLOW rwx", "osd capability parse failed, stopped at 'ALLOW rwx' of 'ALLOW rwx'"),
    ("osd", "allow rwx namespace=x tag cephfs data=b", ""),
    (
        "osd",
        "allow rwx pool=x tag cephfs data=b",
        "osd capability parse failed, stopped at 'tag cephfs data=b' of 'allow rwx pool=x tag cephfs data=b'",
    ),
    ("osd", "profile rbd network 1.2.3.0/24", ""),
    (
        "osd",
        "allow r network 1.2.3.0/24 pool=x",
        "osd capability parse failed, stopped at 'pool=x' of 'allow r network 1.2.3.0/24 pool=x'",
    ),
    ("osd", "allow *  , allow r", ""),
    ("osd", "allow * pool=x", ""),
    ("osd", "allow class \"foo\" \"bar\"", ""),
    ("osd", "allow class 'foo' 'bar'", ""),
    ("osd", "allow rw tag \"a b\" \"c\"=\"d\"", ""),
    (
        "osd",
        "allow rwx pool=x class-read",
        "osd capability parse failed, stopped at 'class-read' of 'allow rwx pool=x class-read'",
    ),
    ("osd", "allow r  ,  allow w", ""),
    (
        "osd",
        "allow r\n, allow w",
        "osd capability parse failed, stopped at ', allow w' of 'allow r\n, allow w'",
    ),
    ("osd", "\nallow r", ""),
    ("osd", "allow r\n", ""),
    ("mon", "allow *", ""),
    ("mon", "allow all", ""),
    ("mon", "allow r", ""),
    ("mon", "allow rw", ""),
    ("mon", "allow rwx", ""),
    ("mon", "allow wx", ""),
    ("mon", "allow xr", "mon capability parse failed, stopped at 'r' of 'allow xr'"),
    ("mon", "allow profile osd", ""),
    ("mon", "profile osd", ""),
    ("mon", "profile=osd", ""),
    ("mon", "profile nonsense", ""),
    ("mon", "allow service mon r", ""),
    (
        "mon",
        "allow service mon",
        "mon capability parse failed, stopped at 'allow service mon' of 'allow service mon'",
    ),
    ("mon", "allow service=mon rw", ""),
    ("mon", "allow service mon *", ""),
    ("mon", "allow command foo", ""),
    ("mon", "allow command \"osd pool create\"", ""),
    ("mon", "allow command \"auth get\" with entity=client.foo", ""),
    (
        "mon",
        "allow command \"auth get\" with entity = client.foo",
        "mon capability parse failed, stopped at 'with entity = client.foo' of 'allow command \"auth get\" with entity = client.foo'",
    ),
    ("mon", "allow command \"auth get\" with entity prefix client.", ""),
    ("mon", "allow command \"auth get\" with entity regex \"^client\\.[a-z]+$\"", ""),
    ("mon", "allow command \"auth get\" with a=b c prefix d e regex f", ""),
    (
        "mon",
        "allow command foo with",
        "mon capability parse failed, stopped at 'with' of 'allow command foo with'",
    ),
    ("mon", "allow command=foo", ""),
    (
        "mon",
        "allow command foo r",
        "mon capability parse failed, stopped at 'r' of 'allow command foo r'",
    ),
    ("mon", "allow r network 10.0.0.0/8", ""),
    ("mon", "allow profile osd network 10.0.0.0/8", ""),
    ("mon", "allow command foo network 1.0.0.0/8", ""),
    ("mon", "allow r, allow command foo", ""),
    ("mon", "allow r;allow w", ""),
    (
        "mon",
        "allow r allow w",
        "mon capability parse failed, stopped at 'allow w' of 'allow r allow w'",
    ),
    ("mon", "allow r fsname=a", ""),
    ("mon", "allow r fsname a", ""),
    (
        "mon",
        "allow rw fsname=a network 1.0.0.0/8",
        "mon capability parse failed, stopped at 'network 1.0.0.0/8' of 'allow rw fsname=a network 1.0.0.0/8'",
    ),
    (
        "mon",
        "allow service mon r fsname=a",
        "mon capability parse failed, stopped at 'fsname=a' of 'allow service mon r fsname=a'",
    ),
    ("mon", "allow", "mon capability parse failed, stopped at 'allow' of 'allow'"),
    ("mon", "allow foo", "mon capability parse failed, stopped at 'allow foo' of 'allow foo'"),
    ("mon", "", "mon capability parse failed, stopped at end of ''"),
    ("mon", " allow r ", ""),
    ("mon", "allow r,", "mon capability parse failed, stopped at ',' of 'allow r,'"),
    ("mon", "allow read", "mon capability parse failed, stopped at 'ead' of 'allow read'"),
    ("mon", "allow  r", ""),
    ("mon", "allow\tr", ""),
    ("mon", "allow command \"x\" with a=\"b c\"", ""),
    (
        "mon",
        "allow rwx pool=x",
        "mon capability parse failed, stopped at 'pool=x' of 'allow rwx pool=x'",
    ),
    (
        "mon",
        "allow r network x",
        "mon capability parse failed, stopped at 'network x' of 'allow r network x'",
    ),
    ("mon", "allow command \"a\" with k regex \"[\"", ""),
    (
        "mon",
        "profile rbd pool=x",
        "mon capability parse failed, stopped at 'pool=x' of 'profile rbd pool=x'",
    ),
    ("mon", "profile simple-rados-client-with-blocklist", ""),
    ("mon", "allow r , allow w", ""),
    ("mon", "allow r\n,allow w", ""),
    ("mon", "allow r\n", ""),
    ("mon", "allow rw network 1.0.0.0/8 fsname=a", ""),
    (
        "mon",
        "allow r fsname=\"a b\"",
        "mon capability parse failed, stopped at 'fsname=\"a b\"' of 'allow r fsname=\"a b\"'",
    ),
    ("mon", "allow r fsname=a_b.c", ""),
    (
        "mon",
        "allow r fsname *",
        "mon capability parse failed, stopped at 'fsname *' of 'allow r fsname *'",
    ),
    (
        "mon",
        "allow r fsname=*",
        "mon capability parse failed, stopped at 'fsname=*' of 'allow r fsname=*'",
    ),
    (
        "mon",
        "allow r fsname=a/b",
        "mon capability parse failed, stopped at '/b' of 'allow r fsname=a/b'",
    ),
    ("mon", "allow r network 1.2.3.4/8, allow r", ""),
    (
        "mon",
        "profile osd fsname=a",
        "mon capability parse failed, stopped at 'fsname=a' of 'profile osd fsname=a'",
    ),
    ("mon", "allow * fsname=a", ""),
    ("mgr", "allow *", ""),
    ("mgr", "allow r", ""),
    ("mgr", "allow rw", ""),
    ("mgr", "profile osd", ""),
    ("mgr", "allow profile osd", ""),
    ("mgr", "profile rbd", ""),
    ("mgr", "profile rbd pool=x", ""),
    ("mgr", "profile rbd pool=x namespace=y", ""),
    (
        "mgr",
        "profile rbd foo=x",
        "mgr capability parse failed during profile evaluation: profile 'rbd' does not recognize key 'foo'",
    ),
    (
        "mgr",
        "profile nonsense",
        "mgr capability parse failed during profile evaluation: unrecognized profile 'nonsense'",
    ),
    ("mgr", "profile read-only", ""),
    ("mgr", "allow service x r", ""),
    ("mgr", "allow module x r", ""),
    ("mgr", "allow module x with a=b rw", ""),
    (
        "mgr",
        "allow module x",
        "mgr capability parse failed, stopped at 'allow module x' of 'allow module x'",
    ),
    ("mgr", "allow module=x *", ""),
    ("mgr", "allow command \"foo\"", ""),
    ("mgr", "allow command \"foo\" with a=b", ""),
    ("mgr", "allow command \"foo\" with a = b", ""),
    (
        "mgr",
        "allow command \"foo\" r",
        "mgr capability parse failed, stopped at 'r' of 'allow command \"foo\" r'",
    ),
    ("mgr", "allow r network 10.0.0.0/8", ""),
    ("mgr", "profile rbd pool=x network 1.0.0.0/8", ""),
    ("mgr", "profile crash", ""),
    ("mgr", "allow profile mds", ""),
    (
        "mgr",
        "profile rgw",
        "mgr capability parse failed during profile evaluation: unrecognized profile 'rgw'",
    ),
    (
        "mgr",
        "allow service x",
        "mgr capability parse failed, stopped at 'allow service x' of 'allow service x'",
    ),
    ("mgr", "profile rbd pool prefix a", ""),
    ("mgr", "allow r, allow w", ""),
    ("mgr", "profile=rbd pool=x", ""),
    ("mgr", "profile rbd pool = x", ""),
    ("mgr", "allow r\n", ""),
    (
        "mgr",
        "profile rbd pool=x foo=y",
        "mgr capability parse failed during profile evaluation: profile 'rbd' does not recognize key 'foo'",
    ),
    ("mgr", "allow module x with a prefix b rw", ""),
    ("mgr", "allow command foo with a =b", ""),
    ("mgr", "", "mgr capability parse failed, stopped at end of ''"),
    ("mgr", "profile rbd-read-only pool=x", ""),
    ("mgr", "profile read-write", ""),
    ("mds", "allow *", ""),
    ("mds", "allow all", ""),
    ("mds", "allow", ""),
    ("mds", "allow r", ""),
    ("mds", "allow rw", ""),
    ("mds", "allow rwp", ""),
    ("mds", "allow rws", ""),
    ("mds", "allow rwf", ""),
    ("mds", "allow rwps", ""),
    ("mds", "allow rwfp", ""),
    ("mds", "allow rwfs", ""),
    ("mds", "allow rwfps", ""),
    ("mds", "allow rwsp", "mds capability parse failed, stopped at 'p' of 'allow rwsp'"),
    ("mds", "allow rp", "mds capability parse failed, stopped at 'p' of 'allow rp'"),
    ("mds", "allow w", "mds capability parse failed, stopped at 'allow w' of 'allow w'"),
    ("mds", "allow wr", "mds capability parse failed, stopped at 'allow wr' of 'allow wr'"),
    ("mds", "allow rwx", "mds capability parse failed, stopped at 'x' of 'allow rwx'"),
    ("mds", "allow x", "mds capability parse failed, stopped at 'allow x' of 'allow x'"),
    ("mds", "allow r path=/a", ""),
    ("mds", "allow r path=\"/a b\"", ""),
    ("mds", "allow r path='/a b'", ""),
    ("mds", "allow r path=\"\"", ""),
    ("mds", "allow r path=", "mds capability parse failed, stopped at 'path=' of 'allow r path='"),
    (
        "mds",
        "allow r path = /a",
        "mds capability parse failed, stopped at 'path = /a' of 'allow r path = /a'",
    ),
    (
        "mds",
        "allow r path /a",
        "mds capability parse failed, stopped at 'path /a' of 'allow r path /a'",
    ),
    ("mds", "allow r path=/a uid=1", ""),
    ("mds", "allow r path=/a uid=1 gids=1,2,3", ""),
    (
        "mds",
        "allow r uid=1 path=/a",
        "mds capability parse failed, stopped at 'path=/a' of 'allow r uid=1 path=/a'",
    ),
    ("mds", "allow r uid=1 gids=1", ""),
    (
        "mds",
        "allow r gids=1",
        "mds capability parse failed, stopped at 'gids=1' of 'allow r gids=1'",
    ),
    (
        "mds",
        "allow r uid=1 gids=",
        "mds capability parse failed, stopped at 'gids=' of 'allow r uid=1 gids='",
    ),
    (
        "mds",
        "allow r uid=1 gids=1,",
        "mds capability parse failed, stopped at ',' of 'allow r uid=1 gids=1,'",
    ),
    ("mds", "allow r uid=1 gids=1, allow rw", ""),
    ("mds", "allow r uid=x", "mds capability parse failed, stopped at 'uid=x' of 'allow r uid=x'"),
    (
        "mds",
        "allow r uid=-1",
        "mds capability parse failed, stopped at 'uid=-1' of 'allow r uid=-1'",
    ),
    ("mds", "allow r uid=4294967295", ""),
    (
        "mds",
        "allow r uid=4294967296",
        "mds capability parse failed, stopped at 'uid=4294967296' of 'allow r uid=4294967296'",
    ),
    ("mds", "allow r uid=00000000001", ""),
    (
        "mds",
        "allow r uid=1 gids=1 ,2",
        "mds capability parse failed, stopped at ',2' of 'allow r uid=1 gids=1 ,2'",
    ),
    (
        "mds",
        "allow r uid=1 gids=1, 2",
        "mds capability parse failed, stopped at ', 2' of 'allow r uid=1 gids=1, 2'",
    ),
    (
        "mds",
        "allow r uid=+1",
        "mds capability parse failed, stopped at 'uid=+1' of 'allow r uid=+1'",
    ),
    ("mds", "allow r fsname=a", ""),
    (
        "mds",
        "allow r fsname a",
        "mds capability parse failed, stopped at 'fsname a' of 'allow r fsname a'",
    ),
    (
        "mds",
        "allow r fsname=*",
        "mds capability parse failed, stopped at 'fsname=*' of 'allow r fsname=*'",
    ),
    ("mds", "allow r fsname=all", ""),
    (
        "mds",
        "allow r fsname=\"a\"",
        "mds capability parse failed, stopped at 'fsname=\"a\"' of 'allow r fsname=\"a\"'",
    ),
    ("mds", "allow r fsname=a path=/b", ""),
    (
        "mds",
        "allow r path=/b fsname=a",
        "mds capability parse failed, stopped at 'fsname=a' of 'allow r path=/b fsname=a'",
    ),
    (
        "mds",
        "allow r fsname=a uid=1",
        "mds capability parse failed, stopped at 'uid=1' of 'allow r fsname=a uid=1'",
    ),
    (
        "mds",
        "allow r fsname=a path=/b uid=1",
        "mds capability parse failed, stopped at 'uid=1' of 'allow r fsname=a path=/b uid=1'",
    ),
    ("mds", "allow r fsname=a path=/b root_squash", ""),
    ("mds", "allow r fsname=a root_squash", ""),
    ("mds", "allow r root_squash", ""),
    ("mds", "allow r path=/b root_squash", ""),
    (
        "mds",
        "allow r root_squash path=/b",
        "mds capability parse failed, stopped at 'path=/b' of 'allow r root_squash path=/b'",
    ),
    (
        "mds",
        "allow r root_squash fsname=a",
        "mds capability parse failed, stopped at 'fsname=a' of 'allow r root_squash fsname=a'",
    ),
    (
        "mds",
        "allow r uid=1 root_squash",
        "mds capability parse failed, stopped at 'root_squash' of 'allow r uid=1 root_squash'",
    ),
    (
        "mds",
        "allow r path=/a uid=1 root_squash",
        "mds capability parse failed, stopped at 'root_squash' of 'allow r path=/a uid=1 root_squash'",
    ),
    (
        "mds",
        "allow r root_squash=1",
        "mds capability parse failed, stopped at '=1' of 'allow r root_squash=1'",
    ),
    (
        "mds",
        "allow r root_squash2",
        "mds capability parse failed, stopped at '2' of 'allow r root_squash2'",
    ),
    ("mds", "allow r network 1.0.0.0/8", ""),
    (
        "mds",
        "allow r network x",
        "mds capability parse failed, stopped at 'network x' of 'allow r network x'",
    ),
    (
        "mds",
        "allow r network",
        "mds capability parse failed, stopped at 'network' of 'allow r network'",
    ),
    (
        "mds",
        "allow r network=1.0.0.0/8",
        "mds capability parse failed, stopped at 'network=1.0.0.0/8' of 'allow r network=1.0.0.0/8'",
    ),
    ("mds", "allow r path=/a network 1.0.0.0/8", ""),
    ("mds", "allow r fsname=a path=/b root_squash network 1.0.0.0/8", ""),
    (
        "mds",
        "allow r network 1.0.0.0/8 path=/a",
        "mds capability parse failed, stopped at 'path=/a' of 'allow r network 1.0.0.0/8 path=/a'",
    ),
    ("mds", "allow r network abc", ""),
    ("mds", "allow r, allow rw path=/x", ""),
    ("mds", "allow r;allow rw", ""),
    ("mds", "allow r ; allow rw", ""),
    ("mds", "allow r  ,  allow rw", ""),
    (
        "mds",
        "allow r\t, allow rw",
        "mds capability parse failed, stopped at ', allow rw' of 'allow r\t, allow rw'",
    ),
    (
        "mds",
        "allow r,\nallow rw",
        "mds capability parse failed, stopped at ',\nallow rw' of 'allow r,\nallow rw'",
    ),
    ("mds", "allow r\n", ""),
    ("mds", "\nallow r", ""),
    ("mds", " allow r ", ""),
    ("mds", "\tallow\tr", ""),
    ("mds", "allow\nr", ""),
    ("mds", "allow r,", "mds capability parse failed, stopped at ',' of 'allow r,'"),
    (
        "mds",
        "allow r,,allow r",
        "mds capability parse failed, stopped at ',,allow r' of 'allow r,,allow r'",
    ),
    (
        "mds",
        "allow r allow rw",
        "mds capability parse failed, stopped at 'allow rw' of 'allow r allow rw'",
    ),
    (
        "mds",
        "allow , allow r",
        "mds capability parse failed, stopped at 'allow , allow r' of 'allow , allow r'",
    ),
    (
        "mds",
        "allow, allow r",
        "mds capability parse failed, stopped at 'allow, allow r' of 'allow, allow r'",
    ),
    (
        "mds",
        "allow r, allow",
        "mds capability parse failed, stopped at ', allow' of 'allow r, allow'",
    ),
    ("mds", "allow *r", "mds capability parse failed, stopped at 'r' of 'allow *r'"),
    ("mds", "allow * path=/a", ""),
    ("mds", "allow all path=/a", ""),
    ("mds", "allow * root_squash", ""),
    ("mds", " allow", "mds capability parse failed, stopped at 'allow' of ' allow'"),
    ("mds", "allow ", "mds capability parse failed, stopped at 'allow ' of 'allow '"),
    (
        "mds",
        "profile mds",
        "mds capability parse failed, stopped at 'profile mds' of 'profile mds'",
    ),
    (
        "mds",
        "allow profile mds",
        "mds capability parse failed, stopped at 'allow profile mds' of 'allow profile mds'",
    ),
    (
        "mds",
        "allow service mds r",
        "mds capability parse failed, stopped at 'allow service mds r' of 'allow service mds r'",
    ),
    (
        "mds",
        "allow rw pool=x",
        "mds capability parse failed, stopped at 'pool=x' of 'allow rw pool=x'",
    ),
    (
        "mds",
        "allow tag cephfs data=a",
        "mds capability parse failed, stopped at 'allow tag cephfs data=a' of 'allow tag cephfs data=a'",
    ),
    ("mds", "ALLOW r", "mds capability parse failed, stopped at 'ALLOW r' of 'ALLOW r'"),
    ("mds", "allowr", "mds capability parse failed, stopped at 'allowr' of 'allowr'"),
    (
        "mds",
        "allow r\x0bpath=/a",
        "mds capability parse failed, stopped at 'path=/a' of 'allow r\x0bpath=/a'",
    ),
    ("mds", "allow\x0br", "mds capability parse failed, stopped at 'allow\x0br' of 'allow\x0br'"),
    ("mds", "allow rw uid=1 gids=1;allow r", ""),
    ("mds", "allow r uid=1  gids=1", ""),
    ("mds", "allow r  path=/a", ""),
    ("mds", "allow r path=/a/b-c_d.e", ""),
    (
        "mds",
        "allow r path=/a:b",
        "mds capability parse failed, stopped at ':b' of 'allow r path=/a:b'",
    ),
    ("mds", "allow r path=\"/a'b\"", ""),
    (
        "mds",
        "allow r path=\"/a",
        "mds capability parse failed, stopped at 'path=\"/a' of 'allow r path=\"/a'",
    ),
    (
        "mds",
        "allow r path=/a uid=1 gids=4294967296",
        "mds capability parse failed, stopped at 'gids=4294967296' of 'allow r path=/a uid=1 gids=4294967296'",
    ),
    ("mds", "allow r\tfsname=a", ""),
    ("mds", "allow r\x0c", ""),
    (
        "mds",
        "allow r fsname=",
        "mds capability parse failed, stopped at 'fsname=' of 'allow r fsname='",
    ),
    ("mds", "allow rw fsname=a_b.c-d", ""),
    (
        "mds",
        "allow r fsname=a/b",
        "mds capability parse failed, stopped at '/b' of 'allow r fsname=a/b'",
    ),
    (
        "mgr",
        "profile a, profile b",
        "mgr capability parse failed during profile evaluation: unrecognized profile 'a'unrecognized profile 'b'",
    ),
    (
        "mgr",
        "profile rbd foo=1 bar=2",
        "mgr capability parse failed during profile evaluation: profile 'rbd' does not recognize key 'bar'",
    ),
    (
        "mgr",
        "profile rbd pool=x, profile nope",
        "mgr capability parse failed during profile evaluation: unrecognized profile 'nope'",
    ),
    (
        "mgr",
        "allow r, profile rgw",
        "mgr capability parse failed during profile evaluation: unrecognized profile 'rgw'",
    ),
    (
        "mgr",
        "profile rbd-read-only x=1",
        "mgr capability parse failed during profile evaluation: profile 'rbd-read-only' does not recognize key 'x'",
    ),
    ("mgr", "profile rbd pool=x pool=y", ""),
    (
        "mgr",
        "profile rbd pool",
        "mgr capability parse failed, stopped at 'pool' of 'profile rbd pool'",
    ),
    (
        "mgr",
        "profile simple-rados-client",
        "mgr capability parse failed during profile evaluation: unrecognized profile 'simple-rados-client'",
    ),
    (
        "mgr",
        "profile cephfs-mirror",
        "mgr capability parse failed during profile evaluation: unrecognized profile 'cephfs-mirror'",
    ),
    ("mgr", "allow r network [::1]/128", ""),
    (
        "mgr",
        "profile rbd foo=1, profile rbd bar=2",
        "mgr capability parse failed during profile evaluation: profile 'rbd' does not recognize key 'foo'profile 'rbd' does not recognize key 'bar'",
    ),
    ("mds", "allow r path=/x", ""),
    ("mds", "nonsense(", "mds capability parse failed, stopped at 'nonsense(' of 'nonsense('"),
    ("mds", "allow rwps path=/a", ""),
    ("mds", "allow * , allow r", ""),
    ("mds", "foo", "mds capability parse failed, stopped at 'foo' of 'foo'"),
    ("mds", "", "mds capability parse failed, stopped at '' of ''"),
];

#[test]
fn texts_are_accepted_and_refused_as_by_ceph() {
    for (service, text, verdict) in VERDICTS {
        let ours = check_caps(service, text).map_or_else(|e| e.to_string(), |()| String::new());
        assert_eq!(ours, *verdict, "{service}: {text:?}");
    }
    assert_eq!(check_caps("xyz", "").unwrap_err().to_string(), "unknown cap type 'xyz'");
}

const NO_ARGS: &BTreeMap<String, String> = &BTreeMap::new();

fn name() -> EntityNameStr {
    "osd.3".parse().unwrap()
}

fn args(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

/// What of `r`, `w` and `x` the text grants for `service`.
fn mon_perms(text: &str, service: &str) -> String {
    let cap = MonCap::parse(text).unwrap();
    let name = name();
    let may = |need| {
        let (module, command) = ("", "");
        let args = NO_ARGS;
        cap.is_capable(&CommandAccess {
            name: &name,
            service,
            module,
            command,
            args,
            need,
            addr: None,
        })
    };
    let all = [("r", Perm::R), ("w", Perm::W), ("x", Perm::X), ("*", Perm::ANY)];
    all.into_iter().filter(|(_, p)| may(*p)).map(|(s, _)| s).collect()
}

fn mon_command(text: &str, command: &str, list: &[(&str, &str)]) -> bool {
    let cap = MonCap::parse(text).unwrap();
    cap.is_capable(&CommandAccess {
        name: &name(),
        service: "none",
        module: "",
        command,
        args: &args(list),
        need: Perm::RWX,
        addr: None,
    })
}

#[test]
fn mon_caps_by_service() {
    for (text, service, expected) in [
        ("allow *", "mon", "rwx*"),
        ("allow *", "config-key", "rwx*"),
        ("allow rwx", "mon", "rwx"),
        ("allow rwx", "config-key", ""),
        ("allow r", "osd", "r"),
        ("allow r, allow service osd w", "osd", "rw"),
        ("allow r, allow service osd w", "pg", "r"),
        ("allow service config-key rw", "config-key", "rw"),
        ("profile osd", "osd", "rwx"),
        ("allow profile osd", "mon", "r"),
        ("profile osd", "pg", "rw"),
        ("profile osd", "log", "w"),
        ("profile osd", "auth", ""),
        ("profile mgr", "mgr", "rwx"),
        ("profile mgr", "config-key", "rw"),
        ("profile rbd", "osd", "r"),
        ("profile rbd", "auth", ""),
        ("profile simple-rados-client", "pg", "r"),
        ("profile crash", "mon", "r"),
        ("profile role-definer", "auth", "rwx"),
        ("profile read-only", "auth", "r"),
        ("profile bootstrap-osd", "osd", "r"),
        ("profile nonsense", "mon", ""),
        ("allow command \"osd pool create\"", "osd", ""),
        ("allow r network 10.0.0.0/8", "mon", ""),
    ] {
        assert_eq!(mon_perms(text, service), expected, "{text} on {service}");
    }
}

#[test]
fn mon_caps_by_command() {
    let fence = [("blocklistop", "add"), ("addr", "1.2.3.4:0/77")];
    assert!(mon_command("profile rbd", "osd blocklist", &fence));
    let host = [("blocklistop", "add"), ("addr", "1.2.3.4:0")];
    assert!(!mon_command("profile rbd", "osd blocklist", &host));
    let forgive = [("blocklistop", "rm"), ("addr", "1.2.3.4:0/77")];
    assert!(!mon_command("profile rbd", "osd blocklist", &forgive));
    assert!(!mon_command("profile rbd", "osd pool rm", &fence));
    let private = |key| mon_command("profile osd", "config-key set", &[("key", key)]);
    assert!(private("daemon-private/osd.3/x"));
    assert!(!private("daemon-private/osd.30/x"));
    let limited = "allow command \"auth get\" with entity prefix client. format=json";
    assert!(mon_command(limited, "auth get", &[("entity", "client.a"), ("format", "json")]));
    assert!(!mon_command(limited, "auth get", &[("entity", "client.a")]));
    assert!(!mon_command(limited, "auth get", &[("entity", "osd.1"), ("format", "json")]));
    let pattern = "allow command x with k regex \"[a-z]+|0\"";
    for (value, fits) in [("abc", true), ("0", true), ("abc1", false), ("", false), ("00", false)] {
        assert_eq!(mon_command(pattern, "x", &[("k", value)]), fits, "{value}");
    }
    assert!(!mon_command("allow command x with k regex \"[\"", "x", &[("k", "[")]));
    let rbd = [
        ("entity", "client.rbd-mirror.a"),
        ("caps_mon", "profile rbd-mirror"),
        ("caps_osd", "profile rbd pool=a, profile rbd"),
    ];
    assert!(mon_command("profile bootstrap-rbd-mirror", "auth get-or-create", &rbd));
    let mut greedy = rbd;
    greedy[2].1 = "allow *";
    assert!(!mon_command("profile bootstrap-rbd-mirror", "auth get-or-create", &greedy));
}

#[test]
fn networks_limit_grants() {
    let check = |network: &str, addr: &str| {
        let cap = MonCap::parse(&format!("allow * network {network}")).unwrap();
        cap.is_capable(&CommandAccess {
            name: &name(),
            service: "mon",
            module: "",
            command: "",
            args: NO_ARGS,
            need: Perm::R,
            addr: addr.parse().ok(),
        })
    };
    assert!(check("10.0.0.0/8", "10.9.8.7"));
    assert!(check("10.0.0.0/8", "::ffff:10.9.8.7"));
    assert!(!check("10.0.0.0/8", "11.0.0.1"));
    assert!(check("0.0.0.0/0", "11.0.0.1"));
    assert!(!check("0.0.0.0/0", "fe80::1"));
    assert!(check("fe80::/16", "fe80::1"));
    assert!(!check("fe80::/16", "fe81::1"));
    assert!(!check("[fe80::]/16", "fe80::1"));
    assert!(!check("10.0.0.1", "10.0.0.1"));
    assert!(!check("10.0.0.0/8", "unknown"));
}

fn osd(text: &str, access: OsdAccess<'_>) -> bool {
    OsdCap::parse(text).unwrap().is_capable(&access)
}

fn to(pool: &'static str, object: &'static str) -> OsdAccess<'static> {
    static NO_APPS: AppMetadata = AppMetadata::new();
    OsdAccess {
        pool,
        namespace: "",
        applications: &NO_APPS,
        object,
        reads: false,
        writes: false,
        classes: &[],
        addr: None,
    }
}

fn read(pool: &'static str, object: &'static str) -> OsdAccess<'static> {
    OsdAccess { reads: true, ..to(pool, object) }
}

fn write(pool: &'static str, object: &'static str) -> OsdAccess<'static> {
    OsdAccess { writes: true, ..to(pool, object) }
}

#[test]
fn osd_caps_by_place() {
    assert!(osd("allow *", write("p", "o")));
    assert!(!osd("allow r", write("p", "o")));
    assert!(osd("allow rw pool=p", write("p", "o")));
    assert!(!osd("allow rw pool=p", write("q", "o")));
    assert!(osd("allow r, allow rw pool=p", read("q", "o")));
    // Grants do not add up over read and write of one operation.
    let both = OsdAccess { reads: true, ..write("p", "o") };
    assert!(!osd("allow r, allow w", both));
    assert!(osd("allow r object_prefix abc", read("p", "abcd")));
    assert!(!osd("allow r object_prefix abc", read("p", "ab")));
    let within = |namespace| OsdAccess { namespace, ..read("p", "o") };
    assert!(osd("allow r namespace=n*", within("nx")));
    assert!(osd("allow r namespace=n", within("n")));
    assert!(!osd("allow r namespace=n", within("nx")));
    assert!(osd("allow r namespace=\"\"", within("")));
    assert!(!osd("allow r namespace=\"\"", within("n")));
    assert!(osd("allow r", within("n")));
}

#[test]
fn osd_caps_by_application_tag() {
    let apps: AppMetadata = [("cephfs".to_owned(), args(&[("data", "a")]))].into();
    let tagged = OsdAccess { applications: &apps, ..read("p", "o") };
    for (text, fits) in [
        ("allow r tag cephfs data=a", true),
        ("allow r tag cephfs data=*", true),
        ("allow r tag cephfs *=a", true),
        ("allow r tag cephfs *=*", true),
        ("allow r tag cephfs data=b", false),
        ("allow r tag cephfs meta=a", false),
        ("allow r tag rbd *=*", false),
        ("allow r tag cephfs *=b", false),
    ] {
        assert_eq!(osd(text, tagged), fits, "{text}");
    }
}

#[test]
fn osd_caps_by_class() {
    let call = |class, method, writes, in_default_list| {
        [ClassCall { class, method, reads: true, writes, in_default_list }]
    };
    let with = |calls: &[ClassCall<'_>], text: &str| {
        osd(text, OsdAccess { classes: calls, ..to("p", "rbd_header.1") })
    };
    let get = call("rbd", "get_size", false, true);
    let set = call("rbd", "set_size", true, true);
    let odd = call("odd", "x", true, false);
    for (text, expected) in [
        ("allow x", [true, true, false]),
        ("allow class-read", [true, false, false]),
        ("allow class-read class-write", [true, true, false]),
        ("allow rw", [false, false, false]),
        ("allow *", [true, true, true]),
        ("allow class odd", [false, false, true]),
        ("allow class odd y", [false, false, false]),
        ("allow class rbd get_size", [true, false, false]),
        ("profile rbd pool=p", [true, true, false]),
        ("profile rbd-read-only pool=p", [true, false, false]),
        ("profile rbd pool=q", [false, false, false]),
    ] {
        assert_eq!([&get, &set, &odd].map(|c| with(c, text)), expected, "{text}");
    }
    let attach = call("rbd", "child_attach", true, true);
    assert!(with(&attach, "profile rbd-read-only pool=p"));
    // Two grants may each bring one class of the same operation.
    let two = [get[0], odd[0]];
    assert!(with(&two, "allow class odd, allow class rbd"));
    assert!(!with(&two, "allow class odd"));
}

#[test]
fn rbd_profile_reaches_the_shared_objects_of_other_pools() {
    assert!(osd("profile rbd pool=p", read("q", "rbd_info")));
    assert!(!osd("profile rbd pool=p", write("q", "rbd_info")));
    assert!(!osd("profile rbd pool=p", read("q", "rbd_header.1")));
    assert!(osd("profile rbd pool=p", write("p", "rbd_header.1")));
}

#[test]
fn mgr_caps() {
    let check = |text: &str, module: &str, command: &str, need, list: &[(&str, &str)]| {
        MgrCap::parse(text).unwrap().is_capable(&CommandAccess {
            name: &name(),
            service: "pg",
            module,
            command,
            args: &args(list),
            need,
            addr: None,
        })
    };
    assert!(check("allow r", "", "pg dump", Perm::R, &[]));
    assert!(!check("allow r", "", "pg scrub", Perm::W, &[]));
    assert!(check("allow service pg rw", "", "", Perm::W, &[]));
    assert!(!check("profile osd", "", "", Perm::R, &[]));
    assert!(check("profile crash", "", "crash post", Perm::RWX, &[]));
    assert!(check("allow command a with k=v", "", "a", Perm::ANY, &[("k", "v")]));
    assert!(!check("allow command a with k=v", "", "a", Perm::ANY, &[("k", "w")]));
    let pool = [("pool", "p")];
    assert!(check("profile rbd pool=p", "rbd_support", "", Perm::W, &pool));
    assert!(!check("profile rbd pool=p", "rbd_support", "", Perm::W, &[("pool", "q")]));
    assert!(check("profile rbd pool=p", "rbd_support", "rbd task", Perm::W, &[("pool", "q")]));
    assert!(!check("profile rbd-read-only", "rbd_support", "", Perm::W, &pool));
}

#[test]
fn only_an_unlimited_star_is_everything() {
    for (text, all) in [
        ("allow *", true),
        ("allow r, allow all", true),
        ("allow * pool=x", false),
        ("allow * network 0.0.0.0/0", false),
        ("allow rwx", false),
        ("profile rbd", false),
    ] {
        assert_eq!(OsdCap::parse(text).unwrap().is_allow_all(), all, "{text}");
    }
    assert!(!MonCap::parse("allow * fsname=a").unwrap().is_allow_all());
    assert!(!MgrCap::parse("allow * network 0.0.0.0/0").unwrap().is_allow_all());
    assert!(!MonCap::default().is_allow_all() && !OsdCap::default().is_allow_all());
}

proptest::proptest! {
    #[test]
    fn any_text_is_survived(text in "\\PC{0,60}") {
        for service in ["mon", "osd", "mgr", "mds"] {
            if let Err(e) = check_caps(service, &text) {
                proptest::prop_assert!(e.to_string().starts_with(service));
            }
        }
    }

    #[test]
    fn near_grammar_texts_are_survived(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "allow", "profile", "rw", "x", "*", "class", "class-read", "pool", "=", "namespace",
                "tag", "network", "1.0.0.0/8", "with", "prefix", "regex", "\"", "'", ",", ";", " ",
                "  ", "\t", "command", "service", "module", "object_prefix", "a", "fsname",
            ]),
            0..14,
        )
    ) {
        let text = words.concat();
        for service in ["mon", "osd", "mgr", "mds"] {
            // A text that parses also parses among others, but for the `allow` of old MDS keyrings.
            if text != "allow" && check_caps(service, &text).is_ok() {
                let twice = format!("{text},{text}");
                proptest::prop_assert!(check_caps(service, &twice).is_ok(), "{service}: {twice:?}");
            }
        }
    }
}
