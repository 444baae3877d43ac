//! End-to-end tests. The tests are in `tests/`; `src/bin/puppet.rs` is a CUDA program that does what a test
//! tells it line by line, and knows nothing of Headgate.
