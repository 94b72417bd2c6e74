"""``docs/own_data.md`` command by command, on a few scenes."""

import json
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope

from mmstvit import STViT
from mmstvit.apis import build_model, read_config
from mmstvit.apis.new_config import Options, new_config
from mmstvit.errors import UserError
from mmstvit.rules import check

from ..fork_server import fork
from ..helpers import ROOT, link_scenes, official_shapes
from ..in_process import restored, run_main
from ..test_datasets.tiny_data import draw, write

DOCUMENT = (ROOT / 'docs' / 'own_data.md').read_text()
OTHERS = ('YOLO', 'Pascal VOC', 'Start from weights', 'Boxes without masks', 'Cascade Mask R-CNN has three heads')
EXAMPLES = {'Instances': 'predictions.json', 'Segments': 'legend.csv', 'Classes': 'predictions.csv'}


def commands(title: str) -> list[str]:
    """The commands of a section."""
    blocks = re.findall(r'```bash\n(.*?)```', section(title), re.DOTALL)
    return [line.partition(' #')[0] for block in blocks for line in block.splitlines()]


def section(title: str) -> str:
    return re.search(rf'^## {re.escape(title)}\n(.*?)(?=^## |\Z)', DOCUMENT, re.MULTILINE | re.DOTALL).group(1)


def arguments(command: str, folder: Path) -> tuple[str, list[str]]:
    """Split ``python tools/TOOL ARGUMENTS`` as a shell does; ``$(cat FILE)`` is the only substitution."""
    text = re.sub(r'\$\(cat (\S+)\)', lambda match: (folder / match[1]).read_text(), command)
    python, tool, *args = shlex.split(text)
    assert python == 'python'
    return tool.removeprefix('tools/'), args


@pytest.mark.long
@pytest.mark.parametrize('title', EXAMPLES)
def test_example_from_folder_to_pictures(title, workspace):
    for command in commands(title):
        tool, args = arguments(command, workspace)
        short = ['--epochs', '1', '--batch-size', '8'] if tool == 'new_config.py' else []
        fork(tool, *args, *short, cwd=workspace)
    (result,) = (workspace / 'predictions').glob(f'*/{EXAMPLES[title]}')
    assert len([path for path in (result.parent / 'pictures').rglob('*') if path.is_file()]) >= 6


@pytest.fixture(scope='module')
def written(scenes, tmp_path_factory) -> Path:
    """A folder with the configs of all other sections, and what they need."""
    folder = link_scenes(tmp_path_factory.mktemp('own'), scenes)
    weights = {key: torch.zeros(shape) for key, shape in official_shapes('small').items()}
    torch.save(dict(model=weights), folder / 'stvit-small-224.pth')
    demo = folder / 'work_dirs/mask-rcnn_stvit-nano_fpn_scenes/epoch_3.pth'
    demo.parent.mkdir(parents=True)
    state = {f'backbone.{key}': value for key, value in STViT('nano').state_dict().items()}
    torch.save(dict(state_dict=state), demo)
    write_yolo(folder / 'data' / 'parts')
    write_voc(folder / 'data' / 'birds')
    for command in [line for title in OTHERS for line in commands(title) if 'verify_dataset' not in line]:
        tool, args = arguments(command, folder)
        run_main(tool, *args, cwd=folder)
    return folder


def write_yolo(root: Path) -> None:
    """Write a data set in the layout of the page: boxes of bolts in 1 to 4, nuts in 101 and 102; 4 has no labels."""
    for split, numbers in dict(train=(1, 2, 3, 4), val=(101, 102)).items():
        for i in numbers:
            write(root / f'images/{split}/{i:03}.jpg', draw(i, 64, 64, 3))
            label = root / f'labels/{split}/{i:03}.txt'
            label.parent.mkdir(parents=True, exist_ok=True)
            if i != 4:
                label.write_text(f'{i % 2} 0.5 0.5 0.25 0.25\n')
    (root / 'data.yaml').write_text('names: [bolt, nut]\ntrain: images/train\nval: images/val\n')


def write_voc(root: Path) -> None:
    """Write a data set in the layout of the page: a finch or a wren in each image."""
    box = '<bndbox><xmin>8</xmin><ymin>8</ymin><xmax>40</xmax><ymax>32</ymax></bndbox>'
    for folder in ('Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    for i in range(1, 7):
        write(root / f'JPEGImages/{i:03}.jpg', draw(i, 64, 64, 3))
        name = f'<object><name>{("finch", "wren")[i % 2]}</name>{box}</object>'
        (root / f'Annotations/{i:03}.xml').write_text(f'<annotation><filename>{i:03}.jpg</filename>{name}</annotation>')
    (root / 'ImageSets/Main/train.txt').write_text('001\n002\n003\n004\n')
    (root / 'ImageSets/Main/val.txt').write_text('005\n006\n')


@pytest.mark.parametrize(('name', 'classes'), [('parts', ('bolt', 'nut')), ('birds', ('finch', 'wren'))])
def test_other_formats_are_found_as_the_page_says(name, classes, written):
    with restored(written):
        cfg = read_config(f'{name}.py', None)
        assert tuple(cfg.classes) == classes
        report = check(cfg, ('train', 'val'))
    assert report.findings == []
    objects = [line.split(' of ')[0] for line in report.used]
    assert objects == [f'train: {3 if name == "parts" else 4}', 'val: 2']  # one bolt image has no labels


@pytest.mark.parametrize('name', ['from_imagenet', 'from_demo', 'boxes', 'cascade'])
def test_other_configs_pass_the_rules(name, written):
    with restored(written):
        cfg = read_config(f'{name}.py', None)
        assert check(cfg, ('train', 'val')).faults == []
        assert cfg.model.backbone.arch == ('small' if name == 'from_imagenet' else 'nano')
        if name.startswith('from'):
            assert Path(cfg.model.backbone.init_cfg.checkpoint).is_file()


def test_cascade_config_has_the_documented_line(written):
    (line,) = re.findall(r'```python\n(.*?)\n```', section('Cascade Mask R-CNN has three heads'), re.DOTALL)
    assert line in (written / 'cascade.py').read_text()


@pytest.mark.parametrize('base', ['segments', 'objects'])
def test_four_channels(base, tmp_path):
    """The documented config passes the rules, and computes a loss on images of four channels."""
    for i in range(5):
        write(tmp_path / f'data/images/{i}.png', draw(i, 96, 96, 4))
        write(tmp_path / f'data/masks/{i}.png', draw(i, 96, 96) % 2)
    images = [dict(id=i + 1, file_name=f'{i}.png', width=96, height=96) for i in range(5)]
    box = dict(category_id=1, bbox=[8, 8, 40, 40], area=1600, iscrowd=0, segmentation=[[8, 8, 48, 8, 48, 48, 8, 48]])
    annotations = [dict(box, id=image['id'], image_id=image['id']) for image in images]
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='a')])
    (tmp_path / 'data/a.json').write_text(json.dumps(content))
    options = ['--task', 'segments', '--classes', 'a', 'b'] if base == 'segments' else ['--task', 'instances']
    run_main('new_config.py', 'data', *options, '--out', f'{base}.py', '--batch-size', 2, cwd=tmp_path)
    snippet = re.findall(r'```python\n(.*?)```', section('Gray, 4-channel and 16-bit images'), re.DOTALL)[0]
    (tmp_path / 'four.py').write_text(snippet.replace('segments.py', f'{base}.py'))
    with restored(tmp_path):
        cfg = read_config('four.py', None)
        assert [finding.line for finding in check(cfg, ('train', 'val')).findings] == []
        model = build_model(cfg)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            dataset = DATASETS.build(cfg.train_dataloader.dataset)
        batch = model.data_preprocessor(pseudo_collate([dataset[0], dataset[1]]), training=True)
        assert batch['inputs'].shape[1] == 4
        losses = model(**batch, mode='loss')
        assert all(torch.isfinite(torch.as_tensor(part)).all() for value in losses.values() for part in as_list(value))


def as_list(value: object) -> list:
    return value if isinstance(value, list) else [value]


def test_16_bits_become_8(tmp_path):
    snippets = re.findall(r'```python\n(.*?)```', section('Gray, 4-channel and 16-bit images'), re.DOTALL)
    names: dict = {}
    exec(snippets[1], names)
    cv2.imwrite(str(tmp_path / 'a.png'), np.array([[0, 1000, 2000, 4095]], np.uint16))
    names['to_8_bits'](str(tmp_path / 'a.png'), str(tmp_path / 'b.png'), 0, 4000)
    assert cv2.imread(str(tmp_path / 'b.png'), cv2.IMREAD_UNCHANGED).tolist() == [[0, 63, 127, 255]]


def test_run_lengths_become_label_maps(tmp_path):
    (snippet,) = (s for s in re.findall(r'```python\n(.*?)```', section('Tables'), re.DOTALL) if 'EncodedPixels' in s)
    for i in range(2):
        write(tmp_path / f'images/{i}.png', draw(i, 3, 4, 3))
    (tmp_path / 'train.csv').write_text('ImageId,EncodedPixels\n0.png,2 2 7 1\n0.png,10 3\n1.png,\n')
    with (
        restored(tmp_path),
        pytest.raises(UserError, match=r'\(run lengths or corners\), such as train.csv\n .*Tables'),
    ):
        new_config(Options(Path('.')))
    with restored(tmp_path):
        exec(snippet)
    maps = [cv2.imread(str(tmp_path / f'masks/{i}.png'), cv2.IMREAD_UNCHANGED).tolist() for i in range(2)]
    assert maps == [[[0, 0, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1]], [[0] * 4] * 3]


def test_what_is_not_clear_is_refused_as_the_page_says(tmp_path):
    for i, folder in enumerate(('circle/', 'star/', '')):
        write(tmp_path / f'shapes/{folder}00000{i + 1}.jpg', draw(i, 64, 64, 3))
    (message,) = re.findall(r'```\nerror: (.*?)```', section('What is refused'), re.DOTALL)
    with restored(tmp_path), pytest.raises(UserError) as error:
        new_config(Options(Path('shapes')))
    assert str(error.value) == message.rstrip()


def test_every_command_is_run():
    titles = [*EXAMPLES, *OTHERS]
    documented = re.findall(r'^python \S+', DOCUMENT, re.MULTILINE)
    assert len(documented) == 1 + sum(len(commands(title)) for title in titles)  # and the scenes
