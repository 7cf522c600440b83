# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The documentation site: it can be built, is complete, and its faults are
found."""

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pvd_mm
from helpers.commands import ROOT
from helpers.torch_features import needs_automatic_sizes, skip_module
from pvd_mm.engine.records import read_records
from pvd_mm.utils.shipped_configs import shipped_configs

LIBRARY = ('ops', 'decoder', 'semantic', 'instance', 'panoptic')
MODULES = ('data', 'engine', 'apis', 'visualization', 'utils')

if not (ROOT / 'docs/conf.py').is_file():
    pytest.skip(
        'an installed package is tested without its docs', allow_module_level=True
    )
skip_module(needs_automatic_sizes)  # the reference imports the export of detectors


def build(*arguments, **env):
    return subprocess.run(
        [sys.executable, ROOT / 'tools/build_docs.py', *map(str, arguments)],
        capture_output=True,
        text=True,
        **env,
    )


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp('docs')
    done = build('--out', out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / 'html'


def test_every_page_is_there(site):
    docs = ROOT / 'docs'
    pages = [
        path.relative_to(docs).with_suffix('.html')
        for kind in ('*.md', 'api/*.rst')
        for path in docs.glob(kind)
    ]
    assert len(pages) > 20
    assert [page for page in pages if not (site / page).is_file()] == []
    for name in ('contributing', 'changelog'):
        first = (ROOT / f'{name.upper()}.md').read_text().splitlines()[0]
        assert first.removeprefix('# ') in (site / f'{name}.html').read_text()


def test_the_reference_has_every_public_name(site):
    pvd_mm.register_all_modules()
    wanted = {
        f'pvd_mm.{name}.{module.name}'
        for name in MODULES
        for module in pkgutil.iter_modules(
            importlib.import_module(f'pvd_mm.{name}').__path__
        )
    }
    for name in LIBRARY:
        module = importlib.import_module(f'pvd_mm.{name}')
        wanted |= {f'pvd_mm.{name}.{member}' for member in module.__all__}
    anchors = set()
    for page in (site / 'api').glob('*.html'):
        anchors |= set(
            re.findall(r' id="(?:module-)?(pvd_mm[\w.]*)"', page.read_text())
        )
    missing = sorted(wanted - anchors)
    assert not missing, f'docs/api has no place for {missing}'


def test_the_zoo_has_every_config_and_its_cost(site):
    text = (site / 'model_zoo.html').read_text()
    rows = {
        re.search(r'>([\w-]+)</span>', row)[1]: re.findall(
            r'<td[^>]*><p>([^<]*)</p></td>', row
        )
        for row in re.findall(r'<tr[^>]*>(.*?)</tr>', text, re.S)
        if '.py' in row
    }
    assert sorted(rows) == sorted(Path(name).stem for name in shipped_configs())
    # the model's own parameters are counted in tests/test_tools
    architecture, batch, params, gmacs, size = rows[
        'pvd_r18-stage_1xb4-90k_cityscapes-512x1024'
    ]
    assert (architecture, batch, size) == ('R-18, PVD, stage', '4', '512×1024')
    assert (params, gmacs) == ('11.68', '22.39')
    # of which a later record has the mask branch alone
    name = 'pvd-mask-rcnn_r50-c4_1x_coco'
    counts = [
        each
        for record in read_records([str(ROOT / 'docs')])[0]
        if record['kind'] == 'model'
        for each in record['result']
        if each['name'] == name and 'forward_macs' in each
    ][-1]
    expected = [counts['params'] / 1e6, counts['forward_macs'] / 1e9]
    assert rows[name][2:5] == [*(f'{x:.2f}' for x in expected), '800×1333']


def test_figures_of_a_metafile_show(tmp_path):
    from model_zoo import zoo_table

    model = yaml.safe_load("""
        Name: a
        Config: configs/a.py
        Metadata: {Architecture: [R-18], Batch Size: 4}
        Results: {Task: T, Dataset: D, Metrics: {mIoU: 79.3}}
        Weights: https://example.org/a.pth
    """)
    head, _, row = zoo_table([model]).splitlines()
    assert head.endswith('| figures | weights |') and 'GMACs' not in head
    assert row.endswith('| mIoU 79.3 | [file](https://example.org/a.pth) |')


def test_pages_show_without_a_network(site):
    for page in site.rglob('*.html'):
        text = page.read_text()
        assert (
            re.findall(
                r'<(?:script|img|link)[^>]*(?:src|href)="(?:https?:)?//[^"]*', text
            )
            == []
        ), page.name


def test_broken_links_are_found(tmp_path):
    from check_links import broken_links

    (tmp_path / 'a').mkdir()
    (tmp_path / 'a/b.html').write_text('<h1 id="here">x</h1> <a href="../c.html">')
    (tmp_path / 'c.html').write_text(
        '<a href="a/b.html#here"><a href="#"><a href="https://example.org/x#y">'
        '<a href="a/b.html#gone"><img src="none.png"><a href="/c.html">'
        '<a href="a"><a href="ftp://example.org"><a href="https://example">'
        '<a href="mailto:AR@100"><a href="../../etc/hosts">'
    )
    assert list(broken_links(tmp_path)) == [
        ('c.html', 'a/b.html#gone', 'no such anchor'),
        ('c.html', 'none.png', 'no such file'),
        ('c.html', '/c.html', 'leads out of the site'),
        ('c.html', 'a', 'no such file'),
        ('c.html', 'ftp://example.org', 'neither http nor https'),
        ('c.html', 'https://example', 'not the form of an address'),
        ('c.html', 'mailto:AR@100', 'neither http nor https'),
        ('c.html', '../../etc/hosts', 'leads out of the site'),
    ]


def test_warnings_are_errors(tmp_path):
    (tmp_path / 'conf.py').write_text(
        'import sys\n'
        f'sys.path.insert(0, {str(ROOT / "docs/extensions")!r})\n'
        "extensions = ['myst_parser', 'check_links']\n"
    )
    page = tmp_path / 'index.md'
    arguments = ('--source', tmp_path, '--out', tmp_path / 'out')
    page.write_text('# A page\n\n[whole](https://example.org)\n')
    done = build(*arguments)
    assert done.returncode == 0, done.stderr
    page.write_text('# A page\n\n[broken](gone.md)\n\n<a href="gone.html">raw</a>\n')
    for _ in range(2):  # the second build does not forget
        done = build(*arguments)
        assert done.returncode == 1
        assert 'index.md:3: WARNING' in done.stderr and "'gone.md'" in done.stderr
        assert "index.html links to 'gone.html': no such file" in done.stderr


def test_what_is_missing_is_named(tmp_path):
    done = build('--source', tmp_path)
    assert done.returncode == 1 and 'has no conf.py' in done.stderr
    (tmp_path / 'sphinx.py').write_text('')  # as if there were no sphinx.cmd
    done = build(env={'PYTHONPATH': str(tmp_path)})
    assert 'pip install -r requirements/docs.txt' in done.stderr
    assert 'Traceback' not in done.stderr
