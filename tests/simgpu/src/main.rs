//! Device server.
fn main() {}
