//! Headgate.
fn main() {}
