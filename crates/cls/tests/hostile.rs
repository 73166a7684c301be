//! Every method of every class on objects and inputs made of dice: it must end, must not panic, and
//! must keep to its row of the table.

use std::time::{Duration, Instant};

use bytes::Bytes;
use spirula_cls::memory::MemoryObject;
use spirula_cls::{Access, CLASSES, Halt, Method};

/// Names and beginnings of names that methods look for.
const KEYS: &[&str] = &[
    "HEADER",
    "access_timestamp",
    "active_set",
    "client_",
    "create_timestamp",
    "data_pool_id",
    "features",
    "flags",
    "global_",
    "group_ref",
    "id_",
    "image_",
    "image_map_",
    "instance_",
    "lock.",
    "lock.rbd_lock",
    "metadata_",
    "migration",
    "mirror_mode",
    "mirror_peer_",
    "mirror_uuid",
    "modify_timestamp",
    "name_",
    "next_tag_class",
    "next_tag_tid",
    "op_features",
    "object_prefix",
    "order",
    "parent",
    "pool_id",
    "rbd_group_ref",
    "refcount",
    "remote_status_global_",
    "size",
    "snap_children_",
    "snap_limit",
    "snap_order_",
    "snap_seq",
    "snapshot_",
    "splay_width",
    "state",
    "status_global_",
    "stripe_count",
    "stripe_unit",
    "tag_",
    "ceph.objclass.version",
    "user.refcount",
    "chunked",
    "minimum_set",
];

/// Ceph's example of a method that an OSD must stop.
const WRITES_IN_SPITE: &str = "bad_writer";

/// The test's time: rounds end with it, if it is not enough for all of them.
const TIME_MAX: Duration = Duration::from_secs(20);
const ROUNDS: u64 = 100;

#[test]
fn no_input_and_no_object_harms_a_method() {
    let end = Instant::now() + TIME_MAX;
    for round in 0..ROUNDS {
        for class in CLASSES {
            for method in class.methods.iter().copied().flatten() {
                try_out(method, &mut Dice::new(round, class.name, method.name));
            }
        }
        if Instant::now() > end {
            assert!(round > 0, "one round alone takes too long");
            return;
        }
    }
}

/// A few calls in a row on one object, as the method leaves it.
fn try_out(method: &Method, dice: &mut Dice) {
    let mut object = dice.object();
    for _ in 0..4 {
        let input = Bytes::from(dice.value());
        let before = object.clone();
        let result = (method.run)(&mut object, &input, &mut Vec::new());
        assert_ne!(result, Err(Halt::Missing), "{}: all is in memory", method.name);
        if method.access == Access::Read && method.name != WRITES_IN_SPITE {
            let parts = |o: &MemoryObject| {
                (o.exists, o.data.clone(), o.omap.clone(), o.xattrs.clone(), o.header.clone())
            };
            assert!(parts(&before) == parts(&object), "{} writes", method.name);
        }
    }
}

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn new(round: u64, class: &str, method: &str) -> Self {
        let names = class.bytes().chain(method.bytes());
        Self(
            names.fold(round + 1, |seed, byte| {
                (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            }),
        )
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    fn bytes(&mut self, max: u64) -> Vec<u8> {
        (0..self.roll(max)).map(|_| self.next() as u8).collect()
    }

    /// Integers are small, or at an edge of their range.
    fn number(&mut self) -> u64 {
        match self.roll(4) {
            0 => u64::MAX - self.roll(4),
            1 => 1 << self.roll(64),
            2 => self.next(),
            _ => self.roll(6),
        }
    }

    /// Something that could be an encoding: a few parts of the kinds that encodings are made of.
    fn value(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..self.roll(7) {
            self.part(&mut out, 3);
        }
        out
    }

    fn part(&mut self, out: &mut Vec<u8>, depth: u64) {
        match self.roll(8) {
            0 | 1 => out.extend_from_slice(&self.number().to_le_bytes()),
            2 => out.extend_from_slice(&(self.number() as u32).to_le_bytes()),
            3 => out.push(self.number() as u8),
            4 => {
                let name = self.name();
                out.extend_from_slice(&(name.len() as u32).to_le_bytes());
                out.extend_from_slice(&name);
            }
            5 | 6 if depth > 0 => {
                let mut body = Vec::new();
                for _ in 0..self.roll(8) {
                    self.part(&mut body, depth - 1);
                }
                out.push(self.roll(9) as u8);
                out.push(self.roll(3) as u8);
                out.extend_from_slice(&(body.len() as u32).to_le_bytes());
                out.extend_from_slice(&body);
            }
            _ => out.extend_from_slice(&self.bytes(24)),
        }
    }

    fn name(&mut self) -> Vec<u8> {
        match self.roll(4) {
            0 => self.bytes(12),
            1 => format!("{:016x}", self.roll(6)).into(),
            2 => vec![b'a' + self.roll(3) as u8],
            _ => self.key(),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let mut key = KEYS[self.roll(KEYS.len() as u64) as usize].as_bytes().to_vec();
        if key.ends_with(b"_") || self.roll(8) == 0 {
            match self.roll(3) {
                0 => key.extend_from_slice(format!("{:016x}", self.roll(6)).as_bytes()),
                1 => key.push(b'a' + self.roll(3) as u8),
                _ => key.extend_from_slice(&self.bytes(6)),
            }
        }
        key
    }

    fn object(&mut self) -> MemoryObject {
        let mut object = MemoryObject { exists: self.roll(8) != 0, ..MemoryObject::default() };
        if !object.exists {
            return object;
        }
        object.data = match self.roll(4) {
            0 => self.header(),
            1 => vec![0; self.roll(300) as usize],
            2 => self.bytes(300),
            _ => Vec::new(),
        };
        for _ in 0..self.roll(24) {
            object.omap.insert(self.key().into(), self.value().into());
        }
        // Methods that need many keys get further when these are right.
        for name in ["size", "features", "snap_seq", "flags"] {
            if self.roll(2) == 0 {
                let value = self.number().to_le_bytes().to_vec();
                object.omap.insert(Bytes::from_static(name.as_bytes()), value.into());
            }
        }
        for _ in 0..self.roll(4) {
            object.xattrs.insert(self.key().into(), self.value().into());
        }
        object.snapset_seq = self.number();
        object
    }

    /// Data that begins as an object map or as an image of format 1 does.
    fn header(&mut self) -> Vec<u8> {
        if self.roll(2) == 0 {
            let mut map = vec![14, 0, 0, 0, 1, 1, 8, 0, 0, 0];
            map.extend_from_slice(&self.number().to_le_bytes());
            map.extend_from_slice(&self.bytes(40));
            return map;
        }
        let mut image = b"<<< Rados Block Device Image >>>\n\0".to_vec();
        image.resize(96, 0);
        image.extend_from_slice(&(self.number() as u32).to_le_bytes());
        image.extend_from_slice(&[0; 4]);
        image.extend_from_slice(&self.number().to_le_bytes());
        image.extend_from_slice(&self.bytes(80));
        image
    }
}
