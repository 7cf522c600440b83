# Copyright (c) PVD-MM contributors. Apache-2.0.
import pytest

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
