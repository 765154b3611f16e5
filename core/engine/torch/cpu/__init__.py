"""The engine's steps on a CPU: Numba kernels, packed weights and traced models."""
