//! A transaction as one store sends it to another that holds the same container.
//!
//! Containers are not named: all operations are of one, which has its own id in every store. Long
//! values are not copied: they travel as pieces beside the encoding, and are slices of one buffer when
//! they arrive. What an operation without values looks like is as in the WAL record ([`crate::log`]).
//!
//! Invariant: decoding is bounded and total, and gives no object twice; what decodes may still be
//! refused when it is staged.

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes, put_u32, put_u64, put_varint};
use crate::log::{self, Decision, decode_epochs, encode_epochs, head};
use crate::tx::{Tx, TxOp};
use crate::types::{ContainerId, ObjectKey};

const FORMAT: u8 = 1;
/// Values from this length on are not copied into the encoding.
const SHARED_MIN: usize = 1024;
/// Objects of one transaction.
const OBJECTS_MAX: usize = 256;
/// Operations that memory is taken for before they are read.
const RESERVED_OPS: usize = 64;

const HAS_HORIZON: u8 = 1;
const RECLAIMS: u8 = 2;

const CREATE_CONTAINER: u8 = 1;
const UPDATE: u8 = 4;
const WRITE: u8 = 5;
const RETAIN_CONTAINER: u8 = 14;
const SET_PROPERTY: u8 = 36;
const REMOVE_PROPERTY: u8 = 37;

/// What has a name of its own in each store.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    /// The container that the transaction is of.
    pub cid: ContainerId,
    /// The object that holds the container's own records.
    pub records: &'a ObjectKey,
}

/// The transaction is for one store only.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotPortable {
    /// It touches another container.
    #[error("an operation is of another container, {0:?}")]
    Container(ContainerId),
    /// It has an operation that each store does for itself.
    #[error("the operation {0:?} is not for other stores")]
    Operation(&'static str),
    /// It is about too many objects at once.
    #[error("{0} objects in one transaction")]
    Objects(usize),
}

/// The bytes are not a transaction of this format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed transaction")]
pub struct BadTx;

impl From<Malformed> for BadTx {
    fn from(_: Malformed) -> BadTx {
        BadTx
    }
}

impl Tx {
    /// The encoding, and the pieces that belong beside it, in order.
    pub fn to_wire(&self, home: Home<'_>) -> Result<(Vec<u8>, Vec<Bytes>), NotPortable> {
        if self.prepare.is_some() || self.stamp.is_some() {
            return Err(NotPortable::Operation("prepare"));
        }
        if self.objects.len() > OBJECTS_MAX {
            return Err(NotPortable::Objects(self.objects.len()));
        }
        let front = Vec::with_capacity(512 + 32 * self.ops.len());
        let mut out = Writer { front, data: Vec::new() };
        out.front.push(FORMAT);
        out.front.push(
            if self.horizon.is_some() { HAS_HORIZON } else { 0 }
                | if self.reclaims { RECLAIMS } else { 0 },
        );
        put_u64(&mut out.front, self.epoch);
        self.horizon.iter().for_each(|&horizon| put_u64(&mut out.front, horizon));
        put_varint(&mut out.front, self.objects.len() as u64);
        for (cid, oid) in &self.objects {
            home.check(*cid)?;
            let own = oid == home.records;
            out.front.push(u8::from(own));
            if !own {
                put_bytes(&mut out.front, &oid.0);
            }
        }
        put_varint(&mut out.front, self.ops.len() as u64);
        self.ops.iter().try_for_each(|op| out.op(op, home))?;
        Ok((out.front, out.data))
    }

    /// The transaction that [`Tx::to_wire`] encoded, as one of the container at `home`. The bytes of
    /// both buffers are shared, those that a store keeps apart.
    pub fn from_wire(front: Bytes, data: Bytes, home: Home<'_>) -> Result<Tx, BadTx> {
        let mut r = Input { front: Reader::new(front), data: Reader::new(data) };
        if r.front.u8()? != FORMAT {
            return Err(BadTx);
        }
        let flags = r.front.u8()?;
        if flags & !(HAS_HORIZON | RECLAIMS) != 0 {
            return Err(BadTx);
        }
        let mut tx = Tx::new(r.front.u64()?);
        tx.reclaims = flags & RECLAIMS != 0;
        if flags & HAS_HORIZON != 0 {
            tx.horizon = Some(r.front.u64()?);
        }
        tx.objects = r.objects(home)?;
        let count = r.front.count(1)?;
        // Each takes far more memory than bytes.
        tx.ops.reserve_exact(count.min(RESERVED_OPS));
        for _ in 0..count {
            let op = r.op(home.cid, tx.objects.len())?;
            tx.ops.push(op);
        }
        if r.front.remaining() + r.data.remaining() != 0 {
            return Err(BadTx);
        }
        Ok(tx)
    }
}

impl Home<'_> {
    fn check(&self, cid: ContainerId) -> Result<(), NotPortable> {
        if cid == self.cid { Ok(()) } else { Err(NotPortable::Container(cid)) }
    }
}

struct Writer {
    front: Vec<u8>,
    data: Vec<Bytes>,
}

impl Writer {
    fn op(&mut self, op: &TxOp, home: Home<'_>) -> Result<(), NotPortable> {
        op.containers().into_iter().flatten().try_for_each(|cid| home.check(cid))?;
        match op {
            TxOp::Update { object, dkey, akey, value } => {
                head(&mut self.front, UPDATE, *object);
                put_bytes(&mut self.front, dkey);
                put_bytes(&mut self.front, akey);
                self.value(value);
            }
            TxOp::Write { object, dkey, akey, offset, len, data, crcs }
                if *len == data.len() as u64 =>
            {
                head(&mut self.front, WRITE, *object);
                put_bytes(&mut self.front, dkey);
                put_bytes(&mut self.front, akey);
                put_varint(&mut self.front, *offset);
                self.value(data);
                self.front.push(u8::from(crcs.is_some()));
                if let Some(crcs) = crcs {
                    put_varint(&mut self.front, crcs.len() as u64);
                    crcs.iter().for_each(|&crc| put_u32(&mut self.front, crc));
                }
            }
            TxOp::CreateObject { .. }
            | TxOp::Truncate { .. }
            | TxOp::PunchRange { .. }
            | TxOp::PunchAkey { .. }
            | TxOp::PunchAkeys { .. }
            | TxOp::PunchDkey { .. }
            | TxOp::PunchObject { .. }
            | TxOp::Retain { .. }
            | TxOp::Discard { .. }
            | TxOp::Clone { .. } => log::encode_op(&mut self.front, op, Decision::default()),
            TxOp::CreateContainer(_) => self.front.push(CREATE_CONTAINER),
            TxOp::RetainContainer { epochs, .. } => {
                self.front.push(RETAIN_CONTAINER);
                encode_epochs(&mut self.front, epochs);
            }
            TxOp::SetProperty { name, value, .. } => {
                let code = if value.is_some() { SET_PROPERTY } else { REMOVE_PROPERTY };
                self.front.push(code);
                put_bytes(&mut self.front, name);
                value.iter().for_each(|value| self.value(value));
            }
            other => return Err(NotPortable::Operation(other.name())),
        }
        Ok(())
    }

    /// Twice the length, plus one if the bytes are beside the encoding.
    fn value(&mut self, value: &Bytes) {
        let shared = value.len() >= SHARED_MIN;
        put_varint(&mut self.front, (value.len() as u64) << 1 | u64::from(shared));
        match shared {
            true => self.data.push(value.clone()),
            false => self.front.extend_from_slice(value),
        }
    }
}

struct Input {
    front: Reader,
    data: Reader,
}

impl Input {
    fn objects(&mut self, home: Home<'_>) -> Result<Vec<(ContainerId, ObjectKey)>, Malformed> {
        let count = self.front.count(1)?;
        if count > OBJECTS_MAX {
            return Err(Malformed);
        }
        let mut objects = Vec::with_capacity(count);
        for _ in 0..count {
            let oid = match self.front.u8()? {
                0 => ObjectKey(self.front.bytes()?),
                1 => home.records.clone(),
                _ => return Err(Malformed),
            };
            // Each index of an object is staged by itself.
            if objects.iter().any(|(_, known)| *known == oid) {
                return Err(Malformed);
            }
            objects.push((home.cid, oid));
        }
        Ok(objects)
    }

    fn op(&mut self, cid: ContainerId, objects: usize) -> Result<TxOp, Malformed> {
        let code = self.front.u8()?;
        match code {
            CREATE_CONTAINER => Ok(TxOp::CreateContainer(cid)),
            UPDATE => Ok(TxOp::Update {
                object: self.object(objects)?,
                dkey: self.front.bytes()?,
                akey: self.front.bytes()?,
                value: self.value()?,
            }),
            WRITE => self.write(objects),
            RETAIN_CONTAINER => {
                Ok(TxOp::RetainContainer { cid, epochs: decode_epochs(&mut self.front)? })
            }
            SET_PROPERTY | REMOVE_PROPERTY => self.property(cid, code),
            3 | 6..=13 | 21 | 23 | 24 => Ok(log::decode_op(code, &mut self.front, objects)?.0),
            _ => Err(Malformed),
        }
    }

    fn write(&mut self, objects: usize) -> Result<TxOp, Malformed> {
        let object = self.object(objects)?;
        let (dkey, akey, offset) = (self.front.bytes()?, self.front.bytes()?, self.front.varint()?);
        let data = self.value()?;
        let crcs = match self.front.u8()? {
            0 => None,
            1 => {
                let count = self.front.count(4)?;
                Some((0..count).map(|_| self.front.u32()).collect::<Result<_, _>>()?)
            }
            _ => return Err(Malformed),
        };
        Ok(TxOp::Write { object, dkey, akey, offset, len: data.len() as u64, data, crcs })
    }

    /// Containers stay in memory, and must not keep the buffer there.
    fn property(&mut self, cid: ContainerId, code: u8) -> Result<TxOp, Malformed> {
        let name = Bytes::copy_from_slice(&self.front.bytes()?);
        let value = match code {
            SET_PROPERTY => Some(Bytes::copy_from_slice(&self.value()?)),
            _ => None,
        };
        Ok(TxOp::SetProperty { cid, name, value })
    }

    fn object(&mut self, objects: usize) -> Result<u32, Malformed> {
        self.front.int().and_then(|object: u32| match (object as usize) < objects {
            true => Ok(object),
            false => Err(Malformed),
        })
    }

    fn value(&mut self) -> Result<Bytes, Malformed> {
        let word = self.front.varint()?;
        let len = usize::try_from(word >> 1).map_err(|_| Malformed)?;
        if word & 1 == 0 { self.front.take(len) } else { self.data.take(len) }
    }
}

/// Of `data`, the first two bytes are the length of the encoding; the rest is beside it. What decodes
/// must encode to what decodes to the same.
pub(crate) fn fuzz(data: &[u8]) {
    let Some((len, body)) = data.split_first_chunk() else {
        return;
    };
    let (front, data) = body.split_at(usize::from(u16::from_be_bytes(*len)).min(body.len()));
    let records = ObjectKey(Bytes::from_static(b"records"));
    let home = Home { cid: ContainerId([7; 16]), records: &records };
    let shared = Bytes::copy_from_slice;
    if let Ok(tx) = Tx::from_wire(shared(front), shared(data), home) {
        let again = tx
            .to_wire(home)
            .map(|(front, data)| Tx::from_wire(front.into(), data.concat().into(), home));
        assert_eq!(again, Ok(Ok(tx)));
    }
}

/// What [`fuzz`] reads `tx` from; `None` if it is for one store only.
pub(crate) fn fuzz_input(tx: &Tx, home: Home<'_>) -> Option<Vec<u8>> {
    let (front, data) = tx.to_wire(home).ok()?;
    let len = u16::try_from(front.len()).ok()?;
    Some([&len.to_be_bytes()[..], &front, &data.concat()].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::aggregate::Cursor;
    use crate::clone::Position;
    use crate::types::TxId;

    const HERE: ContainerId = ContainerId([1; 16]);
    const THERE: ContainerId = ContainerId([2; 16]);

    fn key(text: &'static str) -> ObjectKey {
        ObjectKey(Bytes::from_static(text.as_bytes()))
    }

    fn home(cid: ContainerId, records: &ObjectKey) -> Home<'_> {
        Home { cid, records }
    }

    /// What an operation of the tests is made of.
    #[derive(Clone, Debug)]
    struct Draw {
        kind: u8,
        object: u8,
        keys: [Vec<u8>; 3],
        numbers: [u64; 2],
        epochs: Vec<u64>,
        data: Bytes,
        crcs: Option<Vec<u32>>,
    }

    impl Draw {
        fn add(&self, tx: &mut Tx, cid: ContainerId, records: &ObjectKey) {
            let oid = match self.object {
                0 => records.clone(),
                n => ObjectKey(Bytes::copy_from_slice(&[n; 20])),
            };
            let ([dkey, akey, to], [a, b]) = (&self.keys, self.numbers);
            let data = self.data.clone();
            match self.kind {
                0 => tx.create_container(cid),
                1 => tx.create_object(cid, &oid),
                2 => tx.update(cid, &oid, dkey, akey, data),
                3 => tx.write(cid, &oid, dkey, akey, a, data, self.crcs.clone()),
                4 => tx.truncate(cid, &oid, dkey, akey, a),
                5 => tx.punch_range(cid, &oid, dkey, akey, a, b),
                6 => tx.punch_akey(cid, &oid, dkey, akey),
                7 => tx.punch_akeys(cid, &oid, dkey, akey, self.crcs.as_ref().map(|_| &to[..])),
                8 => tx.punch_dkey(cid, &oid, dkey),
                9 => tx.punch_object(cid, &oid),
                10 => tx.retain(cid, &oid, &self.epochs),
                11 => tx.retain_container(cid, &self.epochs),
                12 => tx.discard(cid, &oid, a, b),
                13 => {
                    let key = (dkey.clone().into(), akey.clone().into());
                    let cursor = Cursor::inside(key, to.clone().into(), None);
                    tx.discard_some(cid, &oid, (a, b), cursor, 7);
                }
                14 => {
                    let from = Position { cid, oid: records, dkey, akey, offset: a };
                    let target = Position { cid, oid: &oid, dkey: to, akey, offset: b };
                    tx.clone_range(from, a, b, target);
                }
                15 => tx.set_container_property(cid, akey, self.crcs.as_ref().map(|_| data)),
                _ => tx.use_reserve(),
            }
        }
    }

    fn draws() -> impl Strategy<Value = Draw> {
        let keys = proptest::array::uniform3(proptest::collection::vec(any::<u8>(), 0..20));
        let data = prop_oneof![0..40usize, SHARED_MIN - 1..SHARED_MIN + 2, Just(9000)];
        let epochs = proptest::collection::vec(any::<u64>(), 0..4);
        let crcs = proptest::option::of(proptest::collection::vec(any::<u32>(), 0..4));
        (0..17u8, 0..4u8, keys, any::<[u64; 2]>(), epochs, (data, any::<u8>()), crcs).prop_map(
            |(kind, object, keys, numbers, epochs, (len, byte), crcs)| {
                let data = vec![byte; len].into();
                Draw { kind, object, keys, numbers, epochs, data, crcs }
            },
        )
    }

    fn build(
        draws: &[Draw],
        (epoch, horizon): (u64, Option<u64>),
        cid: ContainerId,
        records: &ObjectKey,
    ) -> Tx {
        let mut tx = Tx::new(epoch);
        horizon.iter().for_each(|h| tx.set_horizon(*h));
        draws.iter().for_each(|draw| draw.add(&mut tx, cid, records));
        tx
    }

    proptest! {
        #[test]
        fn a_transaction_arrives_as_one_of_the_other_store(
            draws in proptest::collection::vec(draws(), 0..12),
            stamps: (u64, Option<u64>),
        ) {
            let (ours, theirs) = (key("ours"), key("theirs"));
            let tx = build(&draws, stamps, HERE, &ours);
            let (front, data) = tx.to_wire(home(HERE, &ours)).unwrap();
            let (front, data): (Bytes, Bytes) = (front.into(), data.concat().into());
            let there = build(&draws, stamps, THERE, &theirs);
            let read = |front, data| Tx::from_wire(front, data, home(THERE, &theirs));
            prop_assert_eq!(read(front.clone(), data.clone()), Ok(there));
            for cut in 0..front.len() {
                prop_assert_eq!(read(front.slice(..cut), data.clone()), Err(BadTx));
            }
            let longer = Bytes::from([&data, &b"x"[..]].concat());
            prop_assert_eq!(read(front, longer), Err(BadTx));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz(&bytes);
        }
    }

    #[test]
    fn long_values_are_shared() {
        let (records, oid) = (key("records"), key("object"));
        let block = Bytes::from(vec![5; 4096]);
        let mut tx = Tx::new(9);
        tx.write(HERE, &oid, b"d", b".", 0, block.clone(), Some(vec![77]));
        let (front, data) = tx.to_wire(home(HERE, &records)).unwrap();
        assert_eq!(data.iter().map(|d| d.as_ptr()).collect::<Vec<_>>(), [block.as_ptr()]);
        let tx = Tx::from_wire(front.into(), block.clone(), home(HERE, &records)).unwrap();
        let [TxOp::Write { data, crcs, .. }] = &tx.ops[..] else { panic!("{tx:?}") };
        assert_eq!((data.as_ptr(), crcs.as_deref()), (block.as_ptr(), Some(&[77][..])));
    }

    /// Stores of other releases read it: a change needs another format number.
    #[test]
    fn the_bytes_are_fixed() {
        let (records, oid) = (key("records"), key("ob"));
        let mut tx = Tx::new(0x0102);
        tx.set_horizon(3);
        tx.write(HERE, &oid, b"d", b".", 300, Bytes::from_static(b"xy"), Some(vec![7]));
        tx.update(HERE, &records, b"l", b"v1", vec![1; 1024].into());
        tx.truncate(HERE, &oid, b"d", b".", 5);
        tx.punch_range(HERE, &oid, b"d", b".", 5, 6);
        tx.punch_akey(HERE, &oid, b"d", b".");
        tx.punch_akeys(HERE, &oid, b"d", b"a", Some(b"b"));
        tx.punch_akeys(HERE, &oid, b"d", b"a", None);
        tx.punch_dkey(HERE, &oid, b"d");
        tx.create_object(HERE, &oid);
        tx.retain(HERE, &oid, &[2]);
        tx.punch_object(HERE, &oid);
        let (front, data) = tx.to_wire(home(HERE, &records)).unwrap();
        let expected: &[&[u8]] = &[
            &[1, 3, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 2, b'o', b'b', 1, 11],
            &[5, 0, 1, b'd', 1, b'.', 0xac, 2, 4, b'x', b'y', 1, 1, 7, 0, 0, 0],
            &[4, 1, 1, b'l', 2, b'v', b'1', 0x81, 0x10],
            &[6, 0, 1, b'd', 1, b'.', 5],
            &[7, 0, 1, b'd', 1, b'.', 5, 6],
            &[8, 0, 1, b'd', 1, b'.'],
            &[9, 0, 1, b'd', 1, b'a', 1, b'b'],
            &[10, 0, 1, b'd', 1, b'a'],
            &[11, 0, 1, b'd'],
            &[3, 0],
            &[13, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0],
            &[12, 0],
        ];
        assert_eq!((front, data.concat()), (expected.concat(), vec![1; 1024]));
    }

    #[test]
    fn what_is_for_one_store_is_refused() {
        let (records, oid) = (key("records"), key("object"));
        let refused = |make: &dyn Fn(&mut Tx)| {
            let mut tx = Tx::new(1);
            make(&mut tx);
            tx.to_wire(home(HERE, &records)).err()
        };
        let at = |cid| Position { cid, oid: &oid, dkey: b"d", akey: b"a", offset: 0 };
        let elsewhere = Some(NotPortable::Container(THERE));
        assert_eq!(refused(&|tx| tx.clone_range(at(THERE), 1, 1, at(HERE))), elsewhere);
        assert_eq!(refused(&|tx| tx.create_container(THERE)), elsewhere);
        assert_eq!(refused(&|tx| tx.retain_container(THERE, &[])), elsewhere);
        assert_eq!(refused(&|tx| tx.punch_object(THERE, &oid)), elsewhere);
        assert_eq!(refused(&|tx| tx.merge_container(HERE, THERE)), elsewhere);
        let op = |name| Some(NotPortable::Operation(name));
        assert_eq!(refused(&|tx| tx.destroy_container(HERE)), op("destroy container"));
        assert_eq!(refused(&|tx| tx.aggregate(HERE, &oid, Cursor::default(), 1)), op("aggregate"));
        assert_eq!(refused(&|tx| tx.prepare(TxId([1; 16]))), op("prepare"));
        let many = |tx: &mut Tx| {
            (0..=OBJECTS_MAX)
                .for_each(|n| tx.create_object(HERE, &ObjectKey(n.to_string().into())));
        };
        assert_eq!(refused(&many), Some(NotPortable::Objects(OBJECTS_MAX + 1)));
    }

    #[test]
    fn no_object_comes_twice() {
        let (ours, theirs) = (key("ours"), key("theirs"));
        let mut tx = Tx::new(1);
        tx.create_object(HERE, &ours);
        tx.create_object(HERE, &theirs);
        let (front, _) = tx.to_wire(home(HERE, &ours)).unwrap();
        let read = |records| Tx::from_wire(front.clone().into(), Bytes::new(), home(HERE, records));
        assert_eq!((read(&ours), read(&theirs)), (Ok(tx), Err(BadTx)));
    }
}
