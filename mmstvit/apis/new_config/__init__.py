"""From a folder of data to a config: recognize the data, choose a model, write one readable file.

The steps are :func:`recognize`, :func:`choose_model`, :func:`make_plan` and :func:`write_config`; :func:`new_config`
takes them all.
"""

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import Config

from mmstvit.datasets.images import IMAGE_READER
from mmstvit.dependencies import tool_command
from mmstvit.errors import DataError, UserError, one_line
from mmstvit.fileio import image_size, walk_folder, write_all
from mmstvit.rules.headers import thin_out

from .code import check_name
from .models import Model, choose_model
from .options import Data, Options, first_names
from .plan import Plan, make_plan
from .recognize import recognize
from .template import write_config

_MOST_IMAGES = 1000  # whose sizes are read
_SAMPLE = 4  # images that are decoded
_ARCHIVES = ('.zip', '.7z', '.rar', '.tar', '.tar.gz', '.tgz')
_VAGUE = ('annotations', 'coco', 'data', 'dataset', 'export', 'images', 'project')

__all__ = ['NewConfig', 'Options', 'new_config']


@dataclass
class NewConfig:
    """A new config, not yet written.

    Args:
        path: The config file.
        text: Its text.
        data: The data that it is for.
        model: Its model.
        plan: Its numbers.
        notes: What was found and chosen, line by line.
    """

    path: Path
    text: str
    data: Data
    model: Model
    plan: Plan
    notes: list[str]

    def write(self, force: bool = False) -> None:
        """Write the config and the files beside it.

        Raises:
            UserError: A file exists and ``force`` is not given, or cannot be written.
        """
        beside = self.path.parent
        files = {beside / f'{self.path.stem}_{name}': content for name, content in self.data.files.items()}
        existing = [path for path in (self.path, *files) if os.path.lexists(path)]
        if existing and not force:
            raise UserError(f'{existing[0]} exists.', 'Choose another name with --out, or overwrite it with --force.')
        write_all({**files, self.path: self.text.encode})

    def next_commands(self) -> list[str]:
        """Return the commands that verify the data, train, and predict."""
        length = f'iter_{self.plan.iterations}' if self.data.task == 'segments' else f'epoch_{self.plan.epochs}'
        checkpoint = Path('work_dirs') / self.path.stem / f'{length}.pth'
        prefix = [*self.data.datasets.values()][-1]['data_prefix']
        inputs = self.data.root / (prefix if isinstance(prefix, str) else next(iter(prefix.values())))
        here = Path.cwd()
        paths = (path.relative_to(here) if path.is_relative_to(here) else path for path in (self.path, inputs))
        config, images = (shlex.quote(str(path)) for path in paths)
        return [
            f'{tool_command("misc/verify_dataset.py")} {config}',
            f'{tool_command("train.py")} {config}',
            f'{tool_command("predict.py")} {shlex.quote(str(checkpoint))} {images} --out-dir '
            f'{shlex.quote(str(checkpoint.parent / "predictions"))}',
        ]


def new_config(options: Options) -> NewConfig:
    """Make a config for the data in a folder; nothing is written.

    Raises:
        UserError: The data are not recognized, are ambiguous or have defects, or an option does not fit them.
    """
    _check(options)
    data = _recognize(_locate(options))
    sizes = data.sizes or filter(None, map(image_size, thin_out(data.images, _MOST_IMAGES)))
    data = replace(data, sizes=[*sizes])
    model, reason = choose_model(data, options)
    plan = make_plan(data, model, options)
    path = Path(os.path.abspath(options.out or f'{model.name}_{_stem(data.root)}.py'))
    check_name(str(path))
    if path.is_relative_to(data.root):
        raise UserError(
            f'{path} is in the folder of the data, in which nothing is written.',
            'Name a file elsewhere: --out CONFIG.py',
        )
    weights = (
        model.weights or 'none: the backbone starts at random. ImageNet weights: docs/checkpoints.md, --weights FILE'
    )
    notes = [
        f'{data.task}, {len(data.classes)} class{"es" if len(data.classes) > 1 else ""}: {first_names(data.classes)}',
        *data.notes,
        *_find_unreadable(data),
        f'model: {model.name} ({reason}); other models: --model',
        f'weights: {weights}',
        f'training: {plan.epochs} epochs of {plan.epoch_length} iterations with {plan.batch_size} images',
    ]
    text = write_config(data, model, plan, f'{path.parent.as_posix().rstrip("/")}/{path.stem}_')
    _read_back(text, data)
    return NewConfig(path, text, data, model, plan, [*dict.fromkeys(map(one_line, notes))])


def _locate(options: Options) -> Options:
    """Find the folders of ``--maps`` and ``--images``, also inside of the data; raises UserError if there is none."""
    found = {}
    for name in ('maps', 'images'):
        if (folder := getattr(options, name)) is not None:
            found[name] = next((path for path in (Path(folder), Path(options.data, folder)) if path.is_dir()), None)
            if found[name] is None:
                raise UserError(f'--{name} {folder} is not a folder.', 'Name one, by its path or inside of the data.')
    return replace(options, **found)


def _recognize(options: Options) -> Data:
    """Recognize the data; an error names archives in the folder, which may have what is missing."""
    try:
        return recognize(options)
    except DataError as error:
        files = (name for _, names in walk_folder(Path(os.path.abspath(options.data))) for name in names)
        if archive := next((name for name in files if name.lower().endswith(_ARCHIVES)), None):
            remedy = f'Unpack {archive}, if it has files of the data. {error.remedy}'
            raise DataError(error.problem, remedy) from error
        raise


def _find_unreadable(data: Data) -> Iterator[str]:
    """Decode a few images; yield a warning if none of them can be read."""
    faults = {path: IMAGE_READER.find_fault(path) for path in thin_out(data.images, _SAMPLE)}
    if faults and all(faults.values()):
        yield f'warning: images such as {min(faults)} cannot be read: {faults[min(faults)]}'


def _read_back(text: str, data: Data) -> None:
    """Read the text of a config as MMEngine does; raises UserError if it does not have the names from the data."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'config.py')
        file.write_text(text, encoding='utf-8')
        cfg = Config.fromfile(str(file))
    if [cfg.data_root.rstrip('/'), *cfg.classes] != [data.root.as_posix().rstrip('/'), *data.classes]:
        raise UserError(
            f'The config would be read with other names: {[cfg.data_root, *cfg.classes]}', 'Rename the data.'
        )


def _check(options: Options) -> None:
    for name in ('epochs', 'batch_size'):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f'--{name.replace("_", "-")} must be 1 or more, but got {value}.')
    if options.val_fraction is not None and not 0 < options.val_fraction < 1:
        raise UserError(f'--val must be a fraction between 0 and 1, a file or a folder, but got {options.val}.')
    if options.out is not None and (options.out.suffix != '.py' or options.out.is_dir()):
        raise UserError(f'--out {options.out} is not the name of a config.', 'Name a file that ends with .py.')


def _stem(root: Path) -> str:
    """Return the name of a folder as a part of the name of a config; one that says little with its parent's."""
    name = f'{root.parent.name}_{root.name}' if root.name.lower() in _VAGUE else root.name
    return re.sub(r'\W+', '_', name).strip('_') or 'data'
