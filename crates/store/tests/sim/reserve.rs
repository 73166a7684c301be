//! Reservations: what one holds is there, however little others have left.

use bytes::Bytes;
use spirula_bio::Device;
use spirula_store::{Expect, Options, ReserveError, Store};
use spirula_vos::{StageError, Tx};

use crate::faults::{CID, PATH, container, host, key, open, submit};

fn write(i: u64, len: usize) -> Tx {
    let mut tx = Tx::new(1);
    tx.write(CID, &key(i), b"d", b"", 0, Bytes::from(vec![i as u8; len]), None);
    tx
}

/// A transaction that needs blocks, pages and WAL.
fn precious() -> Tx {
    let mut tx = write(1_000_000, 3 << 20);
    for a in 0..200 {
        tx.update(CID, &key(1_000_001), b"omap", format!("{a}").as_bytes(), vec![1; 100].into());
    }
    tx
}

/// Writes until there is no space left, even for a little.
async fn fill(store: &Store, from: u64) -> u64 {
    let mut n = from;
    for len in [300_000, 50_000, 4096, 3000, 500] {
        while submit(store, &write(n, len)).await.is_ok() {
            n += 1;
        }
        store.make_room().await.unwrap();
    }
    n
}

#[test]
fn a_full_store_takes_what_was_reserved() {
    host(41)
        .block_on(async {
            let store = open().await;
            container(&store).await;
            let reserved = store.reserve(&precious()).await.unwrap();
            let hold = reserved.hold().unwrap();
            assert!(hold.blocks() == 768 && hold.pages() > 8, "{hold:?}");
            let filled = fill(&store, 0).await;
            let refused = store.reserve(&precious()).await.err();
            assert_eq!(refused, Some(ReserveError::Refused(StageError::NoSpace)));
            assert_eq!(submit(&store, &precious()).await, Err(StageError::NoSpace));
            // Deletions and rewrites of what is there go on meanwhile.
            for i in 0..filled / 50 {
                let mut tx = Tx::new(2);
                tx.punch_object(CID, &key(i * 50));
                submit(&store, &tx).await.unwrap();
            }
            fill(&store, filled).await;
            let commit = store.submit_reserved(&precious(), reserved);
            commit.map_err(|(e, _)| e).unwrap().await.unwrap();
            let size = store.read(|vos| vos.array_size(CID, &key(1_000_000), b"d", b"")).await;
            assert_eq!(size.unwrap(), Some(3 << 20));
            store.check().await.unwrap();
        })
        .unwrap();
}

#[test]
fn what_is_given_back_is_everybodys() {
    host(42)
        .block_on(async {
            let store = open().await;
            container(&store).await;
            let before = store.statfs().available;
            let reserved = store.reserve(&precious()).await.unwrap();
            assert!(store.statfs().available + (3 << 20) <= before);
            // What is refused otherwise stays reserved.
            let mut wrong = precious();
            wrong.create_container(CID);
            let refused = store.submit_reserved(&wrong, reserved);
            let Err((StageError::ContainerExists(CID), reserved)) = refused else {
                panic!("it was not refused");
            };
            assert!(store.statfs().available + (3 << 20) <= before);
            drop(reserved);
            assert_eq!(store.statfs().available, before);
            let mut late = precious();
            late.create_container(CID);
            let refused = store.reserve(&late).await.err();
            assert_eq!(refused, Some(StageError::ContainerExists(CID).into()));
            assert_eq!(store.statfs().available, before);
        })
        .unwrap();
}

#[test]
fn its_pages_stay_in_memory() {
    host_of_few_pages(async |store: Store| {
        for i in 0..3000 {
            submit(&store, &write(i, 500)).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        store.drop_caches();
        let mut tx = write(1500, 600);
        tx.update(CID, &key(100), b"a", b"", Bytes::from_static(b"value"));
        assert!(matches!(store.submit(&tx), Err(StageError::Missing(_))), "nothing is in memory");
        let reserved = store.reserve(&tx).await.unwrap();
        // Their pages split, are written, and could be dropped.
        for i in 0..3000 {
            let mut tx = Tx::new(1);
            tx.update(
                CID,
                &key(i % 1400 + 2 * (i % 1400 / 700) + 799),
                b"other",
                b"",
                Bytes::from(vec![7; 200]),
            );
            submit(&store, &tx).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        store.drop_caches();
        assert!(matches!(store.submit(&write(2900, 10)), Err(StageError::Missing(_))));
        let commit = store.submit_reserved(&tx, reserved).map_err(|(e, _)| e).unwrap();
        commit.await.unwrap();
        store.drop_caches();
        store.check().await.unwrap();
    });
}

/// Runs `f` on a store with a buffer pool of 32 pages.
fn host_of_few_pages(f: impl AsyncFnOnce(Store) + 'static) {
    host(44)
        .block_on(async move {
            let device = Device::open(PATH).unwrap();
            let options =
                Options { zero_ahead: false, pool_bytes: 256 << 10, ..Options::default() };
            let store = Store::open(&device, Expect::default(), options).await.unwrap();
            container(&store).await;
            f(store).await;
        })
        .unwrap();
}

#[test]
fn the_wal_goes_round_beside_reservations() {
    host(45)
        .block_on(async {
            let store = open().await;
            container(&store).await;
            let small = |i| {
                let mut tx = Tx::new(1);
                tx.update(CID, &key(i), b"d", b"", Bytes::from(vec![1; 50_000]));
                tx
            };
            let mut reserved = Vec::new();
            for i in 0..3 {
                reserved.push((i, store.reserve(&small(i)).await.unwrap()));
            }
            // Several times the WAL of 1 MiB, 160 KiB of which are held.
            for _ in 0..100 {
                submit(&store, &small(9)).await.unwrap();
            }
            for (i, reserved) in reserved {
                let commit = store.submit_reserved(&small(i), reserved).map_err(|(e, _)| e);
                commit.unwrap().await.unwrap();
            }
            let mut large = Tx::new(1);
            large.update(CID, &key(1), b"d", b"", Bytes::from(vec![1; 300_000]));
            let refused = store.reserve(&large).await.err();
            assert_eq!(refused, Some(StageError::TooLarge.into()));
            for _ in 0..100 {
                submit(&store, &small(9)).await.unwrap();
            }
            store.close().await.unwrap();
        })
        .unwrap();
}
