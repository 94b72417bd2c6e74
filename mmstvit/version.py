"""Version of mmstvit, and the state of its verification on GPUs."""

__version__ = '0.1.0'

# True once `make gpu` has passed on hardware. Until then the backend `auto` never chooses the Triton kernels.
GPU_VERIFIED = False
