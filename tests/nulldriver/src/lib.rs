//! A CUDA driver whose calls return at once, for measuring what the hook adds.
