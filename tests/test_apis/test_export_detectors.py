# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Export of trained detectors: against mmdet's own test, mmcv's operators and mmdet's
pasting."""

import json
import runpy
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from helpers.commands import ROOT, run_exported
from helpers.torch_features import needs_automatic_sizes, skip_module
from helpers.untrained import DETECTOR, Trained, make
from pvd_mm.apis import export as exporting
from pvd_mm.apis.export import export
from pvd_mm.apis.export.files import finish_onnx, read, to_float16, to_int8, write
from pvd_mm.apis.export.samples import load_samples, raw, swaps_channels
from pvd_mm.apis.inferencers import load_inferencer
from pvd_mm.utils.errors import UserError

pytest.importorskip('mmdet', reason='mmdet is not installed')
skip_module(needs_automatic_sizes)
onnx = pytest.importorskip('onnx', reason='onnx is not installed')
ort = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
pytest.importorskip('onnxscript', reason='onnxscript is not installed')

import mmcv.ops  # noqa: E402
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402

from helpers import small_detectors as small  # noqa: E402
from pvd_mm.apis.export.detector import WholeDetector  # noqa: E402
from pvd_mm.apis.export.detector_operators import translations  # noqa: E402
from pvd_mm.apis.export.detector_proof import prove  # noqa: E402

NAMES = [name for name in small.HEADS if 'panoptic' not in name]
SIZES = ((96, 128), (97, 131), (33, 250))
SCRIPT = ROOT / 'tools/run_exported.py'


@pytest.fixture(autouse=True)
def _mmdet():
    init_default_scope('mmdet')


def narrow(name, **changes):
    model = small.detector(name, **changes).eval()
    for key, weight in model.named_parameters():
        if 'conv_votes' in key:  # untrained ones are those of plain upsampling
            torch.nn.init.normal_(weight, std=0.5)
    return model


def image_of(size):
    return np.random.RandomState(0).randint(0, 256, (1, 3, *size)).astype(np.float32)


def mmdet_detections(model, image, swaps):
    """mmdet's own prediction for an image (1, 3, H, W)."""
    size = image.shape[2:]
    sample = DetDataSample(
        metainfo=dict(ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0))
    )
    loaded = torch.from_numpy(image[0]).to(torch.uint8)
    loaded = loaded.flip(0) if swaps else loaded
    with torch.no_grad():
        (sample,) = model.test_step(dict(inputs=[loaded], data_samples=[sample]))
    return sample.pred_instances


def check_detections(model, run, sizes=SIZES, swaps=True):
    for size in sizes:
        image = image_of(size)
        boxes, scores, labels, masks = run(image)
        expected = mmdet_detections(model, image, swaps)
        assert len(boxes) == len(expected) > 0
        assert labels.tolist() == expected.labels.tolist()
        np.testing.assert_allclose(boxes, expected.bboxes, atol=1e-3)
        np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
        paste = runpy.run_path(str(SCRIPT))['paste']
        pasted = [paste(m, b, *size, 0.5) for m, b in zip(masks, boxes)]
        assert (np.stack(pasted) == expected.masks.numpy()).mean() > 0.9995


@pytest.mark.parametrize(
    'name, changes',
    [*((name, {}) for name in NAMES), *small.BY_SIZE.items()],
    ids=lambda x: x if isinstance(x, str) else f'{len(x)} changes',
)
def test_what_is_exported_is_what_mmdet_does(name, changes):
    model = narrow(name, **changes)
    module = WholeDetector(model)

    def run(image):
        with torch.no_grad():
            return [x.numpy() for x in module(torch.from_numpy(image))]

    check_detections(model, run, swaps=model.data_preprocessor._channel_conversion)


def test_fpn_with_levels_that_have_no_roi(tmp_path):
    """The file of a detector whose RoIs are cropped and decoded level by level."""
    model = narrow('pvd-mask-rcnn_r18-fpn')
    path = tmp_path / 'x.onnx'
    write('onnx', WholeDetector(model), torch.rand(1, 3, 128, 128), path, {}, True, 18)
    check_detections(model, read('onnx', path), SIZES[1:])


# -- operators ------------------------------------------------------------------------


def test_nms_is_that_of_mmcv():
    onnx_nms = translations()[torch.ops.pvd_mm.nms.default]
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (300, 2))
    boxes = np.hstack([corners, corners + rng.uniform(1, 40, (300, 2))]).astype('f')
    scores = rng.permutation(300).astype('f') / 300
    for threshold in (0.3, 0.7):
        kept = mmcv.ops.nms(boxes, scores, threshold)[1]
        kept = kept[scores[kept] > 0.5]
        assert 10 < len(kept) < 150
        found = onnx_nms(boxes, scores, threshold, 0.5, 10**6).value
        assert np.array_equal(found, kept)
        found = onnx_nms(boxes, scores, threshold, 0.5, 7).value
        assert np.array_equal(found, kept[:7])


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_is_that_of_mmcv(aligned, ratio):
    onnx_roi_align = translations()[torch.ops.pvd_mm.roi_align.default]
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 3, 20, 31)).astype('f')
    corners = rng.uniform(-5, 80, (40, 2))
    ends = corners + rng.uniform(0, 60, (40, 2))
    rois = np.hstack([rng.integers(0, 2, (40, 1)), corners, ends]).astype('f')
    rois[0] = 0  # without an extent
    arguments = 1 / 4, ratio, 'avg', aligned
    expected = mmcv.ops.roi_align(
        torch.from_numpy(maps), torch.from_numpy(rois), (7, 5), *arguments
    )
    found = onnx_roi_align(maps, rois, 7, 5, *arguments).value
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_highest():
    onnx_highest = translations()[torch.ops.pvd_mm.highest.default]
    scores = np.random.default_rng(0).permutation(9).astype('f')
    for most in (4, 9, 20):
        expected = np.argsort(-scores)[:most]
        assert np.array_equal(onnx_highest(scores, most).value, expected)
        found = torch.ops.pvd_mm.highest(torch.from_numpy(scores), most)
        assert found.tolist() == expected.tolist()


def test_script_pastes_as_mmdet_does():
    paste = runpy.run_path(str(SCRIPT))['paste']
    rng = np.random.default_rng(0)
    for n in (14, 28, 56):
        corners = rng.uniform(0, 60, (20, 2))
        boxes = np.hstack([corners, corners + rng.uniform(0.5, 70, (20, 2))])
        boxes = boxes.clip(0, (97, 80, 97, 80)).astype('f')
        masks = cv2.blur(rng.random((n, n, 20)).astype('f'), (5, 5)).transpose(2, 0, 1)
        for mask, box in zip(masks, boxes):
            arguments = torch.tensor(mask[None, None]), torch.tensor(box[None]), 80, 97
            part, place = _do_paste_mask(*arguments)
            expected = np.zeros((80, 97), bool)
            expected[tuple(place)] = part[0] >= 0.5
            found = paste(mask, box, 80, 97, 0.5)
            assert (found != expected).sum() <= 1  # where it is 0.5 but for rounding


# -- a file ---------------------------------------------------------------------------


@pytest.fixture(scope='module')
def files(shapes, tmp_path_factory):
    """A detector that finds something in two of its three images: its threshold is
    between the scores of the second and the third best."""
    folder = tmp_path_factory.mktemp('detector_files')
    base = 'pvd_mask_rcnn/pvd-mask-rcnn_r18-c4-c32_1xb4-600_shapes-192x256.py'
    text = DETECTOR.format(base=base, root=str(shapes))
    text += f'train_dataloader = dict(dataset=dict(data_root={str(shapes)!r}))\n'
    annotations = str(shapes / 'annotations/instances_val2017.json')
    text += f'test_evaluator = [dict(type="CocoMetric", ann_file={annotations!r},'
    text += 'metric=["bbox", "segm"])]\n'
    config, checkpoint = make(folder, 'all', text)
    inferencer = load_inferencer(config, checkpoint, device='cpu')
    best = sorted(
        float(inferencer.predict(str(path)).pred_instances.scores.max())
        for path in images(shapes)
    )
    text = text.replace('score_thr=0.0', f'score_thr={(best[0] + best[1]) / 2}')
    (folder / 'pvd.py').write_text(text)
    return Trained(str(folder / 'pvd.py'), checkpoint)


def images(root):
    return sorted((root / 'val2017').iterdir())


@pytest.fixture(scope='module')
def exported(files, tmp_path_factory):
    path = tmp_path_factory.mktemp('export') / 'pvd.onnx'
    proof = export(*files, str(path))
    assert (proof.images, proof.agreement, proof.masks) == (3, 1, 1)
    assert proof.detections >= 4 and proof.scores < 1e-5 and proof.boxes < 1e-2
    assert set(proof.ap) == {'box', 'mask'}
    assert all(model == file for model, file in proof.ap.values())
    return path


@pytest.fixture(scope='module')
def inferencer(files):
    return load_inferencer(*files, device='cpu')


def test_what_the_file_says_of_itself(exported, inferencer):
    file = onnx.load(exported)
    onnx.checker.check_model(file, full_check=True)
    assert {node.domain for node in file.graph.node} == {''}
    assert str(ROOT).encode() not in exported.read_bytes()
    shapes = {
        value.name: [
            side.dim_param or side.dim_value
            for side in value.type.tensor_type.shape.dim
        ]
        for value in (*file.graph.input, *file.graph.output)
    }
    assert shapes == dict(
        image=[1, 3, 'height', 'width'],
        boxes=['detections', 4],
        scores=['detections'],
        labels=['detections'],
        masks=['detections', 56, 56],
    )
    meta = ort.InferenceSession(str(exported)).get_modelmeta().custom_metadata_map
    assert json.loads(meta['classes']) == list(inferencer.model.dataset_meta['classes'])
    assert meta['output'] == 'detections'
    assert json.loads(meta['resize']) == dict(scale=[256, 192], keep_ratio=True)
    assert json.loads(meta['mask_threshold']) == 0.5


def test_images_with_and_without_a_detection(exported, inferencer):
    """Of other sizes than the one that it was recorded with, too."""
    run, model = read('onnx', exported), inferencer.model
    swaps = swaps_channels(inferencer)
    numbers = []
    for sample in load_samples(inferencer, None, 3, None):
        image = raw(sample, swaps).numpy()
        for part in (image, image[..., :101, :203].copy()):
            expected = mmdet_detections(model, part, swaps)
            boxes, scores, labels, masks = run(part)
            numbers.append(len(boxes))
            assert len(boxes) == len(masks) == len(expected)
            assert labels.tolist() == expected.labels.tolist()
            np.testing.assert_allclose(boxes, expected.bboxes, atol=1e-2)
    assert min(numbers) == 0 < max(numbers)


def test_script_paints_detections(exported, inferencer, shapes, tmp_path):
    expected = {
        path: inferencer.predict(str(path)).pred_instances for path in images(shapes)
    }
    path = max(expected, key=lambda path: len(expected[path]))
    names = exported, path, '--out', tmp_path / 'out.png', '--score-thr', 0
    text = run_exported(*names)
    classes = inferencer.model.dataset_meta['classes']
    found = expected[path]
    lines = text.strip().splitlines()
    assert len(lines) == len(found) > 0
    for line, label, box in zip(reversed(lines), found.labels, found.bboxes):
        assert line.startswith(classes[label])
        printed = np.array(line.split()[-4:], float)
        assert np.abs(printed - box.numpy()).max() < 0.6  # in whole pixels
    before, after = cv2.imread(str(path)), cv2.imread(str(tmp_path / 'out.png'))
    inside = found.masks.any(0).numpy()
    assert (before != after).any(-1)[inside].mean() > 0.9
    assert after.shape == before.shape


@pytest.mark.parametrize('precision, share', [('float16', 0.7), ('int8', 0.5)])
def test_smaller(exported, inferencer, tmp_path, precision, share):
    path = shutil.copy(exported, tmp_path / 'pvd.onnx')
    samples = list(load_samples(inferencer, None, 3, None))
    swaps = swaps_channels(inferencer)
    if precision == 'float16':
        to_float16(path, WholeDetector.half_operators)
    else:
        to_int8(path, [raw(sample, swaps).numpy() for sample in samples])
    finish_onnx(path, 0)  # checks it
    assert path.stat().st_size < share * exported.stat().st_size
    proof = prove(inferencer, read('onnx', path), samples, swaps)
    assert proof.detections and proof.scores < 0.05


def test_a_file_that_computes_something_else_is_not_kept(
    exported, files, tmp_path, monkeypatch
):
    """Scores are halved in it."""

    def write_other(format, module, example, path, *rest):
        file = onnx.load(exported)
        for node in file.graph.node:
            node.output[:] = ['whole' if x == 'scores' else x for x in node.output]
        half = onnx.helper.make_tensor('half', onnx.TensorProto.FLOAT, [], [0.5])
        file.graph.initializer.append(half)
        file.graph.node.append(
            onnx.helper.make_node('Mul', ['whole', 'half'], ['scores'])
        )
        onnx.save(file, path)

    monkeypatch.setattr(exporting, 'write', write_other)
    with pytest.raises(UserError, match='of the detections 99 % have to agree'):
        export(*files, str(tmp_path / 'pvd.onnx'))
    assert not list(tmp_path.iterdir())


def test_nothing_found_is_no_proof(exported, inferencer):
    samples = list(load_samples(inferencer, None, 3, None))
    run = read('onnx', exported)
    swaps = swaps_channels(inferencer)
    empty = [s for s in samples if len(run(raw(s, swaps).numpy())[0]) == 0]
    assert empty
    with pytest.raises(UserError, match='finds anything on these images'):
        prove(inferencer, run, empty, swaps)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(output='scores'), r"output 'scores' is of segmentors"),
        (dict(opset=17), r'opset is 17; expected 18 or more'),
    ],
)
def test_refusals(files, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        export(*files, **dict(dict(out='x.onnx'), **options))
    assert not list(tmp_path.iterdir())


def test_other_detectors_are_refused():
    from mmdet.registry import MODELS
    from mmengine.hub import get_config

    config = get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py').model
    config.backbone.init_cfg = None
    with pytest.raises(UserError, match='RetinaNet is not among the detectors'):
        WholeDetector(MODELS.build(config))
    soft = {'test_cfg.rcnn.nms.type': 'soft_nms'}
    with pytest.raises(UserError, match='the nms of the roi_head is .*soft_nms'):
        WholeDetector(small.detector(NAMES[0], **soft))
