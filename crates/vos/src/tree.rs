//! The B+tree over byte-string keys, kept in pages of the pool.
//!
//! All tables share one tree; their keys differ in the first byte. The first entry of an interior page
//! stands for everything below the second, whatever its key says.
//! Invariant: every function either answers or fails with the page it lacks; the caller rolls the
//! transaction back, so that a half-done split or merge is never seen.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::hint::confirm;
use crate::page::{CELL_LEN_MAX, CellValue, OVERFLOW_LEN, Page, PageKind, leaf_cell_len};
use crate::pool::Pool;
use crate::types::{Damage, PageId, ReadError};

/// Deeper than any tree of valid pages: bounds the walk in a damaged one.
pub(crate) const DEPTH_MAX: usize = 24;
/// A page using less than this is merged with a neighbour that is in memory, if both fit one page.
const MERGE_BELOW: usize = Page::capacity() / 4;
/// Largest result of a merge.
const MERGED_MAX: usize = Page::capacity() * 3 / 4;

/// Path from the root: pages with the index of the entry taken.
type Path = Vec<(PageId, usize)>;

/// An empty tree.
pub(crate) fn create(pool: &mut Pool) -> PageId {
    pool.allocate(Page::new(PageKind::Leaf))
}

/// The value of `key`.
pub(crate) fn get(pool: &Pool, root: PageId, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
    let (leaf, found) = locate(pool, root, key)?;
    match found {
        Ok(i) => load_value(pool, pool.get(leaf)?.value(i)).map(Some),
        Err(_) => Ok(None),
    }
}

/// The last entry at or before `key`.
pub(crate) fn floor(
    pool: &Pool,
    root: PageId,
    key: &[u8],
) -> Result<Option<(Bytes, Bytes)>, ReadError> {
    floor_below(pool, root, key, 0)
}

/// Sets `key` to `value`, which may be larger than a page.
pub(crate) fn insert(
    pool: &mut Pool,
    root: &mut PageId,
    key: &[u8],
    value: &[u8],
) -> Result<(), ReadError> {
    let (leaf_id, found) = locate(pool, *root, key)?;
    if let Ok(i) = found {
        let old = pool.get(leaf_id)?.value(i);
        if let CellValue::Overflow { .. } = old {
            old.overflow_pages().for_each(|id| pool.free(PageId(id)));
        } else if pool.overwrite_leaf(leaf_id, i, value)? {
            return Ok(());
        }
        pool.remove_leaf(leaf_id, i)?;
    }
    let at = found.unwrap_or_else(|i| i);
    let inline = leaf_cell_len(key.len(), CellValue::Inline(value)) <= CELL_LEN_MAX;
    let cell = if inline {
        CellValue::Inline(value)
    } else {
        CellValue::Overflow { len: value.len() as u32, first: pool.allocate_overflow(value) }
    };
    if pool.insert_leaf(leaf_id, at, key, cell)? {
        return Ok(());
    }
    let path = path_above(pool, *root, key)?;
    let (right_id, separator) = split_leaf(pool, leaf_id, at, key, cell)?;
    insert_child(pool, root, path, &separator, right_id)
}

/// Removes `key`; whether it was there.
pub(crate) fn remove(pool: &mut Pool, root: &mut PageId, key: &[u8]) -> Result<bool, ReadError> {
    let (leaf_id, Ok(i)) = locate(pool, *root, key)? else {
        return Ok(false);
    };
    let overflow = pool.get(leaf_id)?.value(i).overflow_pages();
    overflow.for_each(|id| pool.free(PageId(id)));
    pool.remove_leaf(leaf_id, i)?;
    if pool.get(leaf_id)?.used() < MERGE_BELOW {
        let path = path_above(pool, *root, key)?;
        shrink(pool, root, path, leaf_id)?;
    }
    Ok(true)
}

/// Calls `f` for the entries from `from` on, in order, until it breaks or `to` is reached.
pub(crate) fn scan(
    pool: &Pool,
    root: PageId,
    from: &[u8],
    to: Option<&[u8]>,
    f: &mut dyn FnMut(&[u8], CellValue<'_>) -> Result<ControlFlow<()>, ReadError>,
) -> Result<(), ReadError> {
    scan_below(pool, root, from, to, f, 0).map(|_| ())
}

/// As [`scan`], from the last entry before `to` down to `from`.
pub(crate) fn scan_back(
    pool: &Pool,
    root: PageId,
    from: &[u8],
    to: Option<&[u8]>,
    f: &mut dyn FnMut(&[u8], CellValue<'_>) -> Result<ControlFlow<()>, ReadError>,
) -> Result<(), ReadError> {
    scan_back_below(pool, root, from, to, f, 0).map(|_| ())
}

/// The bytes of a value; all its missing pages are reported at once.
pub(crate) fn load_value(pool: &Pool, value: CellValue<'_>) -> Result<Bytes, ReadError> {
    let len = match value {
        CellValue::Inline(v) => return Ok(Bytes::copy_from_slice(v)),
        CellValue::Overflow { len, .. } => len as usize,
    };
    let (mut missing, mut out) = (Vec::new(), Vec::new());
    for id in value.overflow_pages().map(PageId) {
        match pool.get(id) {
            Ok(page) if page.kind() == Some(PageKind::Overflow) => {
                out.extend_from_slice(&page.body()[..page.count().min(OVERFLOW_LEN)]);
            }
            Ok(_) => return Err(damaged(id)),
            Err(ReadError::Missing(ids)) => missing.extend(ids),
            Err(e) => return Err(e),
        }
    }
    if !missing.is_empty() {
        return Err(ReadError::Missing(missing));
    }
    match (out.len() == len, value.overflow_pages().next()) {
        (true, _) => Ok(Bytes::from(out)),
        (false, first) => Err(damaged(PageId(first.unwrap_or(0)))),
    }
}

fn damaged(page: PageId) -> ReadError {
    ReadError::Damaged(Damage::Page { page })
}

/// The leaf of `key`, and where it is there, or would be.
fn locate(
    pool: &Pool,
    root: PageId,
    key: &[u8],
) -> Result<(PageId, Result<usize, usize>), ReadError> {
    let slot = pool.hints().slot(key);
    if let Some((leaf, index)) = slot.recall()
        && let Some(page) = pool.peek(leaf)
        && let Some(found) = confirm(page, index, key)
    {
        return Ok((leaf, found));
    }
    let mut id = root;
    for _ in 0..DEPTH_MAX {
        let page = pool.get(id)?;
        match page.kind() {
            Some(PageKind::Leaf) => {
                let found = page.search(key);
                slot.remember(id, found.unwrap_or_else(|i| i));
                return Ok((id, found));
            }
            Some(PageKind::Interior) => id = page.child(page.child_index(key)),
            _ => return Err(damaged(id)),
        }
    }
    Err(damaged(id))
}

/// The interior pages above the leaf of `key`.
fn path_above(pool: &Pool, root: PageId, key: &[u8]) -> Result<Path, ReadError> {
    let (mut id, mut path) = (root, Path::with_capacity(8));
    for _ in 0..DEPTH_MAX {
        let page = pool.get(id)?;
        match page.kind() {
            Some(PageKind::Leaf) => return Ok(path),
            Some(PageKind::Interior) => {
                let i = page.child_index(key);
                path.push((id, i));
                id = page.child(i);
            }
            _ => return Err(damaged(id)),
        }
    }
    Err(damaged(id))
}

fn floor_below(
    pool: &Pool,
    id: PageId,
    key: &[u8],
    depth: usize,
) -> Result<Option<(Bytes, Bytes)>, ReadError> {
    let page = pool.get(id)?;
    match page.kind() {
        Some(PageKind::Leaf) => {
            let i = match page.search(key) {
                Ok(i) => i,
                Err(0) => return Ok(None),
                Err(i) => i - 1,
            };
            let value = load_value(pool, page.value(i))?;
            Ok(Some((Bytes::copy_from_slice(page.key(i)), value)))
        }
        Some(PageKind::Interior) if depth < DEPTH_MAX => {
            for i in (0..=page.child_index(key)).rev() {
                if let Some(found) = floor_below(pool, page.child(i), key, depth + 1)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        }
        _ => Err(damaged(id)),
    }
}

fn scan_below(
    pool: &Pool,
    id: PageId,
    from: &[u8],
    to: Option<&[u8]>,
    f: &mut dyn FnMut(&[u8], CellValue<'_>) -> Result<ControlFlow<()>, ReadError>,
    depth: usize,
) -> Result<ControlFlow<()>, ReadError> {
    let page = pool.get(id)?;
    let past_end = |key: &[u8]| to.is_some_and(|to| key >= to);
    match page.kind() {
        Some(PageKind::Leaf) => {
            for i in page.search(from).unwrap_or_else(|i| i)..page.count() {
                if past_end(page.key(i)) || f(page.key(i), page.value(i))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        }
        Some(PageKind::Interior) if depth < DEPTH_MAX => {
            let start = page.child_index(from);
            for i in start..page.count() {
                if i > start && past_end(page.key(i)) {
                    return Ok(ControlFlow::Break(()));
                }
                if scan_below(pool, page.child(i), from, to, f, depth + 1)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        }
        _ => Err(damaged(id)),
    }
}

fn scan_back_below(
    pool: &Pool,
    id: PageId,
    from: &[u8],
    to: Option<&[u8]>,
    f: &mut dyn FnMut(&[u8], CellValue<'_>) -> Result<ControlFlow<()>, ReadError>,
    depth: usize,
) -> Result<ControlFlow<()>, ReadError> {
    let page = pool.get(id)?;
    match page.kind() {
        Some(PageKind::Leaf) => {
            let end = to.map_or(page.count(), |to| page.search(to).unwrap_or_else(|i| i));
            for i in (0..end).rev() {
                if page.key(i) < from || f(page.key(i), page.value(i))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        }
        Some(PageKind::Interior) if depth < DEPTH_MAX => {
            let last = to.map_or(page.count().saturating_sub(1), |to| page.child_index(to));
            for i in (0..=last).rev() {
                if scan_back_below(pool, page.child(i), from, to, f, depth + 1)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                // What is before this child is below its key.
                if i > 0 && page.key(i) <= from {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        }
        _ => Err(damaged(id)),
    }
}

/// Splits a leaf and puts the entry that did not fit; the new right page with its separator.
fn split_leaf(
    pool: &mut Pool,
    leaf_id: PageId,
    at: usize,
    key: &[u8],
    cell: CellValue<'_>,
) -> Result<(PageId, Vec<u8>), ReadError> {
    let mut right = Page::new(PageKind::Leaf);
    let leaf = pool.get_mut(leaf_id)?;
    // Ascending inserts leave full pages behind.
    let append = at == leaf.count();
    let cut = if append { at } else { split_point(leaf, at, leaf_cell_len(key.len(), cell)) };
    let mut ok = leaf.move_tail(cut, &mut right);
    ok &= if !append && goes_left(at, cut, leaf, &right) {
        leaf.insert_leaf(at, key, cell)
    } else {
        right.insert_leaf(at - cut, key, cell)
    };
    if !ok || right.count() == 0 || leaf.count() == 0 {
        return Err(damaged(leaf_id));
    }
    let separator = shortest_separator(leaf.key(leaf.count() - 1), right.key(0));
    Ok((pool.allocate(right), separator))
}

/// Index of the first entry to move right so that both halves, the new entry counted at `at`, fit.
fn split_point(page: &Page, at: usize, new_len: usize) -> usize {
    let total: usize = page.used() + new_len;
    let mut left = 0;
    for i in 0..page.count() {
        if i == at {
            left += new_len;
        }
        left += page.entry_len(i);
        if left > total / 2 {
            // The entry crossing the middle goes to the side where it balances better.
            let over = left - total / 2;
            let cut = if over * 2 > page.entry_len(i) { i } else { i + 1 };
            return cut.clamp(1, page.count() - 1);
        }
    }
    page.count() - 1
}

/// Which half takes the new entry: at the cut itself, the emptier one.
fn goes_left(at: usize, cut: usize, left: &Page, right: &Page) -> bool {
    at < cut || (at == cut && left.used() < right.used())
}

/// The shortest key above `left` and not above `right`.
fn shortest_separator(left: &[u8], right: &[u8]) -> Vec<u8> {
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    right[..(common + 1).min(right.len())].to_vec()
}

fn insert_child(
    pool: &mut Pool,
    root: &mut PageId,
    mut path: Path,
    separator: &[u8],
    child: PageId,
) -> Result<(), ReadError> {
    let (mut separator, mut child) = (separator.to_vec(), child);
    while let Some((id, i)) = path.pop() {
        if pool.get_mut(id)?.insert_interior(i + 1, &separator, child) {
            return Ok(());
        }
        let mut right = Page::new(PageKind::Interior);
        let page = pool.get_mut(id)?;
        let at = i + 1;
        let cut = if at == page.count() {
            page.count() - 1
        } else {
            split_point(page, at, separator.len() + 12)
        };
        let mut ok = page.move_tail(cut, &mut right);
        ok &= if goes_left(at, cut, page, &right) {
            page.insert_interior(at, &separator, child)
        } else {
            right.insert_interior(at - cut, &separator, child)
        };
        if !ok {
            return Err(damaged(id));
        }
        separator = right.key(0).to_vec();
        child = pool.allocate(right);
    }
    let mut top = Page::new(PageKind::Interior);
    let ok = top.insert_interior(0, &[], *root) && top.insert_interior(1, &separator, child);
    if !ok {
        return Err(damaged(*root));
    }
    *root = pool.allocate(top);
    Ok(())
}

/// After a removal from `id`: drops it when empty, merges it when nearly so, and goes up.
fn shrink(
    pool: &mut Pool,
    root: &mut PageId,
    mut path: Path,
    mut id: PageId,
) -> Result<(), ReadError> {
    while let Some((parent_id, i)) = path.pop() {
        let page = pool.get(id)?;
        if page.count() == 0 {
            pool.free(id);
            remove_child(pool, parent_id, i)?;
        } else if page.used() >= MERGE_BELOW || !merge(pool, parent_id, i)? {
            break;
        }
        id = parent_id;
    }
    // An interior root with one child is not needed; one with none is an empty tree.
    while *root == id || path.is_empty() {
        let page = pool.get(*root)?;
        if page.is_leaf() || page.count() > 1 {
            break;
        }
        let old = *root;
        *root = match page.count() {
            0 => create(pool),
            _ => page.child(0),
        };
        pool.free(old);
        id = *root;
    }
    Ok(())
}

fn remove_child(pool: &mut Pool, parent: PageId, i: usize) -> Result<(), ReadError> {
    let page = pool.get_mut(parent)?;
    page.remove(i);
    if i == 0 && page.count() > 0 {
        // The new first entry stands for everything below: give it the lowest key.
        let child = page.child(0);
        page.remove(0);
        if !page.insert_interior(0, &[], child) {
            return Err(damaged(parent));
        }
    }
    Ok(())
}

/// Joins child `i` of `parent` with a neighbour, if that is in memory and both fit one page.
fn merge(pool: &mut Pool, parent: PageId, i: usize) -> Result<bool, ReadError> {
    let page = pool.get(parent)?;
    let pairs = [(i, i + 1), (i.wrapping_sub(1), i)];
    for (l, r) in pairs.into_iter().filter(|&(l, r)| l < r && r < page.count()) {
        let (left_id, right_id) = (page.child(l), page.child(r));
        if !pool.is_resident(left_id) || !pool.is_resident(right_id) {
            continue;
        }
        let (left, right) = (pool.get(left_id)?, pool.get(right_id)?);
        let separator = page.key(r).to_vec();
        let extra = if right.is_leaf() { 0 } else { separator.len() };
        if left.kind() != right.kind() || left.used() + right.used() + extra > MERGED_MAX {
            continue;
        }
        let mut right = right.clone();
        if !right.is_leaf() {
            let first = right.child(0);
            right.remove(0);
            if !right.insert_interior(0, &separator, first) {
                return Err(damaged(right_id));
            }
        }
        if !right.move_tail(0, pool.get_mut(left_id)?) {
            return Err(damaged(left_id));
        }
        pool.free(right_id);
        remove_child(pool, parent, r)?;
        return Ok(true);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn contents(pool: &Pool, root: PageId) -> BTreeMap<Vec<u8>, Bytes> {
        let mut out = BTreeMap::new();
        scan(pool, root, &[], None, &mut |k, v| {
            out.insert(k.to_vec(), load_value(pool, v)?);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        out
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u16, usize, usize),
        Remove(u16),
        Abort(u16, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = 0u16..400;
        let len = prop_oneof![4 => 0usize..200, 1 => 0usize..2600, 1 => 0usize..30_000];
        prop_oneof![
            5 => (key.clone(), len.clone(), prop_oneof![9 => 2usize..40, 1 => 2usize..2500])
                .prop_map(|(k, v, n)| Op::Insert(k, v, n)),
            4 => key.clone().prop_map(Op::Remove),
            1 => (key, len).prop_map(|(k, v)| Op::Abort(k, v)),
        ]
    }

    /// The same number always gives a key of the same length.
    fn key(k: u16) -> Vec<u8> {
        let mut out = k.to_be_bytes().to_vec();
        let pad = if k.is_multiple_of(17) { 2400 } else { usize::from(k) % 60 };
        out.resize(2 + pad, k as u8);
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn behaves_like_a_map(ops in proptest::collection::vec(op(), 1..600)) {
            let mut pool = Pool::new(1 << 20, 0);
            pool.begin();
            let mut root = create(&mut pool);
            pool.commit();
            let mut model: BTreeMap<Vec<u8>, Bytes> = BTreeMap::new();
            for op in ops {
                pool.begin();
                let before = root;
                match op {
                    Op::Insert(k, len, n) => {
                        let value = Bytes::from(vec![n as u8; len]);
                        insert(&mut pool, &mut root, &key(k), &value).unwrap();
                        model.insert(key(k), value);
                    }
                    Op::Remove(k) => {
                        let was = remove(&mut pool, &mut root, &key(k)).unwrap();
                        prop_assert_eq!(was, model.remove(&key(k)).is_some());
                    }
                    Op::Abort(k, len) => {
                        insert(&mut pool, &mut root, &key(k), &vec![9; len]).unwrap();
                        remove(&mut pool, &mut root, &key(k ^ 1)).unwrap();
                        pool.rollback();
                        root = before;
                        continue;
                    }
                }
                pool.commit();
            }
            prop_assert_eq!(contents(&pool, root), model.clone());
            for (from, to) in [(0, 400), (30, 200), (7, 8), (399, 17)] {
                let (from, to) = (key(from), key(to));
                let mut back = Vec::new();
                scan_back(&pool, root, &from, Some(&to), &mut |k, _| {
                    back.push(k.to_vec());
                    Ok(ControlFlow::Continue(()))
                })
                .unwrap();
                let want = model.keys().rev().filter(|k| **k >= from && **k < to);
                prop_assert_eq!(back, want.cloned().collect::<Vec<_>>());
            }
            for k in 0..400 {
                let got = floor(&pool, root, &key(k)).unwrap();
                let want = model.range(..=key(k)).next_back().map(|(k, v)| (k.clone(), v.clone()));
                prop_assert_eq!(got.map(|(k, v)| (k.to_vec(), v)), want);
            }
            for k in model.keys() {
                pool.begin();
                prop_assert!(remove(&mut pool, &mut root, k).unwrap());
                pool.commit();
            }
            prop_assert_eq!(pool.page_count(), 1);
        }
    }

    /// What is joined to its neighbour in a transaction is changed there, wherever it was seen before.
    #[test]
    fn an_entry_is_found_where_a_merge_has_put_it() {
        let mut pool = Pool::new(1 << 20, 0);
        pool.begin();
        let mut root = create(&mut pool);
        let key = |i: u16| i.to_be_bytes();
        (0..40).for_each(|i| insert(&mut pool, &mut root, &key(i), &[1; 300]).unwrap());
        pool.commit();
        assert!(pool.page_count() > 1);
        pool.begin();
        assert!(get(&pool, root, &key(39)).unwrap().is_some());
        (0..38).for_each(|i| assert!(remove(&mut pool, &mut root, &key(i)).unwrap()));
        insert(&mut pool, &mut root, &key(39), &[2; 300]).unwrap();
        pool.commit();
        assert_eq!(get(&pool, root, &key(39)).unwrap().unwrap(), vec![2; 300]);
    }
}
