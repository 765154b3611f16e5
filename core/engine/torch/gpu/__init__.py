"""The engine's steps on a GPU: Triton kernels and CUDA graphs."""
