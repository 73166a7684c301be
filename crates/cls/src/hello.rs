//! Class `hello`: Ceph's example, with methods that misbehave on purpose. Source of its behaviour:
//! `src/cls/hello/cls_hello.cc`.

use bytes::Bytes;

use crate::context::{Absent, Context, Outcome, fail};
use crate::errno::{EEXIST, EINVAL};
use crate::method::{Class, Method};

pub(crate) const CLASS: Class = Class {
    name: "hello",
    methods: &[&[
        Method::reads("say_hello", say_hello),
        Method::writes("record_hello", record_hello),
        Method::writes("write_return_data", write_return_data),
        Method::writes("writes_dont_return_data", write_return_data),
        Method::writes("write_too_much_return_data", write_too_much_return_data),
        Method::reads("replay", replay),
        Method::both("turn_it_to_11", turn_it_to_11),
        Method::writes("bad_reader", bad_reader),
        Method::reads("bad_writer", bad_writer),
    ]],
};

/// The longest name it greets.
const NAME_LEN_MAX: usize = 100;

/// More than what a recorded greeting takes.
const READ_LEN: u64 = 1100;

fn say_hello(_: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    out.extend_from_slice(&greeting(input)?);
    Ok(())
}

fn record_hello(object: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let greeting = greeting(input)?;
    if object.stat().or_absent()?.is_some() {
        return fail(EEXIST);
    }
    object.write_full(greeting.into())?;
    sign(object, "said_by")
}

/// Clients that ask for the results of writes see its number and its text.
fn write_return_data(object: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    object.set_xattr("foo", Bytes::from_static(b"bar"))?;
    if !input.is_empty() {
        out.extend_from_slice(b"too much input data!");
        return fail(EINVAL);
    }
    out.extend_from_slice(b"you might see this");
    object.set_return_value(42);
    Ok(())
}

/// More than any client may get from a write.
fn write_too_much_return_data(object: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    object.set_xattr("foo", Bytes::from_static(b"bar"))?;
    out.resize(out.len() + 512, b'.');
    object.set_return_value(42);
    Ok(())
}

fn replay(object: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    out.extend_from_slice(&object.read(0, READ_LEN)?);
    Ok(())
}

fn turn_it_to_11(object: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    if !input.is_empty() {
        return fail(EINVAL);
    }
    let loud = object.read(0, READ_LEN)?.to_ascii_uppercase();
    object.write_full(loud.into())?;
    sign(object, "amplified_by")
}

/// Reads though its row says that it only writes.
fn bad_reader(object: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    out.extend_from_slice(&object.read(0, 100)?);
    Ok(())
}

/// Writes though its row says that it only reads.
fn bad_writer(object: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    object.write_full(input.clone())
}

fn greeting(name: &[u8]) -> Outcome<Vec<u8>> {
    if name.len() > NAME_LEN_MAX {
        return fail(EINVAL);
    }
    let name = if name.is_empty() { b"world" } else { name };
    Ok([b"Hello, ", name, b"!"].concat())
}

/// Notes who called, as Ceph prints a client: with no type of its address that fits any protocol.
fn sign(object: &mut dyn Context, xattr: &str) -> Outcome {
    let origin = object.origin();
    let addr = origin.addr.to_string();
    let addr = addr.strip_prefix("any:").unwrap_or(&addr);
    object.set_xattr(xattr, format!("{} {addr}", origin.name).into())
}
