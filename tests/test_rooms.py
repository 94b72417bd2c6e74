"""The law of the rooms: generic code does not import what knows STViT, and no imports form a circle."""

import ast
from pathlib import Path

import mmstvit

PACKAGE = Path(mmstvit.__file__).parent
GENERIC = (
    'analysis',
    'command_line',
    'compat',
    'datasets',
    'dependencies',
    'deployment',
    'drawing',
    'engine',
    'errors',
    'fileio',
    'install_mmcv',
    'interrupts',
    'nodes',
    'registry',
    'rules',
    'version',
)
KNOWS_STVIT = ('apis', 'app', 'arch', 'checkpoint', 'hub', 'layers', 'models', 'ops', 'visualization')


def module_name(path: Path) -> str:
    parts = ['mmstvit', *path.relative_to(PACKAGE).with_suffix('').parts]
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def read_imports() -> dict[str, set[str]]:
    """Return the modules of the package that each module imports, also inside functions."""
    paths = {module_name(path): path for path in PACKAGE.rglob('*.py') if '.mim' not in path.parts}
    imports: dict[str, set[str]] = {}
    for name, path in paths.items():
        package = name if path.stem == '__init__' else name.rpartition('.')[0]
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = package.split('.')[: len(package.split('.')) - node.level + 1] if node.level else []
                source = '.'.join([*base, *filter(None, [node.module])])
                names = {f'{source}.{alias.name}' for alias in node.names}
                found |= names & paths.keys() or {source}
        imports[name] = (found & paths.keys()) - {name}
    return imports


def test_generic_rooms_import_no_room_that_knows_stvit():
    wrong = [
        f'{name} imports {target}'
        for name, targets in read_imports().items()
        for target in targets
        if name.split('.')[1:2] and name.split('.')[1] in GENERIC
        if target.split('.')[1:2] and target.split('.')[1] in KNOWS_STVIT
    ]
    assert wrong == []


def test_every_room_is_generic_or_knows_stvit():
    rooms = {name.split('.')[1] for name in read_imports() if '.' in name}
    assert rooms <= {*GENERIC, *KNOWS_STVIT, '__main__', 'doctor', 'utils'}


def test_every_room_has_tests_of_its_own():
    rooms = {path.parent.name for path in PACKAGE.glob('*/__init__.py')}
    assert rooms <= {*GENERIC, *KNOWS_STVIT}
    assert [room for room in rooms if not list(Path(__file__).parent.glob(f'test_{room}/**/test_*.py'))] == []


def test_imports_form_no_circle():
    # The package's own page stands above all modules; a module that imports `mmstvit` would wait for itself.
    remaining = read_imports()
    while free := [name for name, targets in remaining.items() if not targets & remaining.keys()]:
        for name in free:
            del remaining[name]
    assert remaining == {}
