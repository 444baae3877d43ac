//! Loader and aggregation for the kernel programs that witness what the hook cannot see.
