//! Entry points of the fuzz targets; each must return for any input.

use bytes::Bytes;

use crate::record::TABLE_PUNCH;
use crate::tree;
use crate::types::{ContainerId, ObjectKey, TxId};
use crate::{Config, PAGE_SIZE, PreparedTx, ROOT_LEN, Record, Root, Tx, Vos};

/// WAL record decoding, and replay of what decodes on a store that holds a little.
pub fn wal_record(data: &[u8]) {
    let Ok(record) = Record::decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    let mut vos = Vos::format(Config::default(), 16, BLOCKS, 0);
    if [first(), prepared()[0].clone()].iter().any(|tx| vos.stage(tx).is_err()) {
        return;
    }
    let _ = vos.replay(&record);
    let _ =
        vos.at(u64::MAX).committed().list_objects(CONTAINER, std::ops::Bound::Unbounded, None, 10);
    // What was prepared by a strange record may turn out to be damage, not a panic.
    for PreparedTx { id, .. } in vos.prepared() {
        let mut tx = Tx::new(20);
        tx.commit_prepared(id);
        let _ = vos.stage(&tx);
        tx = Tx::new(21);
        tx.abort_prepared(id);
        let _ = vos.stage(&tx);
    }
    let _ = vos.begin_checkpoint();
}

/// Page decoding, as if the checksum and id were right, and a walk over what is in it.
pub fn page(data: &[u8]) {
    crate::page::fuzz(data);
}

/// Root record decoding, as if the checksum were right, and the loading that follows.
pub fn root(data: &[u8]) {
    let mut block = data.to_vec();
    block.resize(ROOT_LEN - 4, 0);
    let crc = crc32c::crc32c(&block);
    block.extend_from_slice(&crc.to_le_bytes());
    let Some(root) = Root::decode(&block) else {
        return;
    };
    let Ok(mut loader) = crate::Loader::new(Config::default(), root, (16, BLOCKS)) else {
        return;
    };
    for index in 0..loader.directories().len().min(4) {
        let _ = loader.directory(index, &block);
    }
    if loader.maps().len() <= 64 {
        let _ = loader.space();
    }
}

/// Entries of the tree.
pub fn entry(data: &[u8]) {
    crate::record::fuzz(data);
}

/// A transaction of another store.
pub fn tx(data: &[u8]) {
    crate::tx_wire::fuzz(data);
}

const BLOCKS: u64 = 4096;
const CONTAINER: ContainerId = ContainerId([1; 16]);

fn object() -> ObjectKey {
    ObjectKey(Bytes::from_static(b"object"))
}

fn first() -> Tx {
    let mut tx = Tx::new(1);
    tx.create_container(CONTAINER);
    tx.update(CONTAINER, &object(), b"d", b"a", Bytes::from_static(b"v"));
    tx.write(CONTAINER, &object(), b"d", b"w", 0, vec![7; 9000].into(), None);
    tx
}

/// One transaction with every other operation.
fn second() -> Tx {
    let (cid, oid) = (CONTAINER, object());
    let other = ObjectKey(Bytes::from_static(b"other"));
    let mut tx = Tx::new(2);
    tx.create_object(cid, &other);
    tx.write(cid, &oid, b"d", b"w", 4096, vec![8; 5000].into(), None);
    tx.write(cid, &oid, b"d", b"w", 20_000, vec![9; 100].into(), None);
    tx.truncate(cid, &oid, b"d", b"w", 15_000);
    tx.punch_range(cid, &oid, b"d", b"w", 100, 5000);
    tx.punch_akey(cid, &oid, b"d", b"a");
    tx.update(cid, &oid, b"e", b"a", Bytes::from_static(b"v"));
    tx.punch_akeys(cid, &oid, b"e", b"a", Some(b"b"));
    tx.punch_dkey(cid, &oid, b"e");
    tx.punch_object(cid, &other);
    tx.create_container(ContainerId([2; 16]));
    tx.destroy_container(ContainerId([2; 16]));
    tx
}

/// Containers taken apart and put together.
fn containers() -> Tx {
    let cids = [2, 3, 4].map(|i| ContainerId([i; 16]));
    let mut tx = Tx::new(3);
    tx.split_container(CONTAINER, &ObjectKey(Bytes::from_static(b"of")), cids[0]);
    tx.set_container_property(cids[0], b"name", Some(Bytes::from_static(b"value")));
    tx.set_container_property(CONTAINER, b"name", None);
    tx.merge_container(CONTAINER, cids[0]);
    tx.create_container_in(cids[1], b"a", None);
    tx.create_container_in(cids[2], b"a", Some(b"b"));
    tx.split_container(CONTAINER, &ObjectKey(Bytes::from_static(b"p")), cids[0]);
    tx
}

/// One that leaves history, and one with what is done about that.
fn versions() -> [Tx; 2] {
    let (cid, oid) = (CONTAINER, object());
    let mut kept = Tx::new(10);
    kept.set_horizon(3);
    kept.retain_container(cid, &[3]);
    kept.retain(cid, &oid, &[5]);
    kept.write(cid, &oid, b"d", b"w", 100, vec![1; 5000].into(), None);
    kept.update(cid, &oid, b"d", b"b", Bytes::from_static(b"w"));
    kept.punch_dkey(cid, &oid, b"d");
    kept.truncate(cid, &oid, b"d", b"w", 50);
    let mut swept = Tx::new(11);
    swept.set_horizon(4);
    swept.aggregate(cid, &oid, crate::Cursor::default(), 100);
    swept.discard(cid, &oid, 9, u64::MAX);
    [kept, swept]
}

/// A transaction that is prepared, another, and one that ends both.
fn prepared() -> [Tx; 3] {
    let (cid, oid) = (CONTAINER, object());
    let mut one = Tx::new(12);
    one.set_horizon(5);
    one.prepare(TxId([1; 16]));
    one.write(cid, &oid, b"p", b"w", 0, vec![3; 5000].into(), None);
    one.update(cid, &oid, b"p", b"a", Bytes::from_static(b"v"));
    let mut other = Tx::new(13);
    other.set_horizon(5);
    other.prepare(TxId([2; 16]));
    other.write(cid, &oid, b"q", b"w", 0, vec![3; 9000].into(), None);
    other.punch_dkey(cid, &oid, b"r");
    let mut end = Tx::new(14);
    end.commit_prepared(TxId([1; 16]));
    end.abort_prepared(TxId([2; 16]));
    [one, other, end]
}

/// An object with so many dkeys and punches that they have trees, and an array in pieces under history.
fn large() -> Vec<Tx> {
    let (cid, oid) = (CONTAINER, large_object());
    let mut filled = Tx::new(20);
    filled.set_horizon(11);
    for i in 0..40u8 {
        let (dkey, value) = ([&[b'd'; 30][..], &[i]].concat(), Bytes::from(vec![i; 60]));
        filled.update(cid, &oid, &dkey, b"a", value);
    }
    let mut txs = vec![filled];
    for epoch in 21..24 {
        let mut tx = Tx::new(epoch);
        tx.set_horizon(11);
        (0..6).for_each(|i| {
            let data = Bytes::from(vec![epoch as u8; 3000 + 2000 * (i as usize % 2)]);
            tx.write(cid, &oid, b"array", b"", i * 5000, data, None);
        });
        tx.update(cid, &oid, b"single", b"", Bytes::from_static(b"v"));
        tx.punch_akey(cid, &oid, b"single", b"");
        (0..9u8).for_each(|i| tx.punch_akeys(cid, &oid, b"punched", &[i], Some(&[i, 0])));
        (0..9u8).for_each(|i| tx.punch_akeys(cid, &oid, b"punched", &[i], Some(&[i + 9])));
        txs.push(tx);
    }
    txs
}

fn large_object() -> ObjectKey {
    ObjectKey(Bytes::from_static(b"large"))
}

/// Pieces of arrays put together, on the device and inline; and a range with other blocks' names.
fn merged() -> [Tx; 2] {
    let (cid, oid) = (CONTAINER, object());
    let mut pieces = Tx::new(30);
    for i in 0..4 {
        pieces.write(cid, &oid, b"m", b"w", i * 4096, vec![i as u8; 4096].into(), None);
        pieces.write(cid, &oid, b"m", b"inline", i * 900, vec![i as u8; 900].into(), None);
    }
    let mut merge = Tx::new(31);
    merge.merge(cid, &oid, b"m", b"w", 0, vec![5; 4 * 4096].into());
    merge.merge(cid, &oid, b"m", b"inline", 0, vec![6; 1800].into());
    let from = crate::Position { cid, oid: &oid, dkey: b"m", akey: b"w", offset: 100 };
    let to = crate::Position { dkey: b"clone", offset: 4196, ..from };
    merge.clone_range(from, 31, 9000, to);
    [pieces, merge]
}

/// The steps of a discard.
fn discarded(vos: &mut Vos, out: &mut Vec<(&'static str, Vec<u8>)>) {
    let mut next = Some(crate::Cursor::default());
    for budget in [3, 9, 4, 5, 30, 1000] {
        let Some(cursor) = next.take() else {
            return;
        };
        let mut tx = Tx::new(40);
        tx.set_horizon(11);
        tx.discard_some(CONTAINER, &large_object(), (22, 23), cursor, budget);
        if let Ok(staged) = vos.stage(&tx) {
            out.push(("wal_record", staged.record));
            next = staged.aggregated;
        }
    }
}

/// The parts of an object, taken in under another name.
fn imported(vos: &Vos) -> Vec<Tx> {
    let (mut txs, mut next) = (Vec::new(), Some(crate::Anchor::default()));
    let view = vos.at(u64::MAX).committed();
    while let Some(at) = next.take() {
        let Ok(Some(part)) = view.export(CONTAINER, &large_object(), &at, 30) else {
            break;
        };
        let data = part.data.iter().map(|e| Bytes::from(vec![1; e.len as usize])).collect();
        let mut tx = Tx::new(39);
        let name = ObjectKey(Bytes::from_static(b"import"));
        if tx.import(CONTAINER, &name, part.entries, data).is_ok() {
            txs.push(tx);
        }
        next = part.next;
    }
    txs
}

/// Records of containers and objects.
fn records(vos: &Vos, out: &mut Vec<(&'static str, Vec<u8>)>) {
    out.extend(vos.containers.values().map(|c| ("entry", c.record.encode())));
    for oid in [object(), large_object()] {
        if let Ok(Some(record)) = vos.object(CONTAINER, &oid) {
            out.push(("entry", record.encode()));
            let _ = vos.scan_table(TABLE_PUNCH, record.punched, &[], None, &mut |key, cell| {
                let value = tree::load_value(&vos.pool, cell)?;
                out.push(("entry", [&[key.len() as u8][..], key, &value].concat()));
                Ok(std::ops::ControlFlow::Continue(()))
            });
        }
    }
}

/// Transactions as they go to other stores.
fn portable(txs: &[Tx]) -> Vec<(&'static str, Vec<u8>)> {
    let (cid, oid) = (CONTAINER, object());
    let mut others = Tx::new(41);
    others.write(cid, &oid, b"d", b"w", 0, vec![4; 4096].into(), Some(vec![1]));
    others.discard(cid, &oid, 40, 41);
    others.discard_some(cid, &oid, (40, 41), crate::Cursor::default(), 9);
    others.set_container_property(cid, b"name", Some(Bytes::from_static(b"value")));
    others.set_container_property(cid, b"name", None);
    let inputs = txs
        .iter()
        .chain([&others])
        .filter_map(move |tx| crate::tx_wire::fuzz_input(tx, crate::Home { cid, records: &oid }));
    inputs.map(|input| ("tx", input)).collect()
}

/// Inputs of the targets as a store writes them, by target.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut vos = Vos::format(Config::default(), 16, BLOCKS, 0);
    let mut out = Vec::new();
    let [kept, swept] = versions();
    let [one, other, end] = prepared();
    let mut txs = vec![first(), second(), kept, swept, one, other, end];
    txs.extend(large());
    txs.extend(merged());
    out.extend(portable(&txs));
    for tx in txs {
        if let Ok(staged) = vos.stage(&tx) {
            if tx.prepare.is_some() {
                out.push(("entry", staged.record.clone()));
            }
            out.push(("wal_record", staged.record));
        }
    }
    records(&vos, &mut out);
    for tx in imported(&vos).iter().chain([&containers()]) {
        out.extend(vos.stage(tx).map(|staged| ("wal_record", staged.record)));
    }
    discarded(&mut vos, &mut out);
    records(&vos, &mut out);
    if let Ok(checkpoint) = vos.begin_checkpoint() {
        for write in &checkpoint.writes {
            let mut page = vec![0; PAGE_SIZE];
            write.seal(&mut page);
            out.push(("page", page));
        }
        out.push(("root", checkpoint.root.encode()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_run() {
        let seeds = seeds();
        let mut codes = std::collections::BTreeSet::new();
        for (_, seed) in seeds.iter().filter(|(target, _)| *target == "wal_record") {
            let record = Record::decode(Bytes::copy_from_slice(seed)).unwrap();
            codes.extend(record.tx.ops.iter().map(crate::tx::TxOp::name));
        }
        assert_eq!(codes.len(), 23, "every operation but conditions: {codes:?}");
        let count = |name| seeds.iter().filter(|(target, _)| *target == name).count();
        assert!(count("entry") >= 5 && count("page") >= 2 && count("wal_record") >= 20);
        assert!(count("tx") >= 5, "{}", count("tx"));
        for (target, seed) in seeds {
            match target {
                "wal_record" => wal_record(&seed),
                "page" => page(&seed),
                "entry" => entry(&seed),
                "tx" => tx(&seed),
                _ => root(&seed),
            }
        }
    }
}
