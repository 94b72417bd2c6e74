import torch
from hypothesis import settings

# The tensors are small: a second thread gains nothing, and waits for the first when the machine is busy.
torch.set_num_threads(1)
settings.register_profile('mmstvit', derandomize=True, deadline=None, max_examples=150)
settings.load_profile('mmstvit')
