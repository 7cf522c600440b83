# Copyright (c) PVD-MM contributors. Apache-2.0.
import pytest
from analysis_helpers import DETECTOR, SEGMENTOR, make

from pvd_mm.samples import make_shapes_sample, make_street_sample


@pytest.fixture(scope='session')
def street(tmp_path_factory):
    """Three street scenes, in two folders."""
    root = tmp_path_factory.mktemp('street')
    make_street_sample(root, 1, 3, (64, 128))
    return root


@pytest.fixture(scope='session')
def segmentor(street, tmp_path_factory):
    base = 'pvd/pvd_r18-stage-c32_1xb2-600_street-192x256.py'
    text = SEGMENTOR.format(base=base, head='', root=str(street))
    return make(tmp_path_factory.mktemp('segmentor'), 'pvd', text)


@pytest.fixture(scope='session')
def baseline(street, tmp_path_factory):
    base = 'deeplabv3/deeplabv3_r18-d8-c32_1xb2-600_street-192x256.py'
    text = SEGMENTOR.format(base=base, head='', root=str(street))
    return make(tmp_path_factory.mktemp('baseline'), 'deeplabv3', text, seed=1)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp('shapes')
    make_shapes_sample(root, 1, 3, (96, 128))
    return root


@pytest.fixture(scope='session')
def detector(shapes, tmp_path_factory):
    base = 'pvd_mask_rcnn/pvd-mask-rcnn_r18-c4-c32_1xb4-600_shapes-192x256.py'
    text = DETECTOR.format(base=base, root=str(shapes))
    return make(tmp_path_factory.mktemp('detector'), 'pvd-mask-rcnn', text)
