//! A target and its clients in a simulated world.

mod copies;
mod full;
mod power_loss;
mod round_trip;
mod snapshots;
mod support;
mod watch;
mod whole_objects;
mod whole_objects_random;
