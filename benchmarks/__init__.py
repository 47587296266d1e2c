"""Benchmarks: seeded workloads, the machine's own bandwidth, and rivals on the same arrays in the same run."""
