"""Settings of Sphinx: ``make docs`` builds the pages into ``build/docs``."""

import re

import mmstvit

project = 'mmstvit'
copyright = 'The mmstvit contributors'
release = mmstvit.__version__

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx_copybutton']
source_suffix = {'.md': 'myst-nb', '.ipynb': 'myst-nb'}
nb_execution_mode = 'off'  # the page shows the outputs that the notebook stores
copybutton_prompt_text = '!'  # not part of a command in a shell
myst_heading_anchors = 3
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
python_maximum_signature_line_length = 100
html_theme = 'furo'
html_title = f'mmstvit {release}'


def read_source(app, docname: str, source: list[str]) -> None:
    """Make links to files of those to no page, and a table of contents of those of the index."""
    # MyST would look for a page: Markdown files outside of docs/ are linked as the other files of the repository.
    source[0] = re.sub(r'\]\((\.\./\w+\.md)[^)]*\)', r'](path:\1)', source[0])
    # The link of the notebook to itself is one to the file.
    source[0] = source[0].replace(f']({docname}.ipynb)', f'](path:{docname}.ipynb)')
    if docname == 'index':
        for section in source[0].split('\n## ')[1:]:
            pages = '\n'.join(dict.fromkeys(re.findall(r'\]\(([\w/]+)\.(?:md|ipynb)\)', section)))
            source[0] += f'\n```{{toctree}}\n:hidden:\n:caption: {section.splitlines()[0]}\n\n{pages}\n```\n'


def setup(app) -> None:
    """Connect the reader."""
    app.connect('source-read', read_source)
