//! Small data that is read repeatedly, by its place on the device, up to a number of bytes.
//!
//! Data is taken in at its third read, so that passes over everything do not drop what is in use. The
//! first touch of memory can cost more than the read from the device that it will save: while the
//! cache grows, only some of what could be taken in is.
//! An entry is whole blocks with their checksums. Its place may have been reused since it was put in: it
//! answers only to an extent that names the same checksums, the proof that a read from the device needs
//! too. So nothing has to be invalidated.
//! Invariant: the entries are never more than the bound; the one dropped was not used since the hand of
//! the clock passed it last.

use bytes::Bytes;
use foldhash::HashMap;
use spirula_vos::{BLOCK_SIZE, DeviceExtent};

use crate::limits::{GROW_EVERY, READS_TO_CACHE, SEEN_PLACES};

/// Bytes that an entry costs besides its data.
const ENTRY_BYTES: usize = 160;

/// See the module text.
pub(crate) struct Cache {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_addr: HashMap<u64, u32>,
    /// Places read, times four, and how often; newer ones over older ones.
    seen: Vec<u64>,
    /// Entries that could have been taken in.
    offered: u64,
    hand: usize,
    bytes: usize,
    bytes_max: usize,
}

struct Slot {
    addr: u64,
    blocks: Bytes,
    crcs: Box<[u32]>,
    /// Bytes of the last block that its checksum covers.
    tail: u16,
    referenced: bool,
}

impl Slot {
    fn cost(&self) -> usize {
        // Buffers come in powers of two of blocks.
        self.blocks.len().next_power_of_two() + ENTRY_BYTES
    }
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Cache {
        Cache {
            slots: Vec::new(),
            free: Vec::new(),
            by_addr: HashMap::default(),
            seen: vec![0; SEEN_PLACES],
            offered: 0,
            hand: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// The blocks of the extent, if exactly these are here.
    pub(crate) fn get(&mut self, extent: &DeviceExtent) -> Option<Bytes> {
        let slot = self.slots[*self.by_addr.get(&extent.addr.0)? as usize].as_mut()?;
        if *slot.crcs != *extent.crcs || slot.tail != extent.tail {
            return None;
        }
        slot.referenced = true;
        Some(slot.blocks.clone())
    }

    /// Takes in whole blocks that were read and verified, if they were often enough.
    pub(crate) fn offer(&mut self, extent: &DeviceExtent, blocks: &Bytes) {
        let place = extent.addr.0;
        let seen = &mut self.seen[place as usize % SEEN_PLACES];
        if *seen / 4 != place {
            *seen = place * 4;
        }
        if *seen % 4 + 1 < READS_TO_CACHE {
            *seen += 1;
            return;
        }
        self.offered += 1;
        let grows = self.bytes + blocks.len() < self.bytes_max;
        if !grows || self.offered % GROW_EVERY == 1 {
            self.insert(place, blocks.clone(), &extent.crcs, extent.tail);
        }
    }

    fn insert(&mut self, addr: u64, blocks: Bytes, crcs: &[u32], tail: u16) {
        debug_assert_eq!(blocks.len() as u64, crcs.len() as u64 * BLOCK_SIZE);
        self.remove(addr);
        let slot = Slot { addr, blocks, crcs: crcs.into(), tail, referenced: false };
        let cost = slot.cost();
        if cost > self.bytes_max {
            return;
        }
        while self.bytes + cost > self.bytes_max {
            self.turn();
        }
        self.bytes += cost;
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = Some(slot);
                index
            }
            None => {
                self.slots.push(Some(slot));
                self.slots.len() as u32 - 1
            }
        };
        self.by_addr.insert(addr, index);
    }

    /// Sets the bound.
    pub(crate) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        while self.bytes > bytes_max {
            self.turn();
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Cache::new(self.bytes_max);
    }

    /// Moves the hand by one: drops the entry there unless it was used.
    fn turn(&mut self) {
        self.hand = (self.hand + 1) % self.slots.len();
        let Some(slot) = &mut self.slots[self.hand] else {
            return;
        };
        if !std::mem::replace(&mut slot.referenced, false) {
            let addr = slot.addr;
            self.remove(addr);
        }
    }

    fn remove(&mut self, addr: u64) {
        let Some(index) = self.by_addr.remove(&addr) else {
            return;
        };
        if let Some(slot) = self.slots[index as usize].take() {
            self.bytes -= slot.cost();
        }
        self.free.push(index);
    }
}

#[cfg(test)]
mod tests {
    use spirula_vos::BlockAddr;

    use super::*;

    fn extent(addr: u64, crcs: &[u32]) -> DeviceExtent {
        let len = (crcs.len() as u64 * BLOCK_SIZE) as u32;
        let (addr, tail) = (BlockAddr(addr), BLOCK_SIZE as u16);
        DeviceExtent { offset: 0, addr, skip: 0, len, tail, crcs: crcs.into() }
    }

    fn insert(cache: &mut Cache, addr: u64, crc: u32) {
        cache.insert(addr, Bytes::from(vec![crc as u8; 4096]), &[crc], 4096);
    }

    #[test]
    fn only_the_same_checksums_answer() {
        let mut cache = Cache::new(1 << 20);
        insert(&mut cache, 7, 1);
        assert_eq!(cache.get(&extent(7, &[1])).unwrap()[0], 1);
        assert!(cache.get(&extent(7, &[2])).is_none(), "the block was written again");
        assert!(cache.get(&extent(7, &[1, 1])).is_none(), "more than what is here");
        assert!(cache.get(&DeviceExtent { tail: 9, ..extent(7, &[1]) }).is_none());
        insert(&mut cache, 7, 2);
        assert!(cache.get(&extent(7, &[1])).is_none());
        assert!(cache.get(&extent(7, &[2])).is_some());
    }

    #[test]
    fn what_is_read_often_is_kept() {
        let mut cache = Cache::new(1 << 20);
        let (first, blocks) = (extent(7, &[1]), Bytes::from(vec![0; 4096]));
        for _ in 1..READS_TO_CACHE {
            cache.offer(&first, &blocks);
            assert!(cache.get(&first).is_none());
        }
        cache.offer(&first, &blocks);
        assert!(cache.get(&first).is_some());
        let other = extent(7 + SEEN_PLACES as u64, &[1]);
        cache.offer(&other, &blocks);
        assert!(cache.get(&other).is_none());
    }

    #[test]
    fn it_grows_slowly_and_then_takes_all() {
        let mut cache = Cache::new(100 * (4096 + ENTRY_BYTES));
        let blocks = Bytes::from(vec![0; 4096]);
        let mut offer = |addr| {
            (0..READS_TO_CACHE).for_each(|_| cache.offer(&extent(addr, &[1]), &blocks));
            (cache.get(&extent(addr, &[1])).is_some(), cache.by_addr.len())
        };
        let taken = (0..80 * GROW_EVERY).filter(|&addr| offer(addr).0).count();
        assert_eq!(taken, 80);
        let grown = (1000..1000 + 100 * GROW_EVERY).map(&mut offer).last();
        assert_eq!(grown.map(|(_, entries)| entries), Some(100));
        assert!((5000..5050).all(|addr| offer(addr) == (true, 100)), "in the place of others");
    }

    #[test]
    fn the_bound_holds_and_used_entries_stay() {
        let mut cache = Cache::new(10 * (4096 + ENTRY_BYTES));
        for addr in 0..1000 {
            insert(&mut cache, addr, addr as u32);
            assert!(cache.get(&extent(0, &[0])).is_some(), "used all the time, at {addr}");
            assert!(cache.bytes <= cache.bytes_max);
        }
        let here = cache.slots.iter().flatten().count();
        assert_eq!((here, cache.by_addr.len(), cache.slots.len()), (10, 10, 10));
        cache.insert(5000, Bytes::from(vec![0; 1 << 20]), &[0; 256], 4096);
        assert_eq!(cache.by_addr.len(), 10, "too large for the cache");
        cache.set_bytes_max(3 * (4096 + ENTRY_BYTES));
        assert_eq!(cache.by_addr.len(), 3);
        cache.clear();
        assert_eq!(cache.bytes, 0);
    }
}
