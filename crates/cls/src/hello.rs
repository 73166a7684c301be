//! Class `hello`: Ceph's example. Source of its behaviour: `src/cls/hello/cls_hello.cc`.

use bytes::Bytes;

use crate::context::{Context, Outcome, fail};
use crate::errno::EINVAL;
use crate::method::{Class, Method};

/// The longest name it greets.
const NAME_LEN_MAX: usize = 100;

pub(crate) const CLASS: Class =
    Class { name: "hello", methods: &[&[Method::reads("say_hello", say_hello)]] };

fn say_hello(_: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    if input.len() > NAME_LEN_MAX {
        return fail(EINVAL);
    }
    let name: &[u8] = if input.is_empty() { b"world" } else { input };
    out.extend_from_slice(b"Hello, ");
    out.extend_from_slice(name);
    out.push(b'!');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryObject;

    #[test]
    fn it_greets() {
        let mut object = MemoryObject::default();
        let mut say = |name: &str| {
            let mut out = Vec::new();
            say_hello(&mut object, &Bytes::copy_from_slice(name.as_bytes()), &mut out).map(|()| out)
        };
        assert_eq!(say("").unwrap(), b"Hello, world!");
        assert_eq!(say("you").unwrap(), b"Hello, you!");
        assert_eq!(say(&"x".repeat(101)), fail(EINVAL));
    }
}
