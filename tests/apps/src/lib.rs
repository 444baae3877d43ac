//! Small real CUDA programs that know nothing of Headgate.
