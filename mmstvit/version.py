"""Version of mmstvit, and the state of its verification on GPUs."""

__version__ = '0.1.0'

# True once `make gpu` has passed on hardware. Until then `auto` never chooses the Triton kernels, and CheckFiniteHook
# waits for the device in every iteration.
GPU_VERIFIED = False
