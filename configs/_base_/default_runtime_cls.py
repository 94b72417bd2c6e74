_base_ = 'mmpretrain::_base_/default_runtime.py'

default_hooks = dict(check_finite=dict(type='mmstvit.CheckFiniteHook'))

# Anew: what is inherited from another package carries its scope, which MMPreTrain's browse_dataset.py hands to the
# visualizer as an argument.
visualizer = dict(_delete_=True, type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
