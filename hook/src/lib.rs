//! The library preloaded into tenants: memory and launch enforcement at the CUDA driver API.
