# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The Markdown files: their code runs, their links and names exist."""

import contextlib
import io
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import pvd_mm
from helpers.commands import ROOT
from pvd_mm.utils.shipped_configs import find_shipped

PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')])
SKIP = '<!-- no-test -->'
PLACEHOLDERS = {'pvd_mm/ops/backends/NAME.py'}

pages = pytest.mark.parametrize(
    'page', PAGES, ids=[p.relative_to(ROOT).as_posix() for p in PAGES]
)
if not PAGES:  # an installed package is tested without its docs
    pytest.skip('no Markdown files', allow_module_level=True)


def python_blocks(page):
    """Yield the first line's number and the text of every Python block."""
    text = page.read_text(encoding='utf-8')
    for found in re.finditer(r'^```python\n(.*?)^```$', text, re.M | re.S):
        before = text[: found.start()].rstrip()
        if not before.endswith(SKIP):
            yield before.count('\n') + 3, found[1]


def prose(page):
    """The text without fenced blocks and comments."""
    text = page.read_text(encoding='utf-8')
    text = re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S)
    return re.sub(r'<!--.*?-->', '', text, flags=re.S)


def read_config(source, folder):
    """Read a block that is a config; build its model and, if that is a
    segmentor, pass an image."""
    path = folder / 'block.py'
    # what a user's own module would register is in the page's other blocks
    path.write_text(source.replace(", 'parts'", ''))
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    if cfg.default_scope == 'mmdet':
        model = MODELS.build(cfg.model)
        labels = getattr(model, 'with_semantic_head', False)
        assert labels or model.roi_head.with_mask
        return
    cfg.model.pretrained = None
    with contextlib.redirect_stdout(io.StringIO()):
        model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, 64, 64))
    assert logits.size(1) == cfg.model.decode_head.num_classes


@pages
def test_python_blocks_run(page, tmp_path, monkeypatch):
    pytest.importorskip('mmseg')
    monkeypatch.chdir(tmp_path)
    pvd_mm.register_all_modules()
    init_default_scope('mmseg')
    namespace = {'__name__': 'docs'}
    for line, source in python_blocks(page):
        name = f'{page.name}, block before line {line}'
        if re.search(r'^_base_ = ', source, re.M):
            read_config(source, tmp_path)
        else:
            exec(compile('\n' * (line - 1) + source, name, 'exec'), namespace)


def anchors(page):
    """The anchors that GitHub makes of a page's headings."""
    for title in re.findall(r'^#+ (.*)$', prose(page), re.M):
        title = re.sub(r'\[(.*?)\]\(.*?\)', r'\1', title).strip().lower()
        yield re.sub(r'[^\w\- ]', '', title).replace(' ', '-')


@pages
def test_links_lead_somewhere(page):
    text = prose(page)
    links = re.findall(r'\]\(([^)\s]+)[^)]*\)', text)
    links += re.findall(r'(?:src|href|srcset)="([^"]+)"', text)
    for link in links:
        if re.match(r'[a-z]+:', link):
            continue
        file, _, anchor = link.partition('#')
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f'{link} does not exist'
        if anchor and target.suffix == '.md':
            assert anchor in anchors(target), f'{link}: no such heading'


@pages
def test_named_files_exist(page):
    """Files of the project that prose or commands name."""
    text = page.read_text(encoding='utf-8')
    text = re.sub(r'<!--.*?-->', '', text, flags=re.S)
    text = re.sub(r'(mmsegmentation|mmdetection) [\d.]+, \S+', '', text)  # theirs
    folders = 'configs|tools|requirements|tests|docs|pvd_mm'
    named = re.findall(
        rf'(?<![\w/.:])((?:{folders})/[\w./\-]+\.(?:py|sh|txt|md|yml))\b', text
    )
    assert [n for n in named if n not in PLACEHOLDERS and not (ROOT / n).exists()] == []
    configs = re.findall(r'pvd_mm::([\w./\-]+\.py)', text)
    configs += re.findall(r'(?<![\w/])((?:pvd|deeplabv3)_r\d+\S*?_1xb[\w\-]+)', text)
    for name in configs:
        assert find_shipped(name, primitives=True), f'no shipped config {name}'
