# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Export of panoptic models: against mmdet's own test and its fusion."""

import json
import runpy

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from helpers.commands import ROOT, run_exported
from helpers.torch_features import needs_automatic_sizes, skip_module
from helpers.untrained import PANOPTIC, make
from pvd_mm.apis.export import export
from pvd_mm.apis.export.files import read
from pvd_mm.apis.inferencers import load_inferencer
from pvd_mm.utils.errors import UserError

pytest.importorskip('mmdet', reason='mmdet is not installed')
skip_module(needs_automatic_sizes)
for package in ('onnx', 'onnxruntime', 'onnxscript'):
    pytest.importorskip(package, reason=f'{package} is not installed')

from mmdet.evaluation.functional import INSTANCE_OFFSET  # noqa: E402

from helpers import small_detectors as small  # noqa: E402
from pvd_mm.apis.export.detector import WholePanopticModel, metadata  # noqa: E402

SCRIPT = ROOT / 'tools/run_exported.py'


@pytest.fixture(autouse=True)
def _mmdet():
    init_default_scope('mmdet')


def segments_of(told, things, number):
    """mmdet's map of segments (H, W) as the script's: numbers from 0 on, -1 for void,
    the objects first, and their classes."""
    ids = told.unique().tolist()
    ids = [i for i in ids if i % INSTANCE_OFFSET < number]
    ids.sort(key=lambda i: (i % INSTANCE_OFFSET >= things, i // INSTANCE_OFFSET, i))
    segments = np.full(told.shape, -1)
    for number, i in enumerate(ids):
        segments[told.numpy() == i] = number
    return segments, [i % INSTANCE_OFFSET for i in ids]


class Inferencer:
    def __init__(self, model):
        self.model = model
        pipeline = [dict(type='Resize', scale=(64, 48), keep_ratio=True)]
        self.cfg = small.Config(dict(test_dataloader=dict(dataset=dict())))
        self.cfg.test_dataloader.dataset.pipeline = pipeline


@pytest.mark.parametrize('size', [(96, 128), (97, 131), (33, 250)])
@pytest.mark.parametrize(
    'name, merge',
    [  # mmdet's own semantic head has one class for things
        ('pvd-panoptic_r18-fpn', True),
        ('pvd-panoptic_r18-fpn', False),
        ('panoptic-fpn_r18', True),
    ],
)
def test_what_is_exported_is_what_mmdet_does(name, merge, size):
    """Objects, labels, and the script's fusion of both."""
    changes = {} if merge else {'semantic_head.merge_things': False}
    changes['test_cfg.panoptic.stuff_area_limit'] = 500
    model = small.detector(name, **changes).eval()
    with torch.no_grad():  # or one class has all pixels
        model.semantic_head.conv_logits.weight.mul_(30)
    module = WholePanopticModel(model)
    image = np.random.RandomState(0).randint(0, 256, (1, 3, *size)).astype('f')
    with torch.no_grad():
        found = [x.numpy() for x in module(torch.from_numpy(image))]
    boxes, scores, labels, masks, semantic = found
    # the first three, and no empty masks of an untrained model
    model.test_cfg.panoptic.score_thr = float(scores[2:4].mean())
    model.roi_head.test_cfg.mask_thr_binary = float(np.median(masks))

    loaded = torch.from_numpy(image[0]).byte()
    if model.data_preprocessor._channel_conversion:
        loaded = loaded.flip(0)
    sample = small.sample(size, [])
    expected = small.predict(model, dict(inputs=[loaded], data_samples=[sample]))[0]
    objects = expected.pred_instances
    assert len(boxes) == len(objects) > 0
    assert labels.tolist() == objects.labels.tolist()
    np.testing.assert_allclose(boxes, objects.bboxes, atol=1e-3)
    np.testing.assert_allclose(scores, objects.scores, atol=1e-5)
    assert semantic.shape == size and semantic.dtype == np.int32
    assert 0 <= semantic.min() and semantic.max() <= small.STUFF

    about = metadata(Inferencer(model), module)
    about['classes'] = json.dumps(['class'] * (small.CLASSES + small.STUFF))
    fuse = runpy.run_path(str(SCRIPT))['fuse']
    segments, classes = fuse([boxes, scores, labels, masks], semantic, about)
    told = expected.pred_panoptic_seg.sem_seg[0]
    number = small.CLASSES + small.STUFF
    wanted, wanted_classes = segments_of(told, small.CLASSES, number)
    assert classes == wanted_classes
    assert 0 < sum(i < small.CLASSES for i in classes) <= 3 < len(classes) + 2
    assert (segments == wanted).mean() > 0.999


def test_heads_that_a_file_cannot_have():
    model = small.detector('panoptic-fpn_r18')
    model.panoptic_fusion_head = torch.nn.Identity()
    with pytest.raises(UserError, match='HeuristicFusionHead, but .* has a Identity'):
        WholePanopticModel(model)


def test_a_file(street_panoptic, tmp_path):
    base = 'pvd_panoptic/pvd-panoptic_r18-fpn-c32_1xb2-600_street-panoptic-192x256.py'
    text = PANOPTIC.format(base=base, root=str(street_panoptic))
    trained = make(tmp_path, 'panoptic', text)
    path = tmp_path / 'panoptic.onnx'
    proof = export(*trained, str(path), number=2)
    assert proof.images == 2 and proof.detections > 0
    assert proof.same == 1 and proof.labels > 0.999
    assert proof.agreement == proof.labels
    assert any(line.startswith('labels that agree') for line in proof.lines())
    assert 'mask' in proof.ap

    # of the size that it is resized to: labels are resized otherwise than logits
    image = sorted(street_panoptic.glob('leftImg8bit/val/dornhalm/*.png'))[0]
    image = cv2.resize(cv2.imread(str(image)), (128, 64))
    scene = tmp_path / 'scene.png'
    cv2.imwrite(str(scene), image)
    out = tmp_path / 'out.png'
    lines = run_exported(path, scene, '--out', out)
    inferencer = load_inferencer(*trained, device='cpu')
    told = inferencer.predict(str(scene)).pred_panoptic_seg.sem_seg[0]
    names = inferencer.model.dataset_meta['classes']
    _, classes = segments_of(told, 8, len(names))
    printed = [' '.join(line.split()[:-2]) for line in lines.strip().splitlines()]
    assert printed == [names[i] for i in classes]
    before, after = cv2.imread(str(scene)), cv2.imread(str(out))
    assert after.shape == before.shape and (before != after).any(-1).mean() > 0.5
    image = np.zeros((1, 3, 75, 101), np.float32)  # of another size
    assert read('onnx', path)(image)[4].shape == (75, 101)
