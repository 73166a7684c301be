//! Scrub: finds what is damaged, names its owner, and nothing else.

use std::time::Duration;

use bytes::Bytes;
use spirula_bio::Device;
use spirula_store::{Corruption, Expect, Options, Store};
use spirula_vos::{BLOCK_SIZE, BlockAddr, Damage, Extent, Owner, PAGE_SIZE, Tx};
use spirula_xstream::{sleep, wall_now};

use crate::faults::{BYTES, CID, PATH, container, host, key, open, submit};

/// Objects of all kinds: extents in the record, in an entry that was moved out, in a tree of its own; old
/// ones; and a value over several pages.
async fn fill(store: &Store) {
    container(store).await;
    for epoch in [5, 6] {
        let mut tx = Tx::new(epoch);
        for object in 1..4 {
            tx.retain(CID, &key(object), &[5]);
        }
        tx.write(CID, &key(1), b"d", b"few", 0, Bytes::from(vec![epoch as u8; 20_000]), None);
        for i in 0..60 {
            let akey = format!("value{i:03}");
            tx.update(CID, &key(2), b"d", akey.as_bytes(), Bytes::from(vec![2; 100]));
        }
        tx.write(CID, &key(2), b"d", b"few", 0, Bytes::from(vec![epoch as u8; 9000]), None);
        for i in 0..100 {
            let data = Bytes::from(vec![epoch as u8; 4096]);
            tx.write(CID, &key(3), b"d", b"many", i * 8192, data, None);
        }
        for i in 0..if epoch == 6 { 200 } else { 0 } {
            let data = Bytes::from(vec![epoch as u8; 9000]);
            tx.write(CID, &key(5), &numbered(i), b"few", 0, data, None);
        }
        tx.update(CID, &key(4), b"d", b"big", Bytes::from(vec![4; 30_000]));
        submit(store, &tx).await.unwrap();
    }
    store.checkpoint().await.unwrap();
}

/// One of so many dkeys that they have a tree of their own, and each a tree of its akeys.
fn numbered(i: u64) -> Bytes {
    Bytes::from(format!("dkey{i:03}"))
}

/// First block of an array's first extent at an epoch.
async fn place(store: &Store, object: u64, dkey: &[u8], akey: &[u8], at: u64) -> BlockAddr {
    let look = |vos: &spirula_vos::Vos| vos.at(at).extents(CID, &key(object), dkey, akey, 0, 4096);
    match &store.read(look).await.unwrap()[..] {
        [Extent::Device(extent), ..] => extent.addr,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_scrub_finds_damaged_extents_and_whose_they_are() {
    let host = host(40);
    let disk = host.disk(PATH, BYTES);
    host.block_on(async move {
        let store = open().await;
        fill(&store).await;
        let clean = store.scrub().await.unwrap();
        assert_eq!((clean.errors, clean.found), (0, vec![]));
        assert!(clean.extents > 200 && clean.pages > 10 && clean.bytes > 800_000);
        let mut bad = Vec::new();
        let (first, middle) = (numbered(0), numbered(150));
        let arrays = [
            (1, &b"d"[..], &b"few"[..], 5),
            (2, b"d", b"few", 5),
            (3, b"d", b"many", 5),
            (1, b"d", b"few", u64::MAX),
            (2, b"d", b"few", u64::MAX),
            (3, b"d", b"many", u64::MAX),
            (5, &first, b"few", u64::MAX),
            (5, &middle, b"few", u64::MAX),
        ];
        for (object, dkey, akey, at) in arrays {
            let addr = place(&store, object, dkey, akey, at).await;
            disk.corrupt(addr.byte_offset(), 512);
            let item = Some((Bytes::copy_from_slice(dkey), Bytes::copy_from_slice(akey)));
            let owner = Some(Owner { cid: CID, object: Some(key(object)), item });
            bad.push((addr, owner));
        }
        bad.sort_by_key(|(addr, _)| *addr);
        let report = store.scrub().await.unwrap();
        let mut found = report.found;
        found.sort_by_key(|c| c.addr);
        let named: Vec<_> = found.iter().map(|c| (c.addr, c.owner.clone())).collect();
        assert_eq!(named, bad);
        assert!(found.iter().all(|c| c.damage == Damage::Data { addr: c.addr }));
        assert_eq!((report.errors, report.by_container[&Some(CID)]), (8, 8));
        assert_eq!(store.counters().scrub_errors, 8);
        let text = found.iter().find(|c| c.addr == bad[0].0).map(Corruption::to_string).unwrap();
        assert!(text.contains("is damaged at block") && text.contains("object000"), "{text}");
        store.close().await.unwrap();
    })
    .unwrap();
}

/// Every page in turn: the scrub finds it, goes on behind it, and nothing else is wrong.
#[test]
fn a_scrub_finds_damaged_pages_and_goes_on() {
    let host = host(41);
    let disk = host.disk(PATH, BYTES);
    host.block_on(async move {
        let device = Device::open(PATH).unwrap();
        let options = Options { zero_ahead: false, ..Options::default() };
        let store = Store::open(&device, Expect::default(), options).await.unwrap();
        fill(&store).await;
        store.drop_caches();
        let whole = store.scrub().await.unwrap();
        let image = disk.peek(0, BYTES as usize);
        let pages = (0..BYTES / PAGE_SIZE as u64).filter(|&i| {
            let page = &image[i as usize * PAGE_SIZE..][..PAGE_SIZE];
            page[4..6] == 0x5350u16.to_le_bytes()
        });
        let mut found = 0;
        for page in pages {
            let (at, len) = (page * PAGE_SIZE as u64, PAGE_SIZE as u64);
            disk.corrupt(at + 100, 1);
            store.drop_caches();
            let report = store.scrub().await.unwrap();
            // The place may have been left by a newer version of the page.
            if let [one] = &report.found[..] {
                assert_eq!(one.addr, BlockAddr(at / BLOCK_SIZE));
                assert!(matches!(one.damage, Damage::Page { .. }), "{one}");
                assert_eq!((report.errors, report.pages), (1, whole.pages));
                found += 1;
            }
            assert!(report.errors <= 1, "{report:?}");
            let was = Bytes::copy_from_slice(&image[at as usize..][..len as usize]);
            device.write(at, was).await.unwrap();
        }
        assert!(found >= whole.pages - 2, "{found} of {}", whole.pages);
        assert_eq!(store.scrub().await.unwrap().errors, 0);
    })
    .unwrap();
}

#[test]
fn scrubs_come_by_the_clock_and_are_remembered() {
    let host = host(42);
    let disk = host.disk(PATH, BYTES);
    let hour = Duration::from_secs(3600);
    let wait = 50 * hour;
    host.block_on(async move {
        let store = open().await;
        fill(&store).await;
        store.set_scrub_interval(Some(wait));
        sleep(wait - hour).await;
        assert_eq!(store.counters().scrubs, 0);
        store.close().await.unwrap();
        drop(store);
        let store = open().await;
        store.set_scrub_interval(Some(wait));
        sleep(2 * hour).await;
        assert_eq!(store.counters().scrubs, 1, "the time before counts");
        let (at, errors) = store.scrub_status().scrubbed;
        assert!(errors == 0 && wall_now().as_secs() - at < 7200);
        disk.corrupt(place(&store, 1, b"d", b"few", 6).await.byte_offset(), 1);
        store.scrub_later();
        sleep(hour).await;
        assert_eq!(store.scrub_status().scrubbed.1, 1);
        store.close().await.unwrap();
        drop(store);
        let store = open().await;
        store.set_scrub_interval(Some(wait));
        sleep(hour).await;
        assert_eq!(store.counters().scrub_errors, 1, "what was damaged is found again at once");
        store.close().await.unwrap();
    })
    .unwrap();
}
