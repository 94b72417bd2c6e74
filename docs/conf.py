"""Settings of Sphinx: ``make docs`` builds the pages into ``build/docs``."""

import json
import re

import mmstvit

project = 'mmstvit'
copyright = 'The mmstvit contributors'
release = mmstvit.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
source_suffix = {'.md': 'markdown', '.ipynb': 'markdown'}
myst_heading_anchors = 3
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
python_maximum_signature_line_length = 100
html_theme = 'furo'
html_title = f'mmstvit {release}'


def read_cell(kind: str, text: str) -> str:
    """Turn a cell of a notebook into Markdown."""
    if kind == 'markdown':
        return text
    return f'```bash\n{text[1:]}\n```' if text.startswith('!') else f'```python\n{text}\n```'


def read_source(app, docname: str, source: list[str]) -> None:
    """Turn a notebook into Markdown, and the links of the index into the table of contents."""
    if app.env.doc2path(docname, base=False).suffix == '.ipynb':
        cells = json.loads(source[0])['cells']
        source[0] = '\n\n'.join(read_cell(cell['cell_type'], ''.join(cell['source'])) for cell in cells)
    # MyST would look for a page: Markdown files outside of docs/ are linked as the other files of the repository.
    source[0] = re.sub(r'\]\((\.\./\w+\.md)[^)]*\)', r'](path:\1)', source[0])
    if docname == 'index':
        for section in source[0].split('\n## ')[1:]:
            pages = '\n'.join(dict.fromkeys(re.findall(r'\]\(([\w/]+)\.(?:md|ipynb)\)', section)))
            source[0] += f'\n```{{toctree}}\n:hidden:\n:caption: {section.splitlines()[0]}\n\n{pages}\n```\n'


def setup(app) -> None:
    """Connect the reader."""
    app.connect('source-read', read_source)
