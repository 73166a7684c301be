//! One metadata page: a header, a directory of slots growing up, cells growing down.
//!
//! Leaves hold key -> value, interior pages key -> child page, overflow pages a piece of one large
//! value. Map, directory and space pages share the header (their bodies are in `checkpoint.rs`).
//! Invariant: a [`Page`] was either built here or passed [`Page::decode`], which checks every slot,
//! so that accessors need no further bounds errors.

use std::cmp::Ordering;

use crate::types::{PAGE_SIZE, PageId};

/// Bytes before the body of every page.
pub(crate) const HEADER_LEN: usize = 32;
/// Largest cell: three always fit a page, so that a split always makes room.
pub(crate) const CELL_LEN_MAX: usize = (PAGE_SIZE - HEADER_LEN) / 3 - SLOT_LEN;
/// Bytes of value in one overflow page.
pub(crate) const OVERFLOW_LEN: usize = PAGE_SIZE - HEADER_LEN;

const MAGIC: u16 = 0x5350;
const FORMAT: u8 = 1;
const SLOT_LEN: usize = 2;
const LEAF_CELL_HEADER: usize = 4;
const INTERIOR_CELL_HEADER: usize = 10;
const OVERFLOW_FLAG: u16 = 0x8000;
const OVERFLOW_REF_LEN: usize = 12;

/// What a page is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageKind {
    Leaf = 1,
    Interior = 2,
    Overflow = 3,
    Map = 4,
    Directory = 5,
    Space = 6,
}

impl PageKind {
    fn of(byte: u8) -> Option<PageKind> {
        Some(match byte {
            1 => PageKind::Leaf,
            2 => PageKind::Interior,
            3 => PageKind::Overflow,
            4 => PageKind::Map,
            5 => PageKind::Directory,
            6 => PageKind::Space,
            _ => return None,
        })
    }
}

/// A value as a leaf holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CellValue<'a> {
    Inline(&'a [u8]),
    /// `len` bytes in overflow pages `first`, `first + 1`, ...
    Overflow {
        len: u32,
        first: PageId,
    },
}

impl CellValue<'_> {
    /// Ids of the overflow pages.
    pub(crate) fn overflow_pages(&self) -> std::ops::Range<u64> {
        match *self {
            CellValue::Inline(_) => 0..0,
            CellValue::Overflow { len, first } => {
                first.0..first.0.saturating_add((len as usize).div_ceil(OVERFLOW_LEN) as u64)
            }
        }
    }
}

/// Bytes a leaf entry takes in a page, without its slot.
pub(crate) fn leaf_cell_len(key_len: usize, value: CellValue<'_>) -> usize {
    LEAF_CELL_HEADER
        + key_len
        + match value {
            CellValue::Inline(v) => v.len(),
            CellValue::Overflow { .. } => OVERFLOW_REF_LEN,
        }
}

/// A page in memory, without a pointer to it: who keeps it says where it lies.
#[derive(Clone)]
pub(crate) struct Page {
    buf: [u8; PAGE_SIZE],
}

impl Page {
    pub(crate) fn new(kind: PageKind) -> Page {
        let mut page = Page { buf: [0; PAGE_SIZE] };
        page.put_u16(4, MAGIC);
        page.buf[6] = kind as u8;
        page.buf[7] = FORMAT;
        page.put_u16(26, PAGE_SIZE as u16);
        page
    }

    /// Checks the bytes read from the device for page `id`.
    pub(crate) fn decode(bytes: &[u8], id: PageId) -> Option<Page> {
        let page = Page { buf: bytes.try_into().ok()? };
        let sound = page.u32(0) == crc32c::crc32c(&page.buf[4..])
            && page.u16(4) == MAGIC
            && page.buf[7] == FORMAT
            && page.u64(8) == id.0
            && page.body_is_sound()?;
        sound.then_some(page)
    }

    /// Copies the page to `out` as it goes to the device.
    pub(crate) fn seal(&self, id: PageId, checkpoint: u64, out: &mut [u8]) {
        out.copy_from_slice(&self.buf[..]);
        out[8..16].copy_from_slice(&id.0.to_le_bytes());
        out[16..24].copy_from_slice(&checkpoint.to_le_bytes());
        let crc = crc32c::crc32c(&out[4..]);
        out[0..4].copy_from_slice(&crc.to_le_bytes());
    }

    pub(crate) fn kind(&self) -> Option<PageKind> {
        PageKind::of(self.buf[6])
    }

    pub(crate) fn is_leaf(&self) -> bool {
        self.buf[6] == PageKind::Leaf as u8
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.buf[HEADER_LEN..]
    }

    pub(crate) fn body_mut(&mut self) -> &mut [u8] {
        &mut self.buf[HEADER_LEN..]
    }

    /// Entries of a leaf or interior page; bytes of an overflow page.
    pub(crate) fn count(&self) -> usize {
        self.u16(24) as usize
    }

    pub(crate) fn set_count(&mut self, n: usize) {
        self.put_u16(24, n as u16);
    }

    pub(crate) fn key(&self, i: usize) -> &[u8] {
        let at = self.slot(i);
        let len = self.u16(at) as usize;
        let start = at + self.cell_header();
        &self.buf[start..start + len]
    }

    /// Value of a leaf entry.
    pub(crate) fn value(&self, i: usize) -> CellValue<'_> {
        let at = self.slot(i);
        let key_len = self.u16(at) as usize;
        let word = self.u16(at + 2);
        let start = at + LEAF_CELL_HEADER + key_len;
        if word & OVERFLOW_FLAG != 0 {
            return CellValue::Overflow {
                len: self.u32(start),
                first: PageId(self.u64(start + 4)),
            };
        }
        CellValue::Inline(&self.buf[start..start + word as usize])
    }

    /// Child of an interior entry.
    pub(crate) fn child(&self, i: usize) -> PageId {
        PageId(self.u64(self.slot(i) + 2))
    }

    /// First entry at or after `key`: `Ok` if it is equal.
    pub(crate) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut lo, mut hi) = (0, self.count());
        while lo < hi {
            let mid = (lo + hi) / 2;
            match self.key(mid).cmp(key) {
                Ordering::Less => lo = mid + 1,
                Ordering::Greater => hi = mid,
                Ordering::Equal => return Ok(mid),
            }
        }
        Err(lo)
    }

    /// Entry of an interior page whose subtree may hold `key`.
    pub(crate) fn child_index(&self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(i) => i,
            Err(i) => i.saturating_sub(1),
        }
    }

    /// Bytes in use by slots and cells.
    pub(crate) fn used(&self) -> usize {
        self.count() * SLOT_LEN + self.live()
    }

    /// Bytes that slots and cells may use.
    pub(crate) const fn capacity() -> usize {
        PAGE_SIZE - HEADER_LEN
    }

    /// Whether a cell of `len` bytes fits.
    pub(crate) fn fits(&self, len: usize) -> bool {
        self.used() + SLOT_LEN + len <= Page::capacity()
    }

    /// Puts an entry before entry `i` of a leaf; false when it does not fit.
    pub(crate) fn insert_leaf(&mut self, i: usize, key: &[u8], value: CellValue<'_>) -> bool {
        let len = leaf_cell_len(key.len(), value);
        let Some(at) = self.make_cell(i, len) else {
            return false;
        };
        self.put_u16(at, key.len() as u16);
        let start = at + LEAF_CELL_HEADER;
        self.buf[start..start + key.len()].copy_from_slice(key);
        let start = start + key.len();
        match value {
            CellValue::Inline(v) => {
                self.put_u16(at + 2, v.len() as u16);
                self.buf[start..start + v.len()].copy_from_slice(v);
            }
            CellValue::Overflow { len, first } => {
                self.put_u16(at + 2, OVERFLOW_FLAG | OVERFLOW_REF_LEN as u16);
                self.buf[start..start + 4].copy_from_slice(&len.to_le_bytes());
                self.buf[start + 4..start + 12].copy_from_slice(&first.0.to_le_bytes());
            }
        }
        true
    }

    /// Whether the value of entry `i` is inline and has this length.
    pub(crate) fn can_overwrite(&self, i: usize, value: &[u8]) -> bool {
        self.u16(self.slot(i) + 2) as usize == value.len()
    }

    /// Overwrites the value of entry `i`, whose length is the same, where it lies.
    pub(crate) fn overwrite_leaf(&mut self, i: usize, value: &[u8]) {
        debug_assert!(self.can_overwrite(i, value));
        let at = self.slot(i);
        let start = at + LEAF_CELL_HEADER + self.u16(at) as usize;
        self.buf[start..start + value.len()].copy_from_slice(value);
    }

    /// The bytes of the value of entry `i`, inline or the reference to overflow pages.
    pub(crate) fn value_bytes(&self, i: usize) -> &[u8] {
        let at = self.slot(i);
        &self.buf[at + LEAF_CELL_HEADER + self.u16(at) as usize..at + self.cell_len(at)]
    }

    /// Entry `i` as it lies in the page.
    pub(crate) fn cell(&self, i: usize) -> &[u8] {
        let at = self.slot(i);
        &self.buf[at..at + self.cell_len(at)]
    }

    /// Puts an entry that [`Page::cell`] gave before entry `i`; false when it does not fit.
    pub(crate) fn insert_cell(&mut self, i: usize, cell: &[u8]) -> bool {
        let Some(at) = self.make_cell(i, cell.len()) else {
            return false;
        };
        self.buf[at..at + cell.len()].copy_from_slice(cell);
        true
    }

    /// Puts an entry before entry `i` of an interior page; false when it does not fit.
    pub(crate) fn insert_interior(&mut self, i: usize, key: &[u8], child: PageId) -> bool {
        let Some(at) = self.make_cell(i, INTERIOR_CELL_HEADER + key.len()) else {
            return false;
        };
        self.put_u16(at, key.len() as u16);
        self.buf[at + 2..at + 10].copy_from_slice(&child.0.to_le_bytes());
        let start = at + INTERIOR_CELL_HEADER;
        self.buf[start..start + key.len()].copy_from_slice(key);
        true
    }

    /// Removes entry `i`.
    pub(crate) fn remove(&mut self, i: usize) {
        let n = self.count();
        let len = self.cell_len(self.slot(i));
        let start = HEADER_LEN + i * SLOT_LEN;
        self.buf.copy_within(start + SLOT_LEN..HEADER_LEN + n * SLOT_LEN, start);
        self.set_count(n - 1);
        self.put_u16(28, (self.live() - len) as u16);
    }

    /// Moves the entries from `from` on to the end of `to`.
    pub(crate) fn move_tail(&mut self, from: usize, to: &mut Page) -> bool {
        for i in from..self.count() {
            let at = self.slot(i);
            let len = self.cell_len(at);
            let n = to.count();
            let Some(dst) = to.make_cell(n, len) else {
                return false;
            };
            to.buf[dst..dst + len].copy_from_slice(&self.buf[at..at + len]);
        }
        while self.count() > from {
            self.remove(self.count() - 1);
        }
        true
    }

    /// Bytes of entry `i`, with its slot.
    pub(crate) fn entry_len(&self, i: usize) -> usize {
        SLOT_LEN + self.cell_len(self.slot(i))
    }

    fn slot(&self, i: usize) -> usize {
        self.u16(HEADER_LEN + i * SLOT_LEN) as usize
    }

    fn live(&self) -> usize {
        self.u16(28) as usize
    }

    fn cell_header(&self) -> usize {
        if self.is_leaf() { LEAF_CELL_HEADER } else { INTERIOR_CELL_HEADER }
    }

    fn cell_len(&self, at: usize) -> usize {
        let key_len = self.u16(at) as usize;
        if self.is_leaf() {
            LEAF_CELL_HEADER + key_len + (self.u16(at + 2) & !OVERFLOW_FLAG) as usize
        } else {
            INTERIOR_CELL_HEADER + key_len
        }
    }

    /// Room for a cell of `len` bytes with slot `i` pointing at it.
    fn make_cell(&mut self, i: usize, len: usize) -> Option<usize> {
        if !self.fits(len) {
            return None;
        }
        let n = self.count();
        let slots_end = HEADER_LEN + (n + 1) * SLOT_LEN;
        if (self.u16(26) as usize) < slots_end + len {
            self.compact();
        }
        let at = self.u16(26) as usize - len;
        self.put_u16(26, at as u16);
        let start = HEADER_LEN + i * SLOT_LEN;
        self.buf.copy_within(start..HEADER_LEN + n * SLOT_LEN, start + SLOT_LEN);
        self.put_u16(start, at as u16);
        self.set_count(n + 1);
        self.put_u16(28, (self.live() + len) as u16);
        Some(at)
    }

    /// Pushes all cells to the end of the page.
    fn compact(&mut self) {
        let old = self.clone();
        let mut at = PAGE_SIZE;
        for i in 0..self.count() {
            let from = old.slot(i);
            let len = old.cell_len(from);
            at -= len;
            self.buf[at..at + len].copy_from_slice(&old.buf[from..from + len]);
            self.put_u16(HEADER_LEN + i * SLOT_LEN, at as u16);
        }
        self.put_u16(26, at as u16);
    }

    /// `None` or false when the body is not that of a sound page.
    fn body_is_sound(&self) -> Option<bool> {
        match PageKind::of(self.buf[6])? {
            PageKind::Leaf | PageKind::Interior => self.cells_are_sound(),
            PageKind::Overflow => Some(self.count() <= OVERFLOW_LEN),
            PageKind::Map | PageKind::Directory | PageKind::Space => Some(true),
        }
    }

    fn cells_are_sound(&self) -> Option<bool> {
        let n = self.count();
        let heap = self.u16(26) as usize;
        if heap > PAGE_SIZE || HEADER_LEN + n * SLOT_LEN > heap || (n == 0 && !self.is_leaf()) {
            return None;
        }
        let (mut live, mut last): (usize, Option<&[u8]>) = (0, None);
        for i in 0..n {
            let at = self.slot(i);
            if at < heap || at + self.cell_header() > PAGE_SIZE {
                return None;
            }
            let len = self.cell_len(at);
            let value_len = if self.is_leaf() { self.u16(at + 2) } else { 0 };
            let bad_ref = value_len & OVERFLOW_FLAG != 0
                && value_len != OVERFLOW_FLAG | OVERFLOW_REF_LEN as u16;
            if at + len > PAGE_SIZE || len > CELL_LEN_MAX || bad_ref {
                return None;
            }
            let key = self.key(i);
            if last.is_some_and(|l| l >= key) {
                return None;
            }
            (live, last) = (live + len, Some(key));
        }
        Some(live == self.live() && heap + live <= PAGE_SIZE)
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.buf[at], self.buf[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        let mut b = [0; 4];
        b.copy_from_slice(&self.buf[at..at + 4]);
        u32::from_le_bytes(b)
    }

    fn u64(&self, at: usize) -> u64 {
        let mut b = [0; 8];
        b.copy_from_slice(&self.buf[at..at + 8]);
        u64::from_le_bytes(b)
    }

    fn put_u16(&mut self, at: usize, v: u16) {
        self.buf[at..at + 2].copy_from_slice(&v.to_le_bytes());
    }
}

/// Decodes `data` as a page with its checksum and id put right, and uses it.
pub(crate) fn fuzz(data: &[u8]) {
    let mut bytes = data.to_vec();
    bytes.resize(PAGE_SIZE, 0);
    bytes[4..6].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[7] = FORMAT;
    bytes[8..16].copy_from_slice(&7u64.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[0..4].copy_from_slice(&crc.to_le_bytes());
    let Some(mut page) = Page::decode(&bytes, PageId(7)) else {
        return;
    };
    if !matches!(page.kind(), Some(PageKind::Leaf | PageKind::Interior)) {
        return;
    }
    for i in 0..page.count() {
        let key = page.key(i).to_vec();
        let _ = page.search(&key);
        if page.is_leaf() {
            let _ = page.value(i);
        } else {
            let _ = page.child(i);
        }
    }
    let mut other = Page::new(if page.is_leaf() { PageKind::Leaf } else { PageKind::Interior });
    page.move_tail(page.count() / 2, &mut other);
    if page.is_leaf() {
        page.insert_leaf(0, b"", CellValue::Inline(&[0; 2000]));
    }
    while page.count() > 0 {
        page.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_compacts_and_survives_a_round_trip() {
        let mut page = Page::new(PageKind::Leaf);
        let mut n = 0u32;
        while page.fits(leaf_cell_len(4, CellValue::Inline(&[7; 60]))) {
            let at = page.search(&n.to_be_bytes()).unwrap_err();
            assert!(page.insert_leaf(at, &n.to_be_bytes(), CellValue::Inline(&[7; 60])));
            n += 1;
        }
        for k in (0..n).step_by(2) {
            let at = page.search(&k.to_be_bytes()).unwrap();
            page.remove(at);
        }
        assert!(page.insert_leaf(0, b"\0", CellValue::Inline(&[1; 2000])));
        let mut out = vec![0; PAGE_SIZE];
        page.seal(PageId(9), 3, &mut out);
        let back = Page::decode(&out, PageId(9)).unwrap();
        assert_eq!(back.value(0), CellValue::Inline(&[1; 2000]));
        assert_eq!(back.count(), (n / 2) as usize + 1);
        assert!(Page::decode(&out, PageId(8)).is_none());
        out[5000] ^= 1;
        assert!(Page::decode(&out, PageId(9)).is_none());
    }
}
