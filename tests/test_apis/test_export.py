# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Export of trained segmentors: the files, run by onnxruntime and by torch alone."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from helpers.commands import ROOT, python, run_exported
from helpers.torch_features import needs_automatic_sizes
from helpers.untrained import DETECTOR, SEGMENTOR, make
from pvd_mm.apis import export as exporting
from pvd_mm.apis.export import export
from pvd_mm.apis.export.files import to_int8
from pvd_mm.apis.inferencers import load_inferencer
from pvd_mm.utils.errors import UserError

onnx = pytest.importorskip('onnx', reason='onnx is not installed')
ort = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
pytest.importorskip('onnxscript', reason='onnxscript is not installed')

pytestmark = needs_automatic_sizes

SIZES = ((1, 3, 64, 128), (3, 3, 97, 131), (2, 3, 33, 250))


@pytest.fixture(scope='module')
def segmentor_files(street, tmp_path_factory):
    """A street model whose train split is there too, for the calibration."""
    text = SEGMENTOR.format(
        base='pvd/pvd_r18-stage-c32_1xb2-600_street-192x256.py',
        head='',
        root=str(street),
    )
    text += f'train_dataloader = dict(dataset=dict(data_root={str(street)!r}))\n'
    return make(tmp_path_factory.mktemp('segmentor_files'), 'pvd', text)


@pytest.fixture(scope='module')
def labels_file(segmentor_files, tmp_path_factory):
    path = tmp_path_factory.mktemp('export') / 'pvd.onnx'
    proof = export(*segmentor_files, str(path))
    assert proof.agreement == 1 and proof.images == 3
    assert proof.difference < 1e-5 < proof.largest
    assert proof.miou[0] == proof.miou[1] > 0
    return path


@pytest.fixture(scope='module')
def model(segmentor_files):
    return load_inferencer(*segmentor_files, device='cpu').model


def mmseg_labels(model, images):
    """mmseg's own prediction; images (N, 3, H, W), RGB."""
    samples = [image.flip(0).to(torch.uint8) for image in torch.from_numpy(images)]
    batch = model.data_preprocessor(dict(inputs=samples), False)
    with torch.no_grad():
        found = model.predict(batch['inputs'])
    return np.stack([sample.pred_sem_seg.data[0].numpy() for sample in found])


def random_images(size):
    return np.random.RandomState(0).randint(0, 256, size).astype(np.float32)


def session(path):
    return ort.InferenceSession(str(path), providers=['CPUExecutionProvider'])


@pytest.mark.parametrize('size', SIZES, ids=str)
def test_any_number_of_images_of_any_size(labels_file, model, size):
    images = random_images(size)
    (labels,) = session(labels_file).run(None, dict(image=images))
    assert labels.dtype == np.uint8 and labels.shape == (size[0], *size[2:])
    assert (labels == mmseg_labels(model, images)).mean() > 0.9999


def test_what_the_file_says_of_itself(labels_file, model):
    file = onnx.load(labels_file)
    onnx.checker.check_model(file, full_check=True)
    assert {node.domain for node in file.graph.node} == {''}
    assert not [node for node in file.graph.node if node.metadata_props]
    assert str(ROOT).encode() not in labels_file.read_bytes()
    sides = [side.dim_param for side in file.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ['batch', '', 'height', 'width']
    assert [value.name for value in file.graph.output] == ['labels']
    meta = session(labels_file).get_modelmeta().custom_metadata_map
    assert json.loads(meta['classes']) == list(model.dataset_meta['classes'])
    assert json.loads(meta['palette'])[0] == [128, 64, 128]
    assert (meta['channel_order'], meta['config']) == ('RGB', 'pvd')


def test_operators_of_a_step(labels_file):
    """The op is few operators: a multiplication and Col2Im with its shapes."""
    kinds = [node.op_type for node in onnx.load(labels_file).graph.node]
    steps = 4
    assert kinds.count('Col2Im') == kinds.count('Mul') == steps
    for kind, most in dict(Unsqueeze=2, Reshape=3, Concat=2, Slice=2).items():
        assert kinds.count(kind) <= steps * most, kind
    assert not {'Split', 'Gather', 'Pad', 'DepthToSpace'} & set(kinds)


def test_scores_of_a_fixed_size(segmentor_files, model, tmp_path):
    path = tmp_path / 'pvd.onnx'
    export(*segmentor_files, str(path), output='scores', size=(70, 90))
    (value,) = session(path).get_inputs()
    assert value.shape == [1, 3, 70, 90]
    images = random_images((1, 3, 70, 90))
    (scores,) = session(path).run(None, dict(image=images))
    assert scores.shape == (1, 19, 70, 90)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    assert (scores.argmax(1) == mmseg_labels(model, images)).mean() > 0.9999


FOREIGN = """
import sys
for name in ('pvd_mm', 'mmengine', 'mmcv', 'mmseg'):
    sys.modules[name] = None  # cannot be imported
import json, numpy, torch
image = torch.from_numpy(numpy.load(sys.argv[2]))
extra = {'metadata.json': ''}
if sys.argv[1].endswith('.pt2'):
    run = torch.export.load(sys.argv[1], extra_files=extra).module()
else:
    run = torch.jit.load(sys.argv[1], _extra_files=extra)
with torch.no_grad():
    numpy.save(sys.argv[3], run(image)[0].numpy())
print(json.loads(extra['metadata.json'])['channel_order'])
"""


@pytest.mark.parametrize('format, suffix', [('pt2', '.pt2'), ('torchscript', '.pt')])
def test_files_for_torch_alone(segmentor_files, model, tmp_path, format, suffix):
    path = tmp_path / f'pvd{suffix}'
    export(*segmentor_files, str(path), format=format)
    for size in SIZES[1:]:
        images = random_images(size)
        np.save(tmp_path / 'in.npy', images)
        names = path, tmp_path / 'in.npy', tmp_path / 'out.npy'
        assert 'RGB' in python('-c', FOREIGN, *names, PYTHONPATH='')
        labels = np.load(tmp_path / 'out.npy')
        assert (labels == mmseg_labels(model, images)).mean() > 0.9999


@pytest.mark.parametrize('precision, share', [('float16', 0.75), ('int8', 0.5)])
def test_smaller(segmentor_files, labels_file, tmp_path, precision, share):
    path = tmp_path / 'pvd.onnx'
    proof = export(*segmentor_files, str(path), precision=precision, agreement=0.5)
    assert 0 < proof.difference < 0.2 * proof.largest
    weights = [
        onnx.numpy_helper.to_array(weight).astype(int)
        for weight in onnx.load(path).graph.initializer
        if weight.name.endswith('weight_quantized')
    ]
    assert bool(weights) is (precision == 'int8')
    # 8 bits would overflow on CPUs without VNNI
    assert all(abs(weight).max() <= 64 for weight in weights)
    assert path.stat().st_size < share * labels_file.stat().st_size
    (labels,) = session(path).run(None, dict(image=random_images((2, 3, 50, 70))))
    assert labels.shape == (2, 50, 70)


def test_one_strange_image_does_not_widen_int8(labels_file, model, tmp_path):
    path = Path(shutil.copy(labels_file, tmp_path))
    images = [factor * random_images((1, 3, 33, 65)) for factor in (1, 1, 1, 9)]
    to_int8(path, images, mean_range=True)
    values = {weight.name: weight for weight in onnx.load(path).graph.initializer}
    scale = onnx.numpy_helper.to_array(values['div_scale'])  # of normalised images
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    maps = [((torch.from_numpy(image) - mean) / std).flatten() for image in images]
    ranges = torch.tensor([[x.max() - x.min()] for x in maps])
    assert scale * 255 == pytest.approx(ranges.mean().item(), rel=1e-3)
    assert scale * 255 < ranges.max() / 2


def test_example_that_runs_a_file(labels_file, model, tmp_path):
    image = random_images((61, 93, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'in.png'), image)
    names = labels_file, tmp_path / 'in.png', '--out', tmp_path / 'out.png'
    text = run_exported(*names)
    labels = mmseg_labels(model, image[..., ::-1].transpose(2, 0, 1)[None].copy())[0]
    palette = np.array(model.dataset_meta['palette'], np.uint8)
    expected = cv2.addWeighted(image, 0.5, palette[labels][..., ::-1], 0.5, 0)
    assert (cv2.imread(str(tmp_path / 'out.png')) == expected).mean() > 0.999
    most = model.dataset_meta['classes'][np.bincount(labels.ravel()).argmax()]
    assert most in text


def test_a_file_that_computes_something_else_is_not_kept(
    segmentor_files, tmp_path, monkeypatch
):
    """The normalisation is left out of the file."""
    monkeypatch.setattr(
        exporting.WholeSegmentor, '__init__', _without_normalisation(exporting)
    )
    with pytest.raises(UserError, match='does not compute what the model does'):
        export(*segmentor_files, str(tmp_path / 'pvd.pt'), format='torchscript')
    assert not list(tmp_path.iterdir())


def _without_normalisation(module):
    upstream = module.WholeSegmentor.__init__

    def init(self, *arguments):
        upstream(self, *arguments)
        self.normalises = False

    return init


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(out='x.pt'), r'has to end in \.onnx'),
        (dict(format='tensorrt'), r'format must be one of'),
        (dict(output='masks'), r'output must be one of'),
        (dict(opset=17), r'opset is 17; expected 18 or more'),
        (dict(size=(0, 4)), r'size is \(0, 4\)'),
        (dict(number=0), r'number of images is 0'),
        (dict(precision='int4'), r'precision must be one of'),
        (dict(out='x.pt2', format='pt2', precision='int8'), r'is for onnx'),
        (dict(agreement=1.5), r'agreement is 1.5; expected a share from 0 to 1'),
    ],
)
def test_refusals(segmentor_files, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        export(*segmentor_files, **dict(dict(out='x.onnx'), **options))
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced(segmentor_files, run_tool, tmp_path):
    path = tmp_path / 'pvd.onnx'
    path.write_text('mine')
    text = run_tool('export', *segmentor_files, '--out', path, ok=False)
    assert 'export:' in text and 'would be replaced' in text
    assert path.read_text() == 'mine'


def test_an_older_torch(segmentor_files, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, 'exports_any_size', lambda: False)
    with pytest.raises(UserError, match=r"'onnx' needs torch 2\.6 or newer"):
        export(*segmentor_files, str(tmp_path / 'x.onnx'))


@pytest.mark.parametrize('format, end', [('pt2', 'pt2'), ('torchscript', 'pt')])
def test_detectors_are_onnx_alone(format, end, shapes, tmp_path, monkeypatch):
    pytest.importorskip('mmdet', reason='mmdet is not installed')
    monkeypatch.setattr(exporting, 'exports_any_size', lambda: True)
    base = 'pvd_mask_rcnn/pvd-mask-rcnn_r18-c4-c32_1xb4-600_shapes-192x256.py'
    text = DETECTOR.format(base=base, root=str(shapes))
    files = make(tmp_path, 'detector', text)
    out = tmp_path / f'x.{end}'
    with pytest.raises(UserError, match=f"format '{format}' is for segmentors"):
        export(files.config, files.checkpoint, str(out), format=format)
    assert not out.exists()


def test_missing_package(segmentor_files, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        'find_spec',
        lambda name, *rest: None if name == 'onnxruntime' else find(name, *rest),
    )
    with pytest.raises(UserError, match='onnxruntime is not installed: pip install'):
        export(*segmentor_files, str(tmp_path / 'x.onnx'))
