//! Operations on extended attributes.

use bytes::Bytes;
use spirula_wire::msg::ops::{OpArgs, cmpxattr_mode, cmpxattr_op};
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::{Encode, Features};

use super::cut::Cut;
use super::{Effect, Run, Step, err, ok};
use crate::errno::*;
use crate::view::ObjectView;

#[derive(Clone, Copy, Default)]
struct XattrArgs {
    name_len: u32,
    value_len: u32,
    cmp_op: u8,
    cmp_mode: u8,
}

impl XattrArgs {
    fn of(args: &OpArgs) -> Self {
        match *args {
            OpArgs::Xattr { name_len, value_len, cmp_op, cmp_mode } => {
                Self { name_len, value_len, cmp_op, cmp_mode }
            }
            _ => Self::default(),
        }
    }
}

impl From<XattrArgs> for OpArgs {
    fn from(x: XattrArgs) -> Self {
        let XattrArgs { name_len, value_len, cmp_op, cmp_mode } = x;
        Self::Xattr { name_len, value_len, cmp_op, cmp_mode }
    }
}

impl<V: ObjectView> Run<'_, V> {
    pub(super) fn getxattr(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let args = XattrArgs::of(&out.args);
        let name = Cut::new(input).take(args.name_len as usize)?;
        self.delta.num_rd += 1;
        self.require_stored()?;
        let Some(value) = self.view.xattr(&name)? else {
            return err(ENODATA);
        };
        out.args = XattrArgs { value_len: value.len() as u32, ..args }.into();
        self.delta.num_rd_kb += super::kib(value.len() as u64);
        out.outdata = vec![value];
        ok()
    }

    pub(super) fn getxattrs(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        self.require_stored()?;
        let raw = self.view.xattrs()?.to_bytes(Features::PACIFIC);
        self.count_read(raw.len() as u64);
        out.outdata = vec![raw.into()];
        ok()
    }

    /// An absent attribute compares as the empty string, or 0. Success is 1.
    pub(super) fn cmpxattr(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let args = XattrArgs::of(&out.args);
        let mut input = Cut::new(input);
        let name = input.take(args.name_len as usize)?;
        self.require_stored()?;
        let have = self.view.xattr(&name)?.unwrap_or_default();
        self.count_read(have.len() as u64);
        let want_cmp_have = match args.cmp_mode {
            cmpxattr_mode::STRING => input.take(args.value_len as usize)?.cmp(&have),
            cmpxattr_mode::U64 => input.u64()?.cmp(&leading_number(&have)),
            _ => return err(EINVAL),
        };
        let holds = match args.cmp_op {
            cmpxattr_op::EQ => want_cmp_have.is_eq(),
            cmpxattr_op::NE => want_cmp_have.is_ne(),
            cmpxattr_op::GT => want_cmp_have.is_gt(),
            cmpxattr_op::GTE => want_cmp_have.is_ge(),
            cmpxattr_op::LT => want_cmp_have.is_lt(),
            cmpxattr_op::LTE => want_cmp_have.is_le(),
            _ => return err(EINVAL),
        };
        if holds { Ok(Some(1)) } else { err(ECANCELED) }
    }

    pub(super) fn setxattr(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let args = XattrArgs::of(&out.args);
        let max = self.limits.max_attr_size;
        if max > 0 && u64::from(args.value_len) > max {
            return err(EFBIG);
        }
        if u64::from(args.name_len) > self.limits.max_attr_name_len {
            return err(ENAMETOOLONG);
        }
        let mut input = Cut::new(input);
        let name = input.take(args.name_len as usize)?;
        let value = input.take(args.value_len as usize)?;
        self.ensure_exists();
        self.effect(Effect::SetXattr { name, value });
        self.delta.num_wr += 1;
        ok()
    }

    /// Removing what is not there succeeds.
    pub(super) fn rmxattr(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let name = Cut::new(input).take(XattrArgs::of(&out.args).name_len as usize)?;
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
    let number = digits
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .fold(0u64, |n, b| n.saturating_mul(10).saturating_add(u64::from(b - b'0')));
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
