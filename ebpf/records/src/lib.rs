//! Structs and slot numbers shared by the kernel programs and their loader.
