# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Settings of the documentation site; ``python tools/build_docs.py`` builds it.

Pages are Markdown that reads well on GitHub too; ``api/`` holds what is made
from docstrings.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / 'extensions')]

import pvd_mm  # noqa: E402

# Before autodoc imports any part, so that upstream is patched first.
pvd_mm.register_all_modules()

project = 'PVD-MM'
author = 'PVD-MM contributors'
copyright = author
release = version = pvd_mm.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'check_links',
    'model_zoo',
]
exclude_patterns = ['_build']
nitpicky = True  # a reference that leads nowhere is a warning
show_warning_types = True
smartquotes_action = 'De'  # no quotes: those in docstrings are Python's

html_theme = 'furo'
html_title = f'PVD-MM {release}'
html_copy_source = False
html_static_path = ['site.css']
html_css_files = ['site.css']
# Trees of folders and formulas are indented blocks; they are no Python.
highlight_language = 'none'

# '#the-built-in-street-sample' leads to a heading, as on GitHub
myst_heading_anchors = 4

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
# Docstrings tell the types, with shapes.
autodoc_typehints = 'none'
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = 'hide'

# Names of other packages, which lead nowhere without their sites' indexes, and
# words that stand in the place of a type.
nitpick_ignore_regex = [
    ('py:class', r'(abc|argparse|mm\w+|nn|np|os|_pickle|pycocotools|torch)\..+'),
    ('py:class', 'optional|BaseInferencer|COCO|Config|Path|PathLike|Runner'),
    ('py:class', 'DetDataSample|SegDataSample|Tensor'),
    ('py:exc', r'onnx\..+'),
]
