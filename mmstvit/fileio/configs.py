"""Read the config that MMEngine stores as text in a checkpoint: as data, which is parsed and never executed."""

import ast
import contextlib
import functools
import importlib
import math
import re
from collections.abc import Collection, Mapping, Sequence

from mmengine.fileio.handlers import file_handlers
from mmengine.registry import Registry

from mmstvit.dependencies import LIBRARIES
from mmstvit.errors import CheckpointError

_REMEDY = 'Name its config: --config FILE'
_LONGEST = 1_000_000  # characters
# Largest number, and longest list, of a part that is built: a square with a larger side is above the limit of pixels.
_LARGEST = 10_000
# Larger in configs of the libraries.
_COUNTS = ['class_weight', 'max_per_img', 'min_kept', 'nms_pre', 'num_classes', 'num_points', 'queue_len', 'vocab_size']
_LARGEST_COUNT = 1_000_000
_MOST_VIEWS = 100  # of an image: TestTimeAug combines the transforms of its lists
_SCOPES = ('mmengine', 'mmcv', 'mmstvit', *LIBRARIES)
# A registered name, with its scope if it has one: ReLU, mmdet.FPN.
_TYPE = re.compile(rf'(?:(?:{"|".join(_SCOPES)})\.)?[\w/]+')
# Plain words. Excluded: calls, which mmcv's batched_nms and others would evaluate; addresses, paths and file names.
_WORDS = re.compile(r'(?:[\w ,+-]|\.(?![A-Za-z_]))*')


def parse_config(text: object) -> dict[str, object]:
    """Parse the text of MMEngine's ``Config.dump()``: assignments of literals and ``dict(…)``.

    A class, which stands without quotation marks after ``type=``, becomes its name.

    Raises:
        CheckpointError: The text holds anything else. Nothing is executed.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        fault = f'has more than {_LONGEST:,} characters' if isinstance(text, str) else 'is not a text'
        raise CheckpointError(f'the config in the checkpoint {fault}.', _REMEDY)
    try:
        return dict(_assignment(statement) for statement in ast.parse(text).body)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error).partition('\n')[0] or type(error).__name__
        raise CheckpointError(
            f'Refusing to read the config in the checkpoint, which must hold values only: {reason}. Nothing was '
            f'executed.',
            _REMEDY,
        ) from error


def _assignment(statement: ast.stmt) -> tuple[str, object]:
    if not (isinstance(statement, ast.Assign) and [*map(type, statement.targets)] == [ast.Name]):
        raise ValueError(f'line {statement.lineno} is not an assignment')
    return statement.targets[0].id, _value(statement.value)


def _value(node: ast.expr | None) -> object:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, type(None))):
        return node.value
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        keys = [_value(key) for key in node.keys]
        return dict(_entry(key, value) for key, value in zip(keys, node.values, strict=True))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        if not node.args and all(keyword.arg for keyword in node.keywords):
            return dict(_entry(keyword.arg, keyword.value) for keyword in node.keywords)
        if not node.keywords and [*map(type, node.args)] == [ast.Dict]:  # if not all keys are identifiers
            return _value(node.args[0])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand)
        if isinstance(value, (int, float)):
            return -value
    raise ValueError('** in a dict' if node is None else f'line {node.lineno} has {ast.unparse(node)[:80]!r}')


def _entry(key: object, node: ast.expr) -> tuple[object, object]:
    if key == 'type' and isinstance(node, (ast.Name, ast.Attribute)):
        name = ast.unparse(node)
        if all(part.isidentifier() for part in name.split('.')):
            return key, name
    return key, _value(node)


def check_config(node: object, key: str, *scopes: str) -> None:
    """Check that a part of a stranger's config can be built without executing what its author chose.

    Registries build any importable object by its dotted name (``os.system``), some types are looked up without a
    registry (mmcv evaluates that of ``nms``, such as ``exec``), and some registered classes evaluate strings, or read
    files and addresses with pickle. So types must be registered names of the known libraries, and other strings plain
    words that name no file handler of MMEngine.

    Numbers and lengths of lists are bounded: padding to a multiple of 10^9 takes all memory. What a model computes from
    sizes within the bound is not limited.

    Args:
        node: The part.
        key: Its dotted key, for the message.
        scopes: The library of the config, and those of the nodes around the part. Without any, only the form of types
            is checked: for parts that are not built.

    Raises:
        CheckpointError: It cannot.
    """
    if isinstance(node, Mapping):
        own = str(node.get('type', '')).rpartition('.')[0], node.get('_scope_')
        # Only known ones: the registry of a scope is imported. Others are refused below.
        scopes = tuple({*scopes, *(scope for scope in own if scope in _SCOPES)} if scopes else ())
        parts = node.get('transforms') if str(node.get('type', '')).endswith('TestTimeAug') else None
        if isinstance(parts, (list, tuple)):
            views = math.prod(len(part) for part in parts if isinstance(part, (list, tuple)))
            if views > _MOST_VIEWS:
                _refuse(f'the number of views of {key}', views, f'more than {_MOST_VIEWS}: that takes all memory')
        for name, value in node.items():
            place = f'{key}.{name}'
            # Other backends of files import modules from folders that the config names.
            if name in ('backend_args', 'file_client_args') and value not in (None, {}, {'backend': 'local'}):
                _refuse(place, value)
            if name in ('trust_remote_code', 'sys_path'):
                _refuse(place, value)
            if name == '_scope_' and value not in _SCOPES:
                _refuse(place, value)
            if name != 'type' or not isinstance(value, str):
                check_config(value, place, *scopes)
            elif not _TYPE.fullmatch(value):
                _refuse(place, value)
            elif '/' in value:  # they use functions that limited_images() does not know
                _refuse(place, value, 'a transform of torchvision, which may make images of any size')
            elif scopes and not _is_registered(value.rpartition('.')[2], scopes):
                _refuse(place, value, f'which is not registered in {" or ".join(scopes)}')
    elif isinstance(node, (list, tuple)):
        _check_number(len(node), f'the length of {key}')
        for index, value in enumerate(node):
            check_config(value, f'{key}.{index}', *scopes)
    # MMEngine reads a file with the handler that its suffix names, and takes a name without a dot for the suffix. Those
    # of pickle and yaml execute what the file says.
    elif isinstance(node, str) and (node in file_handlers or not _WORDS.fullmatch(node)):
        _refuse(key, node)
    elif isinstance(node, (int, float)):
        _check_number(node, key)


def _check_number(value: float, key: str) -> None:
    name = next(part for part in reversed(key.split('.')) if not part.isdecimal())
    largest = _LARGEST_COUNT if name in _COUNTS else _LARGEST
    if abs(value) > largest:
        _refuse(key, value, f'more than {largest:,}: a size that takes all memory')


def _is_registered(name: str, scopes: Sequence[str]) -> bool:
    return any(name in names for scope in scopes for names in _registers(scope))


@functools.cache
def _registers(scope: str) -> list[Collection[str]]:
    """Return where the names of a library, of MMEngine and of mmcv's operators are; registries go on growing."""
    registers: list[Collection[str]] = [('conv', 'interpolation_conv')]  # layers of MMDetection's FPG
    for library in ('mmengine', 'mmengine' if scope == 'mmcv' else scope):
        for registry in vars(importlib.import_module(f'{library}.registry')).values():
            if isinstance(registry, Registry):
                registry.import_from_location()
                registers.append(registry.module_dict)
    with contextlib.suppress(ImportError):  # mmcv without operators
        registers.append(importlib.import_module('mmcv.ops').__all__)
    return registers


def _refuse(key: str, value: object, reason: str = 'which could execute code or read other files') -> None:
    raise CheckpointError(
        f'Refusing to build the model from the config in the checkpoint: {key} is {value!r}, {reason}. Nothing was '
        f'executed.',
        f'{_REMEDY}, or pass --trust-checkpoint if you trust the source.',
    )
