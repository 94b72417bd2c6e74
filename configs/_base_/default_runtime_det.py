_base_ = 'mmdet::_base_/default_runtime.py'

default_hooks = dict(check_finite=dict(type='mmstvit.CheckFiniteHook'))
