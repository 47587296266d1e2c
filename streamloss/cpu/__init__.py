"""The CPU backend: kernels that add a chunk to a state, and the threads that share the work."""
