_base_ = 'mmpretrain::_base_/default_runtime.py'

default_hooks = dict(check_finite=dict(type='mmstvit.CheckFiniteHook'))

# Without inheritance: MMEngine marks what comes from another package with `_scope_`, which MMPreTrain's
# browse_dataset.py passes to the visualizer as an argument.
visualizer = dict(_delete_=True, type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
