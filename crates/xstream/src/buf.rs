//! Page-aligned buffers, pooled per thread.
//!
//! Memory is known to be initialised up to a mark that only rises, also while it is in the pool: what
//! I/O fills needs no zeroing, and a length beyond the mark zeroes up to it first. A buffer goes back to the pool of the thread that allocated it, from
//! whichever thread drops it: at home to a plain list, from elsewhere to a locked one that the
//! home empties when its own list is. Both are bounded; beyond the bound memory is freed.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::limits::{
    POOL_BUFFER_BYTES_MAX, POOL_LOCAL_BYTES_MAX, POOL_REMOTE_BYTES_MAX, POOL_SLAB_BYTES,
};

/// Alignment and granularity of buffers: what any device accepts for direct I/O.
pub const BLOCK: usize = 4096;

/// Whether `data` begins on a block boundary and is a whole number of blocks long.
pub fn is_aligned(data: &[u8]) -> bool {
    data.as_ptr().addr().is_multiple_of(BLOCK) && data.len().is_multiple_of(BLOCK)
}

/// An owned buffer whose memory begins on a 4 KiB boundary.
pub struct AlignedBuf {
    memory: Memory,
    len: usize,
    home: Option<Arc<Remote>>,
}

impl AlignedBuf {
    /// An empty buffer with room for at least `capacity` bytes (rounded up to whole blocks).
    pub fn with_capacity(capacity: usize) -> AlignedBuf {
        assert!(capacity <= isize::MAX as usize / 2, "buffer capacity out of range");
        let capacity = capacity.max(1).next_multiple_of(BLOCK);
        if capacity > POOL_BUFFER_BYTES_MAX {
            return AlignedBuf { memory: Memory::allocate(capacity), len: 0, home: None };
        }
        let class = size_class(capacity);
        let taken = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            (pool.take(class), pool.remote.clone())
        });
        match taken {
            Ok((memory, home)) => AlignedBuf { memory, len: 0, home: Some(home) },
            Err(_) => AlignedBuf { memory: Memory::allocate(capacity), len: 0, home: None },
        }
    }

    /// A buffer of `len` zeros.
    pub fn zeroed(len: usize) -> AlignedBuf {
        let mut buf = AlignedBuf::with_capacity(len);
        buf.resize(len, 0);
        buf
    }

    /// A buffer holding a copy of `data`.
    pub fn copy_from(data: &[u8]) -> AlignedBuf {
        let mut buf = AlignedBuf::with_capacity(data.len());
        buf.extend_from_slice(data);
        buf
    }

    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// Sets the length; bytes gained hold zeros or whatever the memory held before.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "length beyond the buffer's capacity");
        self.memory.initialize(len);
        self.len = len;
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Sets the length, filling bytes gained with `value`.
    pub fn resize(&mut self, len: usize, value: u8) {
        let old = self.len.min(len);
        self.memory.fill(old, len, value);
        self.len = len;
    }

    /// Appends `data`, which must fit into the capacity.
    pub fn extend_from_slice(&mut self, data: &[u8]) {
        self.memory.copy(self.len, data);
        self.len += data.len();
    }

    /// Makes the buffer shareable without copying; the memory returns to its pool with the last
    /// reference, wherever that is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Bytes `at..end` of the capacity, for I/O that wants initialised memory.
    pub(crate) fn range(&mut self, at: usize, end: usize) -> &mut [u8] {
        assert!(at <= end && end <= self.capacity(), "range beyond the buffer's capacity");
        self.memory.initialize(end);
        // SAFETY: the memory is initialised up to `end` and reached only through this buffer.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr().add(at), end - at) }
    }

    /// Where the kernel may put bytes `at..end`; [`AlignedBuf::filled`] says how many it put.
    pub(crate) fn target(&mut self, at: usize, end: usize) -> *mut u8 {
        assert!(at <= end && end <= self.capacity(), "range beyond the buffer's capacity");
        // SAFETY: `at` is within the allocation.
        unsafe { self.memory.start.as_ptr().add(at) }
    }

    /// Notes that I/O filled `at..end`.
    ///
    /// # Safety
    /// Those bytes have been written.
    pub(crate) unsafe fn filled(&mut self, at: usize, end: usize) {
        if at <= self.memory.initialized {
            self.memory.initialized = self.memory.initialized.max(end);
        }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is initialised up to at least `len`.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} of {})", self.len, self.capacity())
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        let memory = mem::replace(&mut self.memory, Memory::NONE);
        give_back(home, memory);
    }
}

/// Memory aligned to `BLOCK`: a part of a slab, which is freed with its last part.
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    /// `None` owns nothing.
    #[expect(dead_code, reason = "held, not read")]
    slab: Option<Arc<Slab>>,
    /// Bytes at the front known to be initialised.
    initialized: usize,
}

// SAFETY: `Memory` owns its part of the slab exclusively; nothing about it is tied to a thread.
unsafe impl Send for Memory {}
// SAFETY: shared access to `Memory` only reads its fields.
unsafe impl Sync for Memory {}

impl Memory {
    /// What is left behind when a block moves out; owns nothing.
    const NONE: Memory =
        Memory { start: NonNull::dangling(), capacity: 0, slab: None, initialized: 0 };

    fn allocate(capacity: usize) -> Memory {
        Memory::allocate_slab(capacity, 1).pop().unwrap_or(Memory::NONE)
    }

    /// `count` parts of `capacity` bytes each. One by one they would take twice the memory: the
    /// allocator has to look for an aligned place in something larger.
    fn allocate_slab(capacity: usize, count: usize) -> Vec<Memory> {
        let layout = Slab::layout(capacity * count);
        // SAFETY: `capacity` is at least one block, so the layout is not empty.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        let slab = Arc::new(Slab { start, bytes: capacity * count });
        let part = |i: usize| Memory {
            // SAFETY: within the allocation.
            start: unsafe { start.add(i * capacity) },
            capacity,
            slab: Some(slab.clone()),
            initialized: 0,
        };
        (0..count).map(part).collect()
    }

    /// Zeroes what is not known to be initialised before `end`.
    fn initialize(&mut self, end: usize) {
        if end > self.initialized {
            self.fill(self.initialized, end, 0);
        }
    }

    /// Fills `from..to`, nothing if that is empty.
    fn fill(&mut self, from: usize, to: usize, value: u8) {
        assert!(to <= self.capacity, "length beyond the buffer's capacity");
        let from = from.min(to);
        debug_assert!(from <= self.initialized);
        // SAFETY: `from..to` lies in the block, which `self` owns.
        unsafe { self.start.as_ptr().add(from).write_bytes(value, to - from) };
        self.initialized = self.initialized.max(to);
    }

    /// Copies `data` to `at`, which is within the initialised part.
    fn copy(&mut self, at: usize, data: &[u8]) {
        assert!(data.len() <= self.capacity - at, "length beyond the buffer's capacity");
        debug_assert!(at <= self.initialized);
        let to = self.start.as_ptr();
        // SAFETY: the target lies in the block, which `self` owns; so `data` lies elsewhere.
        unsafe { to.add(at).copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        self.initialized = self.initialized.max(at + data.len());
    }
}

/// An allocation that several [`Memory`]s share out.
struct Slab {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a `Slab` is only freed, and that by its last holder, on whatever thread.
unsafe impl Send for Slab {}
// SAFETY: nothing is reached through a shared `Slab`.
unsafe impl Sync for Slab {}

impl Slab {
    fn layout(bytes: usize) -> Layout {
        match Layout::from_size_align(bytes, BLOCK) {
            Ok(layout) => layout,
            Err(_) => unreachable!("capacities are checked when a buffer is made"),
        }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: allocated in `allocate_slab` with this very layout; every part is gone.
        unsafe { dealloc(self.start.as_ptr(), Slab::layout(self.bytes)) };
    }
}

/// Powers of two of blocks: class 0 is one block.
fn size_class(capacity: usize) -> usize {
    (capacity / BLOCK).next_power_of_two().trailing_zeros() as usize
}

/// Buffers made at a time.
fn slab_parts(class: usize) -> usize {
    (POOL_SLAB_BYTES >> class).div_ceil(BLOCK)
}

const CLASSES: usize = (POOL_BUFFER_BYTES_MAX / BLOCK).trailing_zeros() as usize + 1;

/// Free buffers by size class, up to a number of bytes.
struct FreeList {
    classes: [Vec<Memory>; CLASSES],
    bytes: usize,
    bytes_max: usize,
}

impl FreeList {
    fn new(bytes_max: usize) -> FreeList {
        FreeList { classes: [const { Vec::new() }; CLASSES], bytes: 0, bytes_max }
    }

    fn take(&mut self, class: usize) -> Option<Memory> {
        let memory = self.classes[class].pop()?;
        self.bytes -= memory.capacity;
        Some(memory)
    }

    /// Keeps `memory`, or hands it back to be freed when the list is full of its size.
    fn put(&mut self, memory: Memory) -> Option<Memory> {
        let class = size_class(memory.capacity);
        while self.bytes + memory.capacity > self.bytes_max {
            // Sizes that are not asked for any more make room for those that are.
            let other = (0..CLASSES).rev().find(|&c| c != class && !self.classes[c].is_empty());
            let Some(freed) = other.and_then(|c| self.take(c)) else {
                return Some(memory);
            };
            drop(freed);
        }
        self.bytes += memory.capacity;
        self.classes[class].push(memory);
        None
    }
}

/// Where other threads return buffers.
struct Remote {
    free: Mutex<FreeList>,
}

/// The pool of one thread.
struct Pool {
    free: FreeList,
    remote: Arc<Remote>,
}

impl Pool {
    fn new() -> Pool {
        let remote = Remote { free: Mutex::new(FreeList::new(POOL_REMOTE_BYTES_MAX)) };
        Pool { free: FreeList::new(POOL_LOCAL_BYTES_MAX), remote: Arc::new(remote) }
    }

    fn take(&mut self, class: usize) -> Memory {
        if let Some(memory) = self.free.take(class) {
            return memory;
        }
        let remote = &self.remote.free;
        if let Some(memory) = remote.lock().unwrap_or_else(PoisonError::into_inner).take(class) {
            return memory;
        }
        let mut parts = Memory::allocate_slab(BLOCK << class, slab_parts(class));
        let first = parts.pop().unwrap_or(Memory::NONE);
        for part in parts {
            // A full pool frees the part.
            drop(self.free.put(part));
        }
        first
    }
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::new());
}

fn give_back(home: Arc<Remote>, memory: Memory) {
    let mut memory = Some(memory);
    let at_home = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if !Arc::ptr_eq(&pool.remote, &home) {
            return false;
        }
        memory = memory.take().and_then(|memory| pool.free.put(memory));
        true
    });
    if at_home == Ok(true) {
        return;
    }
    let mut free = home.free.lock().unwrap_or_else(PoisonError::into_inner);
    let rest = memory.take().and_then(|memory| free.put(memory));
    drop(free);
    drop(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_reused() {
        let first = AlignedBuf::with_capacity(5000);
        assert_eq!(first.capacity(), 8192);
        assert!(is_aligned(&first));
        let start = first.as_ptr();
        drop(first);
        assert_eq!(AlignedBuf::with_capacity(8192).as_ptr(), start);
        let large = AlignedBuf::zeroed(POOL_BUFFER_BYTES_MAX + 1);
        assert_eq!(large.len(), POOL_BUFFER_BYTES_MAX + 1);
        assert!(large.capacity().is_multiple_of(BLOCK));
    }

    #[test]
    fn a_full_list_gives_up_other_sizes() {
        let mut list = FreeList::new(4 * BLOCK);
        assert!(list.put(Memory::allocate(4 * BLOCK)).is_none());
        assert!(list.put(Memory::allocate(BLOCK)).is_none(), "the larger one is freed for it");
        assert!(list.put(Memory::allocate(BLOCK)).is_none());
        assert_eq!((list.bytes, list.classes[0].len()), (2 * BLOCK, 2));
        assert!(list.put(Memory::allocate(2 * BLOCK)).is_none());
        assert!(list.put(Memory::allocate(8 * BLOCK)).is_some(), "never beyond the bound");
    }

    #[test]
    fn a_frozen_buffer_returns_home_from_another_thread() {
        let mut buf = AlignedBuf::with_capacity(3 * BLOCK);
        buf.extend_from_slice(b"payload");
        let start = buf.as_ptr().addr();
        let bytes = buf.freeze();
        let slice = bytes.slice(3..);
        std::thread::spawn(move || {
            assert_eq!(&bytes[..], b"payload");
            assert_eq!(&slice[..], b"load");
        })
        .join()
        .expect("thread");
        // The rest of its slab comes first.
        let taken: Vec<_> =
            (0..slab_parts(2)).map(|_| AlignedBuf::with_capacity(3 * BLOCK)).collect();
        assert!(taken.iter().any(|buf| buf.as_ptr().addr() == start));
    }

    #[test]
    fn a_buffer_outlives_the_thread_of_its_pool() {
        let bytes = std::thread::spawn(|| AlignedBuf::copy_from(b"still here").freeze())
            .join()
            .expect("thread");
        assert_eq!(&bytes[..], b"still here");
    }
}
