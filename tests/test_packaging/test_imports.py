# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Who imports whom: downwards only, and never in a circle (docs/architecture.md).

Imports inside functions count as well.
"""

import ast
import re

import pytest

from helpers.commands import ROOT

# What a package may import of pvd_mm, beside itself and pvd_mm.version.
MAY_IMPORT = {
    'utils': (),
    'ops': (),
    'decoder': ('ops',),
    'semantic': ('utils', 'ops', 'decoder'),
    'instance': ('utils', 'ops', 'decoder'),
    'panoptic': ('utils', 'ops', 'decoder', 'instance'),
    'data': ('utils', 'semantic'),
    'engine': ('utils',),
    'apis': ('utils', 'ops', 'engine', 'panoptic'),
    'visualization': ('utils', 'ops', 'decoder', 'apis'),
}
# What else it may not import.
FOREIGN = {
    'utils': r'mm\w+|cv2',
    'ops': r'mm\w+|numpy|cv2',
    'decoder': r'mmseg|mmdet|mmcv\.(?!cnn)',
    'semantic': r'mmdet',
    'instance': r'mmseg',
    'panoptic': r'mmseg',
}
PROGRAMS = sorted(
    path.name for path in (ROOT / 'tools').iterdir() if (path / '__init__.py').is_file()
)


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    parts = parts[1:] if parts[0] == 'tools' else parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = {
    module_of(path): path
    for folder in ('pvd_mm', 'tools')
    for path in sorted((ROOT / folder).rglob('*.py'))
    if '.mim' not in path.parts
}


def imported(path):
    """Absolute names of what a file imports: of ``from a import b`` ``a.b``, and
    ``a`` unless ``a.b`` is a module."""
    package = module_of(path).split('.')
    if path.name != '__init__.py':
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = '.'.join([*base, *filter(None, [node.module])])
            members = [f'{module}.{alias.name}' for alias in node.names]
            yield from members
            if not all(name in FILES for name in members):
                yield module


def test_the_table_has_every_package():
    packages = [path.parent.name for path in ROOT.glob('pvd_mm/*/__init__.py')]
    assert sorted(MAY_IMPORT) == sorted(packages)


@pytest.mark.parametrize('package', MAY_IMPORT)
def test_imports_go_down_only(package):
    allowed = '|'.join(['version', package, *MAY_IMPORT[package]])
    wrong = rf'pvd_mm\.(?!({allowed})\b)'
    wrong += rf'|{FOREIGN[package]}' if package in FOREIGN else ''
    wrong += rf'|({"|".join([*PROGRAMS, "tests", "helpers"])})\b'
    for path in (ROOT / 'pvd_mm' / package).rglob('*.py'):
        upwards = [name for name in imported(path) if re.match(wrong, name)]
        assert upwards == [], f'{path.relative_to(ROOT)} imports {upwards}'


def test_no_circle_of_imports():
    graph = {
        name: {one for one in imported(path) if one in FILES and one != name}
        for name, path in FILES.items()
    }
    done, way = set(), []

    def visit(name):
        if name in way:
            raise AssertionError(' -> '.join([*way[way.index(name) :], name]))
        if name in done:
            return
        way.append(name)
        for other in sorted(graph[name]):
            visit(other)
        done.add(way.pop())

    for name in graph:
        visit(name)
