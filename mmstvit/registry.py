"""Registries of mmstvit: children of MMEngine's, so that every OpenMMLab scope resolves ``mmstvit.<name>``."""

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmstvit', locations=['mmstvit.models', 'mmstvit.engine'])
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='mmstvit', locations=['mmstvit.datasets'])
DATA_SAMPLERS = Registry('data sampler', parent=MMENGINE_DATA_SAMPLERS, scope='mmstvit', locations=['mmstvit.datasets'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmstvit', locations=['mmstvit.engine.hooks'])
STRATEGIES = Registry('strategy', parent=MMENGINE_STRATEGIES, scope='mmstvit', locations=['mmstvit.engine.strategies'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='mmstvit', locations=['mmstvit.engine.optimizers']
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler', parent=MMENGINE_PARAM_SCHEDULERS, scope='mmstvit', locations=['mmstvit.engine.schedulers']
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='mmstvit',
    locations=['mmstvit.engine.optimizers'],
)

# Once mmstvit is imported, configs can inherit from ours: _base_ = 'mmstvit::_base_/...'
MODULE2PACKAGE['mmstvit'] = 'mmstvit'
