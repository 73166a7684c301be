//! The timestamp cache against a full history of reads and writes.

mod naive;
mod ops;
mod pairs;
mod property;
mod real;

use super::*;

use naive::{Timestamps, path};

fn tx(id: u8, epoch: u64) -> TxStamp {
    TxStamp::certain(TxId([id; 16]), epoch)
}

fn cache() -> Cache {
    Cache::new(0, 1 << 20)
}

fn refused(cache: &Cache, place: &str, by: TxStamp) -> Option<u64> {
    cache.check_write(&path(place), &by).err().map(|r| r.after)
}

#[test]
fn memory_is_bounded() {
    assert!(Cache::new(0, CACHE_BYTES).bytes() <= CACHE_BYTES);
    assert!(Cache::new(0, CACHE_BYTES).bytes() > CACHE_BYTES - (64 << 10), "nearly all is used");
    let mut cache = Cache::new(0, 0);
    let least = cache.bytes();
    assert!(least <= 4 << 10);
    for i in 0..1000_u64 {
        let key = i.to_le_bytes();
        let path = Path::akey(ContainerId([0; 16]), &key, &key, &key);
        cache.note_read(&path, &tx(1, i), Outcome::Found);
    }
    assert_eq!(cache.bytes(), least);
}

#[test]
fn misses_drive_nothing_out() {
    let mut cache = Cache::new(0, 0);
    cache.note("coda", &tx(1, 5), Outcome::Found);
    for letter in 'A'..='Z' {
        cache.note(&format!("cod{letter}"), &tx(1, 9), Outcome::Missing(Level::Akey));
    }
    assert_eq!(refused(&cache, "coda", tx(2, 6)), None);
    assert_eq!(refused(&cache, "codZ", tx(2, 6)), Some(9));
    assert_eq!(refused(&cache, "cod", tx(2, 6)), Some(9));
}

#[test]
fn a_list_is_in_the_way_of_all_below_it_and_nothing_beside() {
    let mut cache = cache();
    cache.note("co", &tx(1, 10), Outcome::Found);
    for place in ["co", "cod", "coda", "c"] {
        assert_eq!(refused(&cache, place, tx(2, 10)), Some(10), "{place}");
        assert_eq!(refused(&cache, place, tx(2, 11)), None, "{place}");
        assert_eq!(refused(&cache, place, tx(1, 10)), None, "{place}: its own read");
    }
    for place in ["cO", "cOd", "cOda", "Co", "Coda"] {
        assert_eq!(refused(&cache, place, tx(2, 5)), None, "{place}");
    }
}

#[test]
fn a_restart_names_the_epoch_to_be_passed() {
    let mut cache = cache();
    cache.note("coda", &tx(1, 10), Outcome::Found);
    cache.note_write(&path("cod"), &tx(1, 14));
    let try_at = |epoch| {
        let by = TxStamp::uncertain(TxId([2; 16]), epoch, 8, 10);
        cache.check_write(&path("coda"), &by)
    };
    assert_eq!(try_at(8), Err(Restart { after: 14, cause: Cause::Uncertain, level: Level::Dkey }));
    assert_eq!(try_at(15), Ok(()));
    let read = cache.check_write(&path("coda"), &tx(2, 8));
    assert_eq!(read, Err(Restart { after: 10, cause: Cause::Read, level: Level::Akey }));
    assert_eq!(
        read.unwrap_err().to_string(),
        "restart above epoch 10: another transaction read what is written (Akey)"
    );
}

#[test]
fn all_before_the_start_counts_as_read() {
    let cache = Cache::new(100, 1 << 20);
    assert_eq!(refused(&cache, "coda", tx(1, 100)), Some(100));
    assert_eq!(refused(&cache, "coda", tx(1, 101)), None);
    let early = TxStamp::uncertain(TxId([1; 16]), 90, 90, 20);
    assert_eq!(cache.check_read(&path("coda"), &early).map_err(|r| r.after), Err(100));
}

#[test]
fn above_the_uncertainty_an_epoch_is_certain() {
    let mut cache = cache();
    cache.note_write(&path("coda"), &tx(1, 30));
    let read = |epoch, first| {
        let by = TxStamp::uncertain(TxId([2; 16]), epoch, first, 10);
        cache.check_read(&path("coda"), &by).is_ok()
    };
    assert!(read(19, 19), "written after the uncertainty");
    assert!(!read(20, 20) && !read(29, 20));
    assert!(read(30, 20), "written at its epoch: read");
    assert!(read(31, 20) && read(40, 20) && read(41, 20));
}

#[test]
fn what_moves_to_another_container_stays_read() {
    let mut cache = cache();
    cache.note("coda", &tx(1, 10), Outcome::Found);
    cache.note_write(&path("cO"), &tx(1, 12));
    assert_eq!(refused(&cache, "Coda", tx(2, 5)), None);
    cache.inherit(naive::cid(b'C'), naive::cid(b'c'));
    assert_eq!(refused(&cache, "Coda", tx(2, 5)), Some(10));
    assert_eq!(refused(&cache, "Coda", tx(2, 11)), None);
    let uncertain = TxStamp::uncertain(TxId([2; 16]), 11, 11, 5);
    assert_eq!(refused(&cache, "Coda", uncertain), Some(12));
    assert_eq!(refused(&cache, "coda", tx(2, 11)), None, "what stayed is as it was");
}
