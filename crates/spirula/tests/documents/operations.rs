//! Operations of OSDs, and classes with their methods.

use spirula_cls::{Access, CLASSES};
use spirula_osd::{class, errno, plan};
use spirula_wire::msg::ops::OpCode;

use crate::list::item;

pub(crate) fn operations() -> String {
    let mut out = "| operation | code | kind | answer |\n| --- | --- | --- | --- |\n".to_owned();
    for code in OpCode::ALL {
        let answer = plan::refusal(*code).map_or("served", name_of);
        out += &format!("| `{code}` | `{:#06x}` | {} | {answer} |\n", code.0, kind(*code));
    }
    out
}

fn kind(code: OpCode) -> &'static str {
    match code {
        OpCode::CALL => "as its method",
        code if code.is_pg_op() => "of a PG",
        code if code.is_cache_op() => "of a tier",
        code if code.reads() && code.writes() => "reads and writes",
        code if code.writes() => "writes",
        _ => "reads",
    }
}

fn name_of(number: i32) -> &'static str {
    match number {
        errno::ENOENT => "ENOENT",
        errno::EINVAL => "EINVAL",
        errno::EOPNOTSUPP => "EOPNOTSUPP",
        _ => panic!("the pages have no name for error {number}"),
    }
}

pub(crate) fn classes() -> String {
    let mut out = String::new();
    for class in CLASSES {
        out += &format!("- `{}`\n", class.name);
        for (access, head) in [
            (Access::Read, "reading"),
            (Access::Write, "writing"),
            (Access::ReadWrite, "reading and writing"),
        ] {
            let methods = class.methods.iter().copied().flatten();
            let methods = methods.filter(|method| method.access == access);
            out += &item(1, head, methods.map(|method| method.name.to_owned()));
        }
    }
    let absent = class::LOADED.iter().filter(|name| spirula_cls::class(name.as_bytes()).is_none());
    out + &item(0, "not there (EOPNOTSUPP)", absent.map(|name| (*name).to_owned()))
}
