//! What two Headgate processes agree on: shared segments, control frames, the CUDA and NVML symbol table.
