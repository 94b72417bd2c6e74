"""Write the tables of faults and warnings in ``docs/data.md`` from the table of kinds in ``mmstvit/rules/kinds.py``.

::

    python docs/kinds.py

``tests/test_front_doors/test_pages.py`` fails if the page has other tables.
"""

import re
from dataclasses import astuple
from pathlib import Path

from mmstvit.rules.kinds import FAULT, KINDS, WARNING

PAGE = Path(__file__).with_name('data.md')


def replace_tables(page: str) -> str:
    """Return the text of the page with the tables of today below its headings Faults and Warnings."""
    for severity, heading in ((FAULT, 'Faults'), (WARNING, 'Warnings')):
        found = {name: astuple(kind) for name, kind in KINDS.items() if kind.severity == severity}
        rows = [f'| {name} | {where} | {meaning} |' for name, (_, where, meaning, *_) in found.items()]
        table = '\n'.join(['| kind | in | meaning |', '|---|---|---|', *rows, ''])
        before, mark, after = page.partition(f'\n### {heading}\n\n')
        page = before + mark + table + re.sub(r'\A(\|.*\n)*', '', after)
    return page


if __name__ == '__main__':
    PAGE.write_text(replace_tables(PAGE.read_text(encoding='utf-8')), encoding='utf-8')
