//! Compares maps, edits and placement with Ceph's own tools, which must be installed:
//! `apt-get install -y ceph-base` (crushtool, osdmaptool, monmaptool).

mod crush;
mod edits;
mod osdmap;
mod tool;
