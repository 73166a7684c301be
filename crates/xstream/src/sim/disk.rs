//! Simulated disks that lose power.
//!
//! Fault model. A disk holds what programs see (the *live* image) and what would survive now (the
//! *durable* image). Between the two stand the unflushed writes.
//! - A write reaches the live image when it completes; writes in flight together complete in any
//!   order. A read sees the live image of the moment it completes.
//! - `datasync` makes durable exactly the writes that had completed when it was *issued*. A write
//!   in flight at that time stays unflushed, even if it completes before the flush does.
//! - **Power loss**: each unflushed write, completed or in flight, is independently kept, lost, or
//!   torn: a prefix, a suffix or any subset of its 512-byte sectors survives. A later write may thus
//!   survive an earlier one. How much survives differs from crash to crash, from nothing to
//!   everything. A sector itself is never torn. Growth of a file that was not flushed may be lost
//!   with all that lies in it.
//! - **Process kill**: completed writes stay live and unflushed (they are in the device's cache);
//!   each write in flight happens in full or not at all, then and there.
//! - Names of files are durable at once, and a disk survives its host.
//! - On demand: damaged sectors ([`super::SimDisk::corrupt`]), I/O that fails from a moment on
//!   ([`super::SimDisk::fail_after`]), after which the disk keeps what it has, a device that does not
//!   give space back ([`super::SimDisk::refuse_punches`]), slow operations
//!   ([`super::SimDisk::set_config`]), and an empty disk in its place ([`super::SimDisk::replace`]).
//!
//! What is not modelled: a device that lies about flushes, or writes that land elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::rng::Rng;
use crate::buf::BLOCK;
use crate::driver::{Allocate, Gather, Op};

/// What a device writes atomically.
pub(super) const SECTOR: usize = 512;

/// Times a simulated disk takes.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    pub read: Range<Duration>,
    pub write: Range<Duration>,
    pub datasync: Range<Duration>,
}

impl Default for DiskConfig {
    fn default() -> DiskConfig {
        let micros = Duration::from_micros;
        DiskConfig {
            read: micros(40)..micros(200),
            write: micros(15)..micros(150),
            datasync: micros(100)..micros(500),
        }
    }
}

/// One disk (or file: there is no difference here).
pub(super) struct Disk {
    live: Image,
    durable: Image,
    unflushed: Vec<Unflushed>,
    next_ticket: u64,
    /// Operations until all fail.
    fail_after: Option<u64>,
    /// The error with which ranges are not given back, and how often that was tried.
    refuse_punches: Option<io::ErrorKind>,
    refused: u64,
    pub(super) locked: bool,
    pub(super) config: DiskConfig,
}

/// Names a write in flight, or the flush of what had completed at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

struct Unflushed {
    ticket: Ticket,
    change: Change,
    completed: bool,
}

/// A change of a range.
#[derive(Clone)]
struct Change {
    offset: u64,
    len: u64,
    /// Absent: zeros.
    data: Option<Bytes>,
    /// Whether a file that ends before grows.
    extends: bool,
}

impl Disk {
    pub(super) fn new(size: u64) -> Disk {
        Disk {
            live: Image::new(size),
            durable: Image::new(size),
            unflushed: Vec::new(),
            next_ticket: 0,
            fail_after: None,
            refuse_punches: None,
            refused: 0,
            locked: false,
            config: DiskConfig::default(),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.live.len
    }

    /// Counts one operation; an error if the disk has failed, or cannot do that.
    pub(super) fn admit(&mut self, op: &Op) -> io::Result<()> {
        if let (Some(kind), Op::Allocate { kind: Allocate::PunchHole, .. }) =
            (self.refuse_punches, op)
        {
            self.refused += 1;
            return Err(kind.into());
        }
        match &mut self.fail_after {
            None => Ok(()),
            Some(0) => Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    pub(super) fn begin_write(&mut self, offset: u64, mut bufs: Gather) -> Ticket {
        let mut data = BytesMut::with_capacity(bufs.remaining());
        while let Some(piece) = bufs.take_piece(usize::MAX) {
            data.extend_from_slice(&piece);
        }
        let len = data.len() as u64;
        self.begin(Change { offset, len, data: Some(data.freeze()), extends: true })
    }

    pub(super) fn begin_punch(&mut self, offset: u64, len: u64) -> Ticket {
        self.begin(Change { offset, len, data: None, extends: false })
    }

    /// Reserving space only ever grows the file.
    pub(super) fn begin_reserve(&mut self, offset: u64, len: u64) -> Ticket {
        let grown = (offset + len).max(self.live.len);
        let data = Some(Bytes::new());
        self.begin(Change { offset: grown, len: 0, data, extends: true })
    }

    fn begin(&mut self, change: Change) -> Ticket {
        let ticket = self.issue();
        self.unflushed.push(Unflushed { ticket, change, completed: false });
        ticket
    }

    fn issue(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// The write becomes visible, and last in line.
    pub(super) fn complete_write(&mut self, ticket: Ticket) {
        let Some(index) = self.unflushed.iter().position(|write| write.ticket == ticket) else {
            return;
        };
        let mut write = self.unflushed.remove(index);
        self.live.apply(&write.change, |_| true);
        write.completed = true;
        self.unflushed.push(write);
    }

    /// Remembers what has completed by now.
    pub(super) fn begin_datasync(&self) -> Vec<Ticket> {
        let completed = self.unflushed.iter().filter(|write| write.completed);
        completed.map(|write| write.ticket).collect()
    }

    /// Makes durable what `begin_datasync` remembered.
    pub(super) fn complete_datasync(&mut self, tickets: &[Ticket]) {
        let mut tickets = tickets.to_vec();
        tickets.sort_unstable();
        let durable = &mut self.durable;
        self.unflushed.retain(|write| {
            let flushed = tickets.binary_search(&write.ticket).is_ok();
            if flushed {
                durable.apply(&write.change, |_| true);
            }
            !flushed
        });
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        self.live.read(offset, out)
    }

    /// The process is gone; what it had in flight happened or did not.
    pub(super) fn on_kill(&mut self, rng: &mut Rng) {
        let in_flight: Vec<Ticket> =
            self.unflushed.iter().filter(|write| !write.completed).map(|w| w.ticket).collect();
        for ticket in in_flight {
            if rng.coin() {
                self.complete_write(ticket);
            } else {
                self.unflushed.retain(|write| write.ticket != ticket);
            }
        }
        self.locked = false;
    }

    /// The power is gone.
    pub(super) fn on_power_loss(&mut self, rng: &mut Rng) {
        let lost_share = rng.below(5);
        let mut in_flight: Vec<Unflushed> = Vec::new();
        let mut survivors = std::mem::take(&mut self.unflushed);
        while let Some(index) = survivors.iter().position(|write| !write.completed) {
            in_flight.push(survivors.remove(index));
        }
        // Writes in flight together with others have no order among them.
        for write in in_flight {
            let place = rng.below(survivors.len() as u64 + 1) as usize;
            survivors.insert(place, write);
        }
        let len_before = self.durable.len;
        for write in survivors {
            survive(&mut self.durable, &write.change, lost_share, rng);
        }
        if self.durable.len > len_before && rng.coin() {
            self.durable.truncate(len_before);
        }
        self.live = self.durable.clone();
        self.locked = false;
    }

    pub(super) fn unflushed(&self) -> usize {
        self.unflushed.len()
    }

    pub(super) fn refuse_punches(&mut self, error: Option<io::ErrorKind>) {
        self.refuse_punches = error;
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn fail_after(&mut self, operations: Option<u64>) {
        self.fail_after = operations;
    }

    /// Damages one random bit in each sector of the range, for good.
    pub(super) fn corrupt(&mut self, offset: u64, len: u64, rng: &mut Rng) {
        let mut at = offset;
        while at < offset + len {
            let room = (SECTOR as u64).min(offset + len - at);
            let (byte, bit) = (at + rng.below(room), rng.below(8));
            self.live.flip(byte, 1 << bit);
            self.durable.flip(byte, 1 << bit);
            at += room;
        }
    }
}

/// Lets all, nothing or some sectors of an unflushed change reach the durable image.
fn survive(durable: &mut Image, change: &Change, lost_share: u64, rng: &mut Rng) {
    // `lost_share` 0 keeps everything, 4 keeps nothing, between them all fates occur.
    let fate = match lost_share {
        0 => Fate::Kept,
        4 => Fate::Lost,
        share => match rng.below(4) {
            torn if torn == share => Fate::Torn,
            low if low < share => Fate::Lost,
            _ => Fate::Kept,
        },
    };
    let first = change.offset / SECTOR as u64;
    let count = (change.offset + change.len).div_ceil(SECTOR as u64).saturating_sub(first);
    match fate {
        Fate::Lost => {}
        Fate::Kept => durable.apply(change, |_| true),
        Fate::Torn => {
            let cut = first + rng.below(count + 1);
            match rng.below(3) {
                0 => durable.apply(change, |sector| sector < cut),
                1 => durable.apply(change, |sector| sector >= cut),
                _ => durable.apply(change, |_| rng.coin()),
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

/// A sparse array of blocks.
#[derive(Clone)]
struct Image {
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
    len: u64,
}

impl Image {
    fn new(len: u64) -> Image {
        Image { blocks: BTreeMap::new(), len }
    }

    /// Applies the sectors of `change` that `keep` accepts, by their number on the disk.
    fn apply(&mut self, change: &Change, mut keep: impl FnMut(u64) -> bool) {
        let end = change.offset + change.len;
        let mut at = change.offset;
        let mut reached = if change.len == 0 { end } else { 0 };
        while at < end {
            let sector = at / SECTOR as u64;
            let next = ((sector + 1) * SECTOR as u64).min(end);
            if keep(sector) {
                let data = change.data.as_ref().map(|data| {
                    &data[(at - change.offset) as usize..(next - change.offset) as usize]
                });
                self.write_within_block(at, (next - at) as usize, data);
                reached = next;
            }
            at = next;
        }
        if change.extends {
            self.len = self.len.max(reached);
        }
    }

    fn write_within_block(&mut self, at: u64, len: usize, data: Option<&[u8]>) {
        let (number, from) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
        match data {
            Some(data) => {
                let block = self.blocks.entry(number).or_insert_with(|| Box::new([0; BLOCK]));
                block[from..from + len].copy_from_slice(data);
            }
            None => {
                if let Some(block) = self.blocks.get_mut(&number) {
                    block[from..from + len].fill(0);
                }
            }
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let len = (out.len() as u64).min(self.len.saturating_sub(offset)) as usize;
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let from = (at % BLOCK as u64) as usize;
            let step = (BLOCK - from).min(len - done);
            match self.blocks.get(&(at / BLOCK as u64)) {
                Some(block) => out[done..done + step].copy_from_slice(&block[from..from + step]),
                None => out[done..done + step].fill(0),
            }
            done += step;
        }
        len
    }

    fn flip(&mut self, at: u64, mask: u8) {
        let block = self.blocks.entry(at / BLOCK as u64).or_insert_with(|| Box::new([0; BLOCK]));
        block[(at % BLOCK as u64) as usize] ^= mask;
    }

    fn truncate(&mut self, len: u64) {
        self.len = len;
        let kept = len.div_ceil(BLOCK as u64);
        self.blocks.retain(|number, _| *number < kept);
        let tail = (len % BLOCK as u64) as usize;
        if tail > 0
            && let Some(block) = self.blocks.get_mut(&(len / BLOCK as u64))
        {
            block[tail..].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(byte: u8, len: usize) -> Gather {
        Gather::new(vec![Bytes::from(vec![byte; len])])
    }

    fn write(disk: &mut Disk, offset: u64, byte: u8, len: usize) {
        let ticket = disk.begin_write(offset, gather(byte, len));
        disk.complete_write(ticket);
    }

    fn flush(disk: &mut Disk) {
        let tickets = disk.begin_datasync();
        disk.complete_datasync(&tickets);
    }

    fn bytes(disk: &Disk, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        assert_eq!(disk.read(offset, &mut out), len);
        out
    }

    #[test]
    fn flushed_writes_survive_and_others_meet_every_fate() {
        let (mut kept, mut lost, mut torn, mut overtook) = (0, 0, 0, 0);
        for seed in 0..400 {
            let mut disk = Disk::new(1 << 20);
            write(&mut disk, 0, 1, 4096);
            flush(&mut disk);
            write(&mut disk, 4096, 2, 4096);
            write(&mut disk, 8192, 3, 4096);
            disk.on_power_loss(&mut Rng::new(seed));
            assert!(bytes(&disk, 0, 4096).iter().all(|byte| *byte == 1));
            let first = bytes(&disk, 4096, 4096);
            let second = bytes(&disk, 8192, 4096);
            let sectors = first.chunks(SECTOR).filter(|sector| sector[0] == 2).count();
            assert!(first.chunks(SECTOR).all(|sector| sector.iter().all(|b| *b == sector[0])));
            kept += usize::from(sectors == 8);
            lost += usize::from(sectors == 0);
            torn += usize::from(sectors != 0 && sectors != 8);
            overtook += usize::from(sectors == 0 && second.iter().all(|byte| *byte == 3));
        }
        assert!(kept > 20 && lost > 20 && torn > 20 && overtook > 5, "{kept} {lost} {torn}");
    }

    #[test]
    fn a_flush_covers_only_what_had_completed_when_issued() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut disk = Disk::new(1 << 20);
            let before = disk.begin_write(0, gather(1, 512));
            let during = disk.begin_write(512, gather(2, 512));
            disk.complete_write(before);
            let tickets = disk.begin_datasync();
            disk.complete_write(during);
            disk.complete_datasync(&tickets);
            assert_eq!(disk.unflushed(), 1);
            disk.on_power_loss(&mut Rng::new(seed));
            assert_eq!(bytes(&disk, 0, 1), [1]);
            lost += usize::from(bytes(&disk, 512, 1) == [0]);
        }
        assert!(lost > 10);
    }

    #[test]
    fn a_kill_keeps_completed_writes_but_does_not_flush_them() {
        let mut disk = Disk::new(1 << 20);
        write(&mut disk, 0, 1, 4096);
        disk.on_kill(&mut Rng::new(1));
        assert_eq!(bytes(&disk, 0, 1), [1]);
        assert_eq!(disk.unflushed(), 1);
    }

    #[test]
    fn a_file_grows_and_may_shrink_with_the_power() {
        let mut lens = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut disk = Disk::new(0);
            write(&mut disk, 0, 1, 1000);
            flush(&mut disk);
            write(&mut disk, 1000, 2, 5000);
            assert_eq!(disk.len(), 6000);
            disk.on_power_loss(&mut Rng::new(seed));
            lens.insert(disk.len());
        }
        assert!(lens.contains(&1000) && lens.contains(&6000), "{lens:?}");
    }

    #[test]
    fn punched_ranges_read_as_zeros() {
        let mut disk = Disk::new(1 << 20);
        write(&mut disk, 0, 9, 8192);
        let ticket = disk.begin_punch(100, 5000);
        disk.complete_write(ticket);
        let all = bytes(&disk, 0, 8192);
        assert!(all[..100].iter().all(|byte| *byte == 9));
        assert!(all[100..5100].iter().all(|byte| *byte == 0));
        assert!(all[5100..].iter().all(|byte| *byte == 9));
    }
}
