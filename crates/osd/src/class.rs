//! Class calls of a request: which method each names, and what is known of it before it runs.

use bytes::Bytes;
use spirula_cls::Method;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;

use crate::errno::*;

/// Classes that a Pacific OSD loads (`osd_class_load_list`), all of which `x` reaches
/// (`osd_class_default_list`).
pub const LOADED: &[&str] = &[
    "2pc_queue",
    "cas",
    "cephfs",
    "cmpomap",
    "fifo",
    "hello",
    "journal",
    "lock",
    "log",
    "numops",
    "otp",
    "queue",
    "rbd",
    "refcount",
    "rgw",
    "rgw_gc",
    "timeindex",
    "user",
    "version",
];

/// Whether Ceph's OSDs load the class.
pub fn is_loaded(class: &[u8]) -> bool {
    LOADED.iter().any(|loaded| loaded.as_bytes() == class)
}

/// A method that an operation calls, and its input.
#[derive(Clone, Debug)]
pub struct Call {
    pub class: &'static str,
    pub method: &'static Method,
    pub input: Bytes,
}

impl Call {
    /// The method that a CALL names. As in Ceph, a class that no OSD would load is not permitted,
    /// and one that is not there is not supported; errors are positive.
    pub fn resolve(args: &OpArgs, indata: &Bytes) -> Result<Self, i32> {
        let OpArgs::Cls { class_len, method_len, indata_len, .. } = *args else {
            return Err(EINVAL);
        };
        let class_end = usize::from(class_len);
        let method_end = class_end + usize::from(method_len);
        let end = method_end.saturating_add(indata_len as usize);
        if end > indata.len() {
            return Err(EINVAL);
        }
        let class = &indata[..class_end];
        if !is_loaded(class) {
            return Err(EPERM);
        }
        let class = spirula_cls::class(class).ok_or(EOPNOTSUPP)?;
        let method = class.method(&indata[class_end..method_end]).ok_or(EOPNOTSUPP)?;
        Ok(Self { class: class.name, method, input: indata.slice(method_end..end) })
    }
}

/// The calls among `ops`, in order.
pub fn calls(ops: &[OsdOp]) -> impl Iterator<Item = Result<Call, i32>> {
    let calls = ops.iter().filter(|op| op.code == OpCode::CALL);
    calls.map(|op| Call::resolve(&op.args, &op.indata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(class: &str, method: &str, args: (u8, u8, u32)) -> Result<Bytes, i32> {
        let (class_len, method_len, indata_len) = args;
        let args = OpArgs::Cls { class_len, method_len, argc: 0, indata_len };
        let indata = [class, method, "input"].concat().into();
        Call::resolve(&args, &indata).map(|call| call.input)
    }

    #[test]
    fn a_call_names_class_method_and_input() {
        assert_eq!(resolve("hello", "say_hello", (5, 9, 5)), Ok("input".into()));
        assert_eq!(resolve("hello", "say_hello", (5, 9, 2)), Ok("in".into()));
        assert_eq!(resolve("hello", "say_hello", (5, 9, 6)), Err(EINVAL));
        assert_eq!(resolve("hello", "no_such", (5, 7, 0)), Err(EOPNOTSUPP));
        assert_eq!(resolve("no_such", "say_hello", (7, 9, 0)), Err(EPERM));
        assert_eq!(resolve("otp", "otp_get", (3, 7, 0)), Err(EOPNOTSUPP), "it comes later");
        assert_eq!(Call::resolve(&OpArgs::default(), &Bytes::new()).err(), Some(EINVAL));
    }
}
