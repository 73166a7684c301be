//! `spirula`: one binary; roles and tools are subcommands.
#![forbid(unsafe_code)]

mod cluster_dir;

fn main() {}
