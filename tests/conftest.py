# Copyright (c) PVD-MM contributors. Apache-2.0.
import runpy
import sys

import pytest
from packaging_helpers import ROOT

SCOPES = dict(test_semantic='mmseg', test_instance='mmdet')


@pytest.fixture(autouse=True)
def _fresh_mmengine(request):
    """mmengine keeps the default scope, the logger, the message hub and the
    visualizer of a process; a test must not find those of another test, for
    which test runs before it in a process depends on the machine."""
    from mmengine.registry import init_default_scope
    from mmengine.utils import ManagerMixin
    kinds = [ManagerMixin]
    for kind in kinds:  # grows
        kinds += kind.__subclasses__()
        kind._instance_dict.clear()
    scope = SCOPES.get(request.path.parent.name)
    if scope:
        init_default_scope(scope)


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Runs a tool in this process, which has imported everything, and gives
    what it prints. Arguments as of ``packaging_helpers.tool``."""

    def run(name, *words, ok=True):
        path = str(ROOT / 'tools' / f'{name}.py')
        monkeypatch.setattr(sys, 'argv', [path, *map(str, words)])
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as end:
            assert ok is not bool(end.code), end.code
            if isinstance(end.code, str):
                print(end.code)
        else:
            assert ok
        return ''.join(capsys.readouterr())

    return run
