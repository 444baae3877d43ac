//! Starts simulated devices, daemons and programs for tests, benches and the demo.
