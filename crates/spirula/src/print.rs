//! Printing that does not panic: standard output and standard error may be closed pipes or full
//! disks.
//!
//! Invariant: nothing else in this crate writes to them.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// As a shell shows an end by SIGPIPE.
const ENDED_BY_SIGPIPE: u8 = 128 + 13;

/// Prints a line. That nobody reads it any more is no reason to leave daemons behind.
macro_rules! say {
    ($($arg:tt)*) => { $crate::print::ignoring(&mut std::io::stdout(), format_args!($($arg)*)) };
}

/// Prints a line to standard error, which may get lost: there is nowhere else to say it.
macro_rules! complain {
    ($($arg:tt)*) => { $crate::print::ignoring(&mut std::io::stderr(), format_args!($($arg)*)) };
}

/// Prints a line that the user asked for: its loss is an error.
macro_rules! output {
    ($($arg:tt)*) => { $crate::print::text(format_args!("{}\n", format_args!($($arg)*))) };
}

pub(crate) use {complain, output, say};

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("standard output")]
pub(crate) struct Unprinted(#[from] io::Error);

pub(crate) fn ignoring(to: &mut dyn io::Write, line: fmt::Arguments<'_>) {
    // In one write, so that lines of several threads stay whole.
    let _ = to.write_all(format!("{line}\n").as_bytes());
}

/// What the user asked for, as it is.
pub(crate) fn text(text: fmt::Arguments<'_>) -> Result<(), Unprinted> {
    bytes(text.to_string().as_bytes())
}

/// What the user asked for, as it is.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Unprinted> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// The status to end with after an error, which is told unless it is that the reader has left.
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    let unprinted = error.chain().find_map(|cause| cause.downcast_ref::<Unprinted>());
    if unprinted.is_some_and(|u| u.0.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::from(ENDED_BY_SIGPIPE);
    }
    complain!("spirula: {error:#}");
    ExitCode::FAILURE
}
