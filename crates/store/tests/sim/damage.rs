//! Corruption: a byte changed anywhere in a store that has every kind of structure. What is read is
//! right or an error, and the offline check finds what readers would.

use std::ops::Bound;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spirula_bio::Device;
use spirula_bio::wal::BatchHeader;
use spirula_store::{Expect, FormatOptions, Offline, OpenError, Options, Store, StoreError};
use spirula_vos::{ContainerId, Extent, Keys, ObjectKey, Position, StageError, Tx, Vos};
use spirula_xstream::sim::{SimDisk, SimHost, SimWorld};

use crate::faults::{BYTES, PATH};

const CIDS: [ContainerId; 2] = [ContainerId([1; 16]), ContainerId([2; 16])];
/// The last is a clone.
const OBJECTS: u64 = 7;
/// Readers at these: below are the retained ones.
const EPOCHS: [u64; 3] = [10, 20, u64::MAX];
const BLOCK: u64 = 4096;
const WAL_BYTES: u64 = 1 << 20;

fn host(seed: u64) -> SimHost {
    let host = SimWorld::new(seed).host("osd");
    host.disk(PATH, BYTES);
    host.block_on(async {
        let device = Device::open(PATH).unwrap();
        let wal_bytes = Some(WAL_BYTES);
        let options = FormatOptions { wal_bytes, ..FormatOptions::default() };
        Store::format(&device, &options).await.unwrap();
    })
    .unwrap();
    host
}

async fn open() -> Result<Store, OpenError> {
    let device = Device::open(PATH).unwrap();
    let options = Options { zero_ahead: false, ..Options::default() };
    Store::open(&device, Expect::default(), options).await
}

async fn submit(store: &Store, tx: &Tx) {
    loop {
        match store.submit(tx) {
            Ok(commit) => return commit.await.unwrap(),
            Err(StageError::Missing(pages)) => store.load(pages).await.unwrap(),
            Err(e) => panic!("{e}"),
        }
    }
}

fn object(i: u64) -> ObjectKey {
    ObjectKey(Bytes::from(format!("object{i}")))
}

/// One round of changes at an epoch: all kinds of entries come about, old versions among them.
fn changes(epoch: u64, rng: &mut ChaCha8Rng) -> Vec<Tx> {
    let mut all = Vec::new();
    let fill = |tag: u64, len: usize| Bytes::from(vec![(epoch + tag) as u8; len]);
    for cid in CIDS {
        for i in 0..6 {
            let (mut tx, oid) = (Tx::new(epoch), object(i));
            tx.retain(cid, &oid, &[10, 20]);
            // Single values: inline in the record, many enough to be moved out, and over pages.
            for a in 0..if i == 1 { 60 } else { 3 } {
                tx.update(cid, &oid, b"omap", format!("key{a:03}").as_bytes(), fill(a, 40));
            }
            // So many dkeys that they get a tree.
            for d in 0..if i == 0 { 40 } else { 0 } {
                tx.update(cid, &oid, format!("dkey{d:040}").as_bytes(), b"", fill(d, 30));
            }
            if i == 2 {
                tx.update(cid, &oid, b"big", b"value", fill(1, 30_000));
            }
            // Arrays to be punched one by one, so that the punches get a table.
            for a in 0..if i == 5 { PUNCHED } else { 0 } {
                tx.write(cid, &oid, b"punched", &punched(a), 0, fill(a, 10), None);
            }
            // Arrays: inline, in one extent, and in so many that they get a tree.
            tx.write(cid, &oid, b"data", b"small", i, fill(2, 500), None);
            tx.write(cid, &oid, b"data", b"large", 4096 * i, fill(3, 20_000), None);
            if i == 3 {
                for _ in 0..40 {
                    let at = rng.random_range(0..60) * 8192;
                    tx.write(cid, &oid, b"data", b"tree", at, fill(at, 4096), None);
                }
                tx.punch_range(cid, &oid, b"data", b"large", 5000, 9000);
            }
            all.push(tx);
        }
        // Blocks that two objects share.
        let (mut tx, from, to) = (Tx::new(epoch + 1), object(3), object(6));
        tx.set_horizon(epoch);
        tx.retain(cid, &to, &[10, 20]);
        for akey in [&b"large"[..], b"tree"] {
            let place = |oid| Position { cid, oid, dkey: b"data", akey, offset: 0 };
            tx.clone_range(place(&from), epoch, 1 << 20, place(&to));
        }
        all.push(tx);
        let mut tx = Tx::new(epoch + 1);
        tx.punch_object(cid, &object(4));
        tx.punch_akey(cid, &object(0), b"omap", b"key001");
        tx.truncate(cid, &object(5), b"data", b"large", 7777);
        (0..PUNCHED).for_each(|a| tx.punch_akey(cid, &object(5), b"punched", &punched(a)));
        all.push(tx);
    }
    all
}

/// Akeys that are punched one by one.
const PUNCHED: u64 = 20;

fn punched(akey: u64) -> Bytes {
    Bytes::from(format!("akey{akey:020}"))
}

/// A destroyed container, of which much is still there; the upper half was split off and stays.
async fn garbage(store: &Store) {
    let cid = ContainerId([3; 16]);
    let mut tx = Tx::new(1);
    tx.create_container(cid);
    (0..1000).for_each(|i| tx.update(cid, &object(i), b"d", b"a", Bytes::from_static(b"value")));
    submit(store, &tx).await;
    let mut tx = Tx::new(2);
    tx.split_container(cid, &object(500), ContainerId([4; 16]));
    tx.destroy_container(cid);
    submit(store, &tx).await;
}

/// Fills the store; after the checkpoint come changes that only the WAL has. It is not closed.
async fn fill(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let store = open().await.unwrap();
    let mut tx = Tx::new(1);
    tx.create_container(CIDS[0]);
    // One of two parts.
    let upper = ContainerId([5; 16]);
    tx.create_container_in(CIDS[1], b"", Some(&object(2).0));
    tx.create_container_in(upper, &object(2).0, None);
    tx.merge_container(CIDS[1], upper);
    submit(&store, &tx).await;
    for epoch in [10, 20, 30] {
        if epoch == 30 {
            garbage(&store).await;
            store.checkpoint().await.unwrap();
        }
        for tx in changes(epoch, &mut rng) {
            submit(&store, &tx).await;
        }
    }
}

/// Answers for each container and epoch.
const ANSWERS: usize = OBJECTS as usize * 4;

/// All that a reader can see, or what stopped it.
type Seen = Vec<Result<Vec<Bytes>, StoreError>>;

async fn observe(store: &Offline) -> Seen {
    let mut seen = Vec::new();
    for cid in CIDS {
        for at in EPOCHS {
            for i in 0..OBJECTS {
                let oid = object(i);
                seen.push(keys(store, cid, at, &oid).await);
                for akey in [&b"small"[..], b"large", b"tree"] {
                    seen.push(array(store, cid, at, &oid, akey).await);
                }
            }
        }
    }
    seen
}

async fn keys(
    store: &Offline,
    cid: ContainerId,
    at: u64,
    oid: &ObjectKey,
) -> Result<Vec<Bytes>, StoreError> {
    let list = |vos: &Vos, dkey: &[u8]| {
        vos.at(at).list_akeys(cid, oid, dkey, Bound::Unbounded, usize::MAX)
    };
    let mut out =
        store.read(|vos| vos.at(at).dkeys(cid, oid, &Keys::default(), usize::MAX)).await?;
    for dkey in out.clone().iter().filter(|d| **d != b"data"[..]) {
        let found = store.read(|vos| list(vos, dkey)).await?;
        out.extend(found.into_iter().flat_map(|(akey, value)| [akey, value]));
    }
    Ok(out)
}

async fn array(
    store: &Offline,
    cid: ContainerId,
    at: u64,
    oid: &ObjectKey,
    akey: &[u8],
) -> Result<Vec<Bytes>, StoreError> {
    let extents: Vec<Extent> =
        store.read(|vos| vos.at(at).extents(cid, oid, b"data", akey, 0, u64::MAX)).await?;
    Ok(vec![store.read_data(&extents).await?.concat().into()])
}

/// Opens the store as it is now, looks at all of it, and checks it.
fn look(host: &SimHost) -> Result<(Seen, bool), OpenError> {
    let seen = host.block_on(async {
        let device = Device::open_read_only(PATH).unwrap();
        let store = Offline::open(&device).await?;
        let seen = observe(&store).await;
        Ok((seen, store.check().await.is_ok()))
    });
    seen.unwrap()
}

/// Changes a byte, looks, puts the byte back. `shorter` says that the newest state may be an older one.
fn flip(host: &SimHost, disk: &SimDisk, at: u64, whole: &Seen, shorter: bool, tally: &mut Tally) {
    let block = at / BLOCK * BLOCK;
    let before = Bytes::from(disk.peek(block, BLOCK as usize));
    disk.corrupt(at, 1);
    tally.tried += 1;
    match look(host) {
        Err(_) => tally.refused += 1,
        Ok((seen, sound)) => {
            let (mut damaged, mut older) = (false, false);
            for (i, (now, then)) in seen.iter().zip(whole).enumerate() {
                match now {
                    Ok(data) if Ok(data) == then.as_ref() => {}
                    Ok(_) if shorter && i / ANSWERS % EPOCHS.len() == 2 => older = true,
                    Ok(_) => panic!("byte {at}: wrong data in answer {i}"),
                    Err(StoreError::Damaged(_)) => damaged = true,
                    Err(e) => panic!("byte {at}: {e}"),
                }
            }
            assert!(!damaged || !sound, "byte {at}: the check found nothing");
            tally.damaged += u32::from(damaged);
            tally.older += u32::from(older);
            tally.only_checked += u32::from(!damaged && !sound);
        }
    }
    host.block_on(async move {
        let device = Device::open(PATH).unwrap();
        device.write(block, before).await.unwrap();
        device.flush().await.unwrap();
    })
    .unwrap();
}

#[derive(Default, Debug)]
struct Tally {
    tried: u32,
    /// The store did not open.
    refused: u32,
    /// Readers met damage.
    damaged: u32,
    /// Only the check noticed.
    only_checked: u32,
    /// The last batch of the WAL was taken for a torn one.
    older: u32,
}

/// Bytes of each used block that are changed: more with the environment's wish.
fn flips() -> u64 {
    let wish = std::env::var("SPIRULA_FLIPS").ok().and_then(|v| v.parse().ok());
    wish.unwrap_or(1)
}

/// First byte of the WAL, and those of the batch written last and after it.
fn last_batch(image: &[u8]) -> (u64, u64, u64) {
    let wal = spirula_bio::superblock::WAL_OFFSET;
    let headers = (wal..wal + WAL_BYTES).step_by(BLOCK as usize).filter_map(|at| {
        let header = BatchHeader::decode(&image[at as usize..][..BLOCK as usize])?;
        Some((header.generation, header.number, at, at + header.batch_len()))
    });
    let (_, _, at, end) = headers.max().unwrap();
    (wal, at, end)
}

#[test]
fn a_changed_byte_is_never_wrong_data() {
    let host = host(20);
    let disk = host.disk(PATH, BYTES);
    host.block_on(fill(20)).unwrap();
    host.kill();
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    let image = disk.peek(0, BYTES as usize);
    let (whole, sound) = look(&host).unwrap();
    assert!(sound && whole.iter().all(Result::is_ok));
    assert!(disk.peek(0, BYTES as usize) == image, "the look at it wrote to the device");
    let (wal, last, last_end) = last_batch(&image);
    let (mut tally, mut in_wal) = (Tally::default(), Tally::default());
    for (i, block) in (0u64..).zip(image.chunks(BLOCK as usize)) {
        let Some(used) = block.iter().rposition(|&b| b != 0) else { continue };
        for _ in 0..flips() {
            let at = i * BLOCK + rng.random_range(0..=used as u64);
            // Only the last batch may look like one that the power did not let through.
            let shorter = (last..last_end).contains(&at);
            let tally = if (wal..wal + WAL_BYTES).contains(&at) { &mut in_wal } else { &mut tally };
            flip(&host, &disk, at, &whole, shorter, tally);
        }
    }
    assert!(disk.peek(0, BYTES as usize) == image);
    assert!(tally.tried > 100 && tally.refused > 2 && tally.older == 0, "{tally:?}");
    assert!(tally.damaged > 30 && tally.only_checked > 0, "{tally:?}");
    assert!(in_wal.refused > 5 && in_wal.older > 0, "{in_wal:?}");
}
