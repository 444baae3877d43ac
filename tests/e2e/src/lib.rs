//! End-to-end tests: real processes, cgroups, sockets and kernel probes.
