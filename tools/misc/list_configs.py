"""List the configs, by the names that train.py, test.py and ``_base_`` take."""

from pathlib import Path

from mmstvit.command_line import make_parser, print_lines

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def main() -> None:
    """Print the names that have all words in them."""
    parser = make_parser(__doc__)
    parser.add_argument('words', nargs='*', metavar='WORD', help='part of a name, such as upernet or small (all)')
    words = parser.parse_args().words
    paths = [path.relative_to(CONFIGS).as_posix() for path in sorted(CONFIGS.rglob('*.py'))]
    names = [path for path in paths if not path.startswith('_base_') and all(word in path for word in words)]
    if not names:
        parser.error(f'no config has {" and ".join(words)} in its name')
    print_lines(f'mmstvit::{name}' for name in names)


if __name__ == '__main__':
    main()
