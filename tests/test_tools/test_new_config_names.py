"""Names in data never become code: a config has them as they are, or they are refused, and nothing is executed."""

import csv
import itertools
import json
import shlex
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from mmstvit.apis.new_config import Options, new_config
from mmstvit.apis.new_config.class_names import read_names
from mmstvit.apis.new_config.code import literal
from mmstvit.apis.predict.results import text_cell
from mmstvit.errors import DataError, UserError, one_line, printable

from ..in_process import run_main
from .data_folders import annotate, class_folders, coco_folder, dump, maps_folder

# Runs a command if MMEngine takes it for a substitution; {} is a file that it would make.
ATTACK = '{{{{$X:(.*?|"\\\',str(__import__("os").system("touch {}")));#}}}}'
PARTS = st.sampled_from(
    ['{{', '}}', '{', '}', '$', 'HOME', ':', '_base_.model', ' fileDirname ', '"', "'", '\\', '\n', '\x1b[2J', '\udcff',
     '#', '(', ')', 'é', '名', '👩‍🔬', '=cmd|x', '%s', '\u202e', '\u2028', 'a', ' ', 'N{DIGIT ONE}', '.*?']
)  # fmt: skip
NAMES = st.lists(PARTS, min_size=1, max_size=6).map(''.join) | st.text(min_size=1, max_size=12)
FILE_NAMES = NAMES.map(lambda name: name.replace('/', '').replace('\0', '').strip('. ') or 'x')


@settings(max_examples=60)
@given(NAMES)
@example('{{$HOME:x}}')
@example('{{ fileDirname }}')
@example('{{_base_.model}}')
def test_a_string_is_read_as_it_was_written_also_after_mmengine_saved_it(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp('config')
    try:
        (folder / 'mine.py').write_text(f'names = [{literal(text)}]', encoding='utf-8')
    except DataError as error:
        assert repr(text) in str(error) and 'Rename it' in str(error)
        return
    cfg = Config.fromfile(folder / 'mine.py')
    assert cfg.names == [text]
    cfg.dump(folder / 'saved.py')
    assert Config.fromfile(folder / 'saved.py').names == [text]


def instances(root: Path, name: str) -> None:
    coco_folder(root, 'instances.json', 'images')
    dump(root / 'instances.json', annotate([f'{i}.jpg' for i in range(5)], classes=('fork', name)))


def segments(root: Path, name: str) -> None:
    maps_folder(root, 'images/{}.jpg', 'masks/{}.png')


def classes(root: Path, name: str) -> None:
    class_folders(root, names=('ant', name))


TASKS = dict(instances=instances, segments=segments, classes=classes)


def make(folder: Path, task: str, name: str, **options: object) -> Config | None:
    """Make and read a config of data with a name in them; None if the name is refused. No command may run."""
    root = options.pop('data', folder / 'data')
    TASKS[task](root, name)
    names = ['wall', name] if task == 'segments' else []
    try:
        config = new_config(Options(data=root, out=folder / 'mine.py', classes=names, **options))
    except (OSError, UserError) as error:
        assert not {'\x1b', '\u202e'} & {*str(error)} or isinstance(error, OSError)
        assert not (folder / 'mine.py').exists()
        return None
    config.write()
    assert '{{' not in config.text
    assert not any(mark in line for mark in ('\x1b', '\n') for line in config.notes)
    assert [*map(len, map(shlex.split, config.next_commands()))] == [3, 3, 6]
    return Config.fromfile(config.path)


@pytest.mark.parametrize('task', TASKS)
@settings(max_examples=12)
@given(name=FILE_NAMES)
def test_classes_of_any_name(tmp_path_factory, task, name):
    try:
        cfg = make(tmp_path_factory.mktemp('any'), task, name)
    except (UnicodeEncodeError, OSError):  # no file can have this name
        return
    if cfg is not None and '=' not in name:
        assert name in cfg.classes


@pytest.mark.parametrize('task', TASKS)
@settings(max_examples=8)
@given(name=FILE_NAMES)
def test_a_folder_of_any_name(tmp_path_factory, task, name):
    folder = tmp_path_factory.mktemp('any')
    try:
        cfg = make(folder, task, 'b', data=folder / name / 'data')
    except (UnicodeEncodeError, OSError):
        return
    if cfg is not None:
        assert cfg.data_root == f'{folder}/{name}/data/'


@pytest.mark.parametrize(('task', 'place'), itertools.product(TASKS, ('class', 'folder', 'weights')))
def test_a_name_that_would_run_a_command_is_refused(tmp_path, monkeypatch, task, place):
    monkeypatch.chdir(tmp_path)
    name = ATTACK.format('RAN')
    if place == 'class':
        cfg = make(tmp_path, task, name)
    elif place == 'folder':
        cfg = make(tmp_path, task, 'b', data=tmp_path / name / 'data')
    else:
        cfg = make(tmp_path, task, 'b', weights=f'https://example.org/{name}.pth', model='small')
    assert cfg is None
    assert not (tmp_path / 'RAN').exists()


@pytest.mark.parametrize('task', TASKS)
def test_an_environment_variable_does_not_become_a_class(tmp_path, monkeypatch, task):
    monkeypatch.setenv('TOKEN', 'secret')
    assert make(tmp_path, task, '{{$TOKEN:x}}') is None


def test_a_name_of_very_many_letters_is_refused_in_a_short_message(tmp_path):
    instances(tmp_path / 'data', 1_000_000 * 'x')
    with pytest.raises(DataError, match=r"^The name 'x{40}'… has 1000000 characters"):
        new_config(Options(data=tmp_path / 'data', out=tmp_path / 'mine.py'))


def test_a_line_break_in_the_name_of_a_folder_is_refused(tmp_path):
    assert make(tmp_path, 'classes', 'b', data=tmp_path / 'x\nimport os' / 'data') is None


def test_messages_have_no_escape_sequences():
    assert str(UserError('no \x1b[2Jfile\r', 'a\nb')) == 'no \\x1b[2Jfile\\r a\\nb'
    assert one_line('a\nNext:\t\u202e\udcff') == 'a\\nNext:\\t\\u202e\\udcff'
    assert printable('é 名 👩‍🔬\n\t') == 'é 名 👩‍🔬\n\t'


@pytest.mark.parametrize('name', ['=cmd|x', '+1', '-1', '@SUM(A1)', 'plain', "it's"])
def test_cells_of_results_are_no_formulas_and_are_read_back(tmp_path, name):
    path = tmp_path / 'legend.csv'
    with open(path, 'w', newline='') as file:
        csv.writer(file).writerows([['id', 'name', 'color'], [0, text_cell(name), '#000000']])
    assert not path.read_text().splitlines()[1].split(',')[1].startswith(('=', '+', '-', '@'))
    assert [entry.name for entry in read_names(path)] == [name]


@pytest.mark.parametrize(
    ('name', 'cell'),
    [
        ('a;=1+1;b', "a;'=1+1;b"),
        ('＝cmd', "'＝cmd"),
        ('a; ＋1', "a; '＋1"),
        ('\n=1', '\\n=1'),
        (' \u200b@x', " \u200b'@x"),
        ('\x1b[2J\t-1', '\\x1b[2J\\t-1'),
        ('\udcff.jpg', '\\udcff.jpg'),
        ('a-1=b+c@d.jpg', 'a-1=b+c@d.jpg'),
    ],
)
def test_cells_of_results_have_no_hidden_formulas_and_one_line(name, cell):
    assert text_cell(name) == cell


def test_the_report_of_a_data_set_has_no_escape_sequences(tmp_path, capsys):
    root = tmp_path / 'data'
    instances(root, 'b')
    config = new_config(Options(data=root, out=tmp_path / 'mine.py'))
    config.write()
    for file in [*tmp_path.glob('mine_*.json'), root / 'instances.json']:
        content = json.loads(file.read_text())
        content['images'][0]['file_name'] = '\x1b[2J.jpg'
        file.write_text(json.dumps(content))
    with pytest.raises(SystemExit):
        run_main('misc/verify_dataset.py', tmp_path / 'mine.py', '--num-workers', 0, cwd=tmp_path)
    output = ''.join(capsys.readouterr())
    assert '\\x1b[2J.jpg' in output and '\x1b' not in output
