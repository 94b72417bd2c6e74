"""The ways in which programs and configs import mmstvit; each begins where MMEngine is imported and mmstvit is not."""

import mmstvit

from ..helpers import run_python

# Runs each form, {name: code}, in a fork; prints the names of those that fail after their tracebacks.
DRIVER = """
import os, sys, traceback
from pathlib import Path
import matplotlib.pyplot, mmcv, mmengine.runner
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import HOOKS, MODELS

def read(text):
    path = Path(f'{os.getpid()}.py')
    path.write_text(text)
    return Config.fromfile(path)

backbone = dict(type='mmstvit.STViT', arch='nano')
assert 'mmstvit' not in sys.modules
for name, code in %r.items():
    pid = os.fork()
    if pid == 0:
        try:
            exec(code)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        print(name)
"""
FORMS = {
    'a name of the package': """
from mmstvit import STViT
assert type(MODELS.build(backbone)) is STViT and MODULE2PACKAGE['mmstvit'] == 'mmstvit'
""",
    'all names': """
from mmstvit import *
assert {'STViT', 'STViTNeck', 'SuperTokenVisHook', 'checkpoint', 'register_models'} <= set(globals())
""",
    'the package': """
import mmstvit
assert MODULE2PACKAGE['mmstvit'] == 'mmstvit' and 'mmstvit.models' not in sys.modules
assert read("_base_ = 'mmstvit::imagenet/stvit-nano_scenes.py'").model.backbone.type == 'mmstvit.STViT'
assert {'STViT', 'register_models'} <= set(dir(mmstvit))
assert mmstvit.STViT is mmstvit.models.STViT
assert mmstvit.ops.get_backend
""",
    'custom_imports': """
cfg = read(f'custom_imports = dict(imports=["mmstvit"], allow_failed_imports=False)\\nmodel = {backbone}')
assert 'mmstvit' in sys.modules
assert type(MODELS.build(cfg.model)).__module__ == 'mmstvit.models.stvit'
""",
    'a base that imports the package': """
cfg = read("_base_ = __import__('mmstvit') and 'mmstvit::imagenet/stvit-nano_scenes.py'")
assert cfg.model.backbone.type == 'mmstvit.STViT'
""",
    'nothing': """
assert type(MODELS.build(backbone)).__name__ == 'STViT'
assert HOOKS.get('mmstvit.SuperTokenVisHook').__module__ == 'mmstvit.visualization.hook'
""",
    'a name that does not exist': """
import mmstvit
for name in ('STVit', '__wrapped__', 'mim'):
    assert not hasattr(mmstvit, name), name
try:
    from mmstvit import STVit
except ImportError as error:
    assert 'STVit' in str(error)
""",
}


def test_every_form_registers(tmp_path):
    done = run_python(DRIVER % FORMS, tmp_path)
    assert (done.returncode, done.stdout) == (0, ''), done.stderr[-3000:]


FIRST = """
import sys, mmstvit.version
print(mmstvit.__version__, {'torch', 'mmengine'} & sys.modules.keys())
mmstvit.STViT
from mmengine.config.utils import MODULE2PACKAGE
print(MODULE2PACKAGE['mmstvit'])
"""


def test_mmengine_after_mmstvit(tmp_path):
    """The version needs neither torch nor MMEngine, which finds configs with the first name of mmstvit in use."""
    done = run_python(FIRST, tmp_path)
    assert done.stdout == f'{mmstvit.__version__} set()\nmmstvit\n', done.stderr
