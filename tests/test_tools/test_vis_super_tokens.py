"""``tools/visualizations/vis_super_tokens.py``: models of the three tasks, points, and what is skipped or refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmstvit.apis import UserError, build_model
from mmstvit.apis.predict.inputs import find_inputs
from mmstvit.apis.predict.predictor import load_predictor
from mmstvit.apis.super_tokens import draw_super_tokens
from mmstvit.checkpoint import convert_to_official
from mmstvit.visualization import panels

from ..helpers import NANO, config_path
from ..in_process import run_main
from ..nano import make_config, save_model
from ..test_datasets.tiny_data import draw, write

TOOL = 'visualizations/vis_super_tokens.py'
CONFIG = config_path(NANO['mmpretrain'])


@pytest.fixture(autouse=True)
def photo(in_folder, monkeypatch):
    monkeypatch.setattr(panels, 'SIDE', 240)  # saves time
    write(in_folder / 'images' / 'a.png', draw(0, 48, 64, 3))


def save(library: str) -> str:
    """Write the checkpoint of an untrained model, with its config."""
    return save_model(make_config(library), Path(f'{library}.pth')).name


def files(folder: str = 'out') -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in Path(folder).rglob('*') if path.is_file() and path.suffix
    )


@pytest.mark.parametrize('library', NANO)
def test_sheet_of_each_task(library, in_folder, capsys):
    run_main(TOOL, 'images', save(library), '--out-dir', 'out', '--point', 20, 30, cwd=in_folder)
    assert files() == ['a.png']
    width, height = Image.open('out/a.png').size
    assert (width // 240, height // 180) == (4, 3)  # two blocks with super tokens, and a row of the other three
    assert 'UNTRAINED' not in capsys.readouterr().out


def test_animation_grid_and_membership(in_folder):
    args = '--point', 20, 30, '--soft', '--grid', '--gif', '--stages', 0, 1
    run_main(TOOL, 'images', save('mmpretrain'), '--out-dir', 'out', *args, cwd=in_folder)
    assert files() == ['a.gif', 'a.png']
    width, height = Image.open('out/a.png').size
    assert (width // 240, height // 180) == (6, 2)
    assert Image.open('out/a.gif').n_frames == 2


def test_single_drawings_of_some_blocks(in_folder):
    assert draw_super_tokens('images/a.png', save('mmpretrain'), None, 'out', [1, 2], [0], (9, 9), single=True) == {}
    kinds = ('attention', 'boundaries', 'means', 'overlay')
    assert files() == [*(f'a/stage1_block0_{kind}.png' for kind in kinds), 'a/stage2_block0_attention.png']
    assert Image.open('out/a/stage1_block0_means.png').size == (960, 720)


def test_official_checkpoint_with_a_config(in_folder, capsys):
    torch.save(dict(model=convert_to_official(build_model(make_config('mmpretrain')).state_dict())), 'official.pth')
    with pytest.raises(SystemExit, match='--config FILE'):
        run_main(TOOL, 'images', 'official.pth', '--out-dir', 'out', cwd=in_folder)
    run_main(TOOL, 'images', CONFIG, '--checkpoint', 'official.pth', '--stages', 1, '--out-dir', 'out', cwd=in_folder)
    run_main(TOOL, 'images', 'official.pth', '--config', CONFIG, '--stages', 1, '--out-dir', 'two', cwd=in_folder)
    assert Path('out/a.png').read_bytes() == Path('two/a.png').read_bytes()
    assert 'UNTRAINED' not in capsys.readouterr().out


def test_untrained_model_is_named_so_and_broken_images_are_skipped(in_folder, capsys):
    Path('images/broken.png').write_bytes(Path('images/a.png').read_bytes()[:99])
    with pytest.raises(SystemExit, match='1 of the inputs'):
        run_main(TOOL, 'images', CONFIG, '--stages', 1, '--out-dir', 'out', cwd=in_folder)
    out, err = capsys.readouterr()
    assert 'UNTRAINED' in out
    assert 'skipped broken.png: ' in err
    assert files() == ['a.png']


def test_existing_folder_and_missing_images_are_refused_or_named(in_folder):
    checkpoint = save('mmpretrain')
    with pytest.raises(UserError, match='images exists'):
        draw_super_tokens('images', checkpoint, out_dir='images')
    assert list(draw_super_tokens('gone.png', checkpoint, out_dir='out')) == ['gone.png']
    Path('v.mp4').touch()
    assert 'video' in draw_super_tokens('v.mp4', checkpoint, out_dir='out')['v.mp4']
    assert 'super tokens' in draw_super_tokens('images', checkpoint, out_dir='out', stages=[2])['a.png']
    assert not Path('out').exists()


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['a.pth', '--checkpoint', 'b.pth'], 'two checkpoints'),
        (['a.py', '--config', 'b.py'], 'two configs'),
        (['a.pth', '--soft'], '--soft needs --point'),
        (['a.pth', '--soft', 'x'], 'index of a super token'),
    ],
)
def test_command_lines_that_contradict_themselves(args, message, in_folder, capsys):
    with pytest.raises(SystemExit):
        run_main(TOOL, 'images', *args, cwd=in_folder)
    assert message in capsys.readouterr().err


def locate(pipeline: list[dict], point: tuple[int, int]) -> tuple[int, int]:
    """Follow a point of the image of 64×48 through a test pipeline."""
    pipeline = [dict(type='LoadImageFromFile'), *pipeline, dict(type='PackInputs')]
    options = {'test_dataloader.dataset.pipeline': pipeline}
    with load_predictor(None, str(CONFIG), options, False, 'cpu', False) as predictor:
        picture = next(predictor.read(find_inputs(['images']).sources[0]))
        return predictor.locate(picture, point)


RESIZE = dict(type='ResizeEdge', scale=96, edge='short', backend='pillow')  # 128×96
CROP = dict(type='CenterCrop', crop_size=64)


@pytest.mark.parametrize(
    ('pipeline', 'point', 'expected'),
    [
        ([], (0, 0), (0, 0)),
        ([], (63, 47), (63, 47)),
        ([RESIZE], (20, 30), (40.5, 60.5)),
        ([RESIZE, CROP], (20, 30), (8.5, 44.5)),
        ([dict(RESIZE, scale=36)], (20, 30), (14.9, 22.4)),
    ],
)
def test_point_follows_the_pipeline(pipeline, point, expected):
    assert np.abs(np.subtract(locate(pipeline, point), expected)).max() <= 0.5


@pytest.mark.parametrize(('point', 'message'), [((64, 0), 'outside'), ((0, -1), 'outside'), ((3, 30), 'crops')])
def test_point_that_the_model_does_not_see_is_refused(point, message):
    with pytest.raises(UserError, match=message):
        locate([RESIZE, CROP], point)
