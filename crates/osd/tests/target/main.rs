//! A target and its clients in a simulated world.

mod power_loss;
mod round_trip;
mod support;
