//! Operations on extended attributes.

use bytes::Bytes;
use spirula_wire::{Encode, Features};

use super::cut::Cut;
use super::{Effect, OpOutput, Run, Step, err, ok};
use crate::errno::*;
use crate::op::SubOp;
use crate::view::ObjectView;

const MODE_STRING: u8 = 1;
const MODE_U64: u8 = 2;

impl<V: ObjectView> Run<'_, V> {
    pub(super) fn getxattr(&mut self, op: &mut SubOp, out: &mut OpOutput) -> Step<V::Missing> {
        let mut args = op.xattr();
        let name = Cut::new(&op.indata).take(args.name_len as usize)?;
        self.delta.num_rd += 1;
        self.require_stored()?;
        let Some(value) = self.view.xattr(&name)? else {
            return err(ENODATA);
        };
        args.value_len = value.len() as u32;
        op.set_xattr(args);
        self.delta.num_rd_kb += super::kib(value.len() as u64);
        out.data = vec![value];
        ok()
    }

    pub(super) fn getxattrs(&mut self, out: &mut OpOutput) -> Step<V::Missing> {
        self.require_stored()?;
        let raw = self.view.xattrs()?.to_bytes(Features::PACIFIC);
        self.count_read(raw.len() as u64);
        out.data = vec![raw.into()];
        ok()
    }

    /// An absent attribute compares as the empty string, or 0. Success is 1.
    pub(super) fn cmpxattr(&mut self, op: &SubOp) -> Step<V::Missing> {
        let args = op.xattr();
        let mut input = Cut::new(&op.indata);
        let name = input.take(args.name_len as usize)?;
        self.require_stored()?;
        let have = self.view.xattr(&name)?.unwrap_or_default();
        self.count_read(have.len() as u64);
        let want_cmp_have = match args.cmp_mode {
            MODE_STRING => input.take(args.value_len as usize)?.cmp(&have),
            MODE_U64 => input.u64()?.cmp(&leading_number(&have)),
            _ => return err(EINVAL),
        };
        let holds = match args.cmp_op {
            1 => want_cmp_have.is_eq(),
            2 => want_cmp_have.is_ne(),
            3 => want_cmp_have.is_gt(),
            4 => want_cmp_have.is_ge(),
            5 => want_cmp_have.is_lt(),
            6 => want_cmp_have.is_le(),
            _ => return err(EINVAL),
        };
        if holds { Ok(Some(1)) } else { err(ECANCELED) }
    }

    pub(super) fn setxattr(&mut self, op: &SubOp) -> Step<V::Missing> {
        let args = op.xattr();
        let max = self.limits.max_attr_size;
        if max > 0 && u64::from(args.value_len) > max {
            return err(EFBIG);
        }
        if u64::from(args.name_len) > self.limits.max_attr_name_len {
            return err(ENAMETOOLONG);
        }
        let mut input = Cut::new(&op.indata);
        let name = input.take(args.name_len as usize)?;
        let value = input.take(args.value_len as usize)?;
        self.ensure_exists();
        self.effect(Effect::SetXattr { name, value });
        self.delta.num_wr += 1;
        ok()
    }

    /// Removing what is not there succeeds.
    pub(super) fn rmxattr(&mut self, op: &SubOp) -> Step<V::Missing> {
        let name = Cut::new(&op.indata).take(op.xattr().name_len as usize)?;
        if !self.exists {
            return err(ENOENT);
        }
        self.effect(Effect::RemoveXattr(name));
        self.delta.num_wr += 1;
        ok()
    }
}

/// The decimal number that a value starts with, as C's `strtoull` reads it.
fn leading_number(value: &Bytes) -> u64 {
    let text = value.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let number = digits.iter().take_while(|b| b.is_ascii_digit()).fold(0u64, |n, b| {
        n.saturating_mul(10).saturating_add(u64::from(b - b'0'))
    });
    if negative { number.wrapping_neg() } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_like_strtoull() {
        let n = |s: &'static str| leading_number(&Bytes::from_static(s.as_bytes()));
        assert_eq!(
            [n(""), n("12x"), n("  7"), n("-1"), n("x"), n("99999999999999999999")],
            [0, 12, 7, u64::MAX, 0, u64::MAX]
        );
    }
}
