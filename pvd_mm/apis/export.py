# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A trained segmentor as one file that runs without PVD-MM, mmseg and mmengine, and the
proof that it computes the same."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from torch import Tensor, nn

from pvd_mm.ops.checks import check_choice
from pvd_mm.ops.compatibility import exports_any_size
from pvd_mm.ops.standard_operators import use_standard_operators
from pvd_mm.utils.errors import UsageError
from pvd_mm.utils.files import check_new, whole
from pvd_mm.version import __version__

from .adaptive_pooling import use_matrix_pooling
from .images import find_images
from .inferencers import load_inferencer

__all__ = ['Proof', 'WholeSegmentor', 'export']

#: Suffix of the file, by format.
FORMATS = {'onnx': '.onnx', 'pt2': '.pt2', 'torchscript': '.pt'}
OUTPUTS = ('labels', 'scores', 'logits')

#: The first with Col2Im, which the op becomes.
LEAST_OPSET = 18

#: Of an ONNX file, and the share of pixels whose labels have to be the same.
PRECISIONS = dict(float32=0.999, float16=0.99, int8=0.9)

#: Images of the train split that int8 is calibrated on.
_CALIBRATION_IMAGES = 32

Run = Callable[[np.ndarray], list[np.ndarray]]


class WholeSegmentor(nn.Module):
    """A segmentor of mmseg from the raw image to its result.

    Args:
        model (nn.Module): The trained model, one of mmseg.
        output (str): 'labels', 'scores' or 'logits'.
    """

    def __init__(self, model: nn.Module, output: str = 'labels') -> None:
        super().__init__()
        self.model = model
        self.output = output
        self.eval()
        preprocessor = model.data_preprocessor
        self.normalises = hasattr(preprocessor, 'mean')
        if self.normalises:
            self.register_buffer('mean', preprocessor.mean.clone())
            self.register_buffer('std', preprocessor.std.clone())

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) float, 0 to 255, to the result and the logits
        (N, out_channels, H, W); to these alone, if they are the result.

        Labels are (N, H, W) uint8, or int64 of more than 256 classes; scores
        (N, out_channels, H, W), from 0 to 1.
        """
        if self.normalises:
            normalised = (image - self.mean) / self.std
        else:
            normalised = image
        logits = self.model.encode_decode(normalised, [dict(img_shape=image.shape[2:])])
        if self.output == 'logits':
            return (logits,)
        binary = logits.size(1) == 1
        if self.output == 'scores':
            return logits.sigmoid() if binary else logits.softmax(1), logits
        if binary:
            labels = logits.sigmoid()[:, 0] > self.model.decode_head.threshold
        else:
            labels = logits.argmax(1)
        fits = logits.size(1) <= 256
        return labels.to(torch.uint8 if fits else torch.int64), logits


class Proof(NamedTuple):
    """How a file compares with the model that it was made from."""

    images: int
    agreement: float  # share of the pixels whose label is the same
    difference: float  # largest, of two logits
    largest: float  # logit, to compare it with
    miou: tuple[float, float] | None  # of model and file in percent, with labels

    def lines(self) -> list[str]:
        """For a terminal."""
        found = [
            f'images compared        {self.images}',
            f'labels that agree      {100 * self.agreement:.4f} %',
            f'difference of logits   {self.difference:.2g} at most, '
            f'of logits up to {self.largest:.3g}',
        ]
        if self.miou:
            model, file = self.miou
            found.append(f'mIoU on these images   model {model:.2f}, file {file:.2f}')
        return found


def export(
    config: str,
    checkpoint: str,
    out: str,
    format: str = 'onnx',
    output: str = 'labels',
    size: Sequence[int] | None = None,
    images: Sequence[str] | None = None,
    number: int = 8,
    precision: str = 'float32',
    agreement: float | None = None,
    opset: int = LEAST_OPSET,
    force: bool = False,
) -> Proof:
    """Write a trained segmentor to a file, and prove the file.

    The file takes images (N, 3, H, W), float32, 0 to 255, in the channel order that
    its metadata names, and gives labels (N, H, W), or scores or logits (N, C, H, W),
    of the images' size: normalisation and the resizing of the logits are in it. A
    resizing of the image, or its padding, by the config's test pipeline is not, and
    neither is a sliding window: that is the caller's. Metadata: ``classes``,
    ``palette``, ``channel_order``, ``output``, ``config`` and ``pvd_mm``, JSON where
    it is a list.

    Args:
        config (str): Path of a config, or the name of a shipped one.
        checkpoint (str): Its checkpoint.
        out (str): The file; it ends in .onnx, .pt2 or .pt, by its format.
        format (str): 'onnx' of standard operators, 'pt2' (``torch.export``) or
            'torchscript'. Defaults to 'onnx'.
        output (str): 'labels', 'scores' or 'logits'. Defaults to 'labels'.
        size (Sequence[int], optional): Height and width, fixed, of one image. Defaults
            to None: any number of images of any size.
        images (Sequence[str], optional): Files, folders and patterns to prove it on.
            Defaults to None: images of the config's test set.
        number (int): How many of them at most. Defaults to 8.
        precision (str): Of an ONNX file: 'float32'; 'float16', weights and what the
            runtime computes in it, input and output stay float32; or 'int8', the
            convolutions, by onnxruntime's static quantisation, calibrated on images of
            the config's train split. Defaults to 'float32'.
        agreement (float, optional): The least share of pixels whose labels have to be
            the same. Defaults to None: 0.999, of float16 0.99, of int8 0.9.
        opset (int): Of ONNX, 18 or more. Defaults to 18.
        force (bool): Whether ``out`` may be replaced. Defaults to False.

    Returns:
        Proof: How the file compares with the model.

    Raises:
        UserError: An argument is not allowed, ``out`` exists, a package is missing,
            the model cannot be exported, or the file differs from it; nothing is
            written then. Also what :func:`.load_inferencer` raises.
    """
    path = _check(out, format, output, size, number, precision, opset, force)
    agreement = PRECISIONS[precision] if agreement is None else agreement
    if not 0 <= agreement <= 1:
        raise UsageError(f'agreement is {agreement}; expected a share from 0 to 1.')
    inferencer = load_inferencer(config, checkpoint, device='cpu')
    if inferencer.scope != 'mmseg':
        raise UsageError(f'{config} is a detector; a segmentor can be exported.')
    model = inferencer.model
    model.test_cfg['mode'] = 'whole'
    model.data_preprocessor.test_cfg = None  # would pad
    samples = list(_samples(inferencer, images, number, size))
    calibration = _calibration(inferencer, size) if precision == 'int8' else []
    module = WholeSegmentor(model, output)
    swaps = _swaps_channels(inferencer)
    metadata = _metadata(model, config, output, swaps)
    example = _raw(samples[0]['inputs'][0], swaps)
    example = example if size else example.repeat(2, 1, 1, 1)
    with whole(path) as partial:
        try:
            _WRITERS[format](module, example, partial, metadata, size is None, opset)
        except Exception as error:  # of any kind, from three exporters
            raise UsageError(
                f'{config} cannot be exported as {format}: {type(error).__name__}: '
                f'{str(error).strip().splitlines()[0]}'
            ) from error
        _PRECISERS[precision](partial, calibration)
        run = _READERS[format](partial)
        proof = _prove(model, run, samples, swaps)
        _check_agreement(proof, agreement)
        if size is None:  # what an exporter takes from the example fails here
            other = _resized(samples[0], _another_size(samples[0]))
            _check_agreement(
                _prove(model, run, [other], swaps), agreement, ' for another size'
            )
        if format == 'onnx':
            _finish_onnx(partial)
    return proof


def _check(out, format, output, size, number, precision, opset, force) -> Path:
    try:
        check_choice('format', format, tuple(FORMATS))
        check_choice('precision', precision, tuple(PRECISIONS))
        check_choice('output', output, OUTPUTS)
    except ValueError as error:
        raise UsageError(str(error)) from error
    path = Path(out)
    if path.suffix != FORMATS[format]:
        raise UsageError(
            f"the file of format '{format}' has to end in {FORMATS[format]}, but got "
            f"'{out}'."
        )
    if size is not None and min(size) < 1:
        raise UsageError(
            f'size is {tuple(size)}; expected a height and a width above 0.'
        )
    if number < 1:
        raise UsageError(f'the number of images is {number}; expected at least 1.')
    if precision != 'float32' and format != 'onnx':
        raise UsageError(f"precision '{precision}' is for onnx, not for '{format}'.")
    if format != 'torchscript' and not exports_any_size():
        raise UsageError(
            f"format '{format}' needs torch 2.6 or newer, and this is torch "
            f"{torch.__version__}; 'torchscript' does not."
        )
    if format == 'onnx':
        _require('onnx', 'onnxscript', 'onnxruntime')
        if opset < LEAST_OPSET:
            raise UsageError(
                f'opset is {opset}; expected {LEAST_OPSET} or more, the first that has '
                'Col2Im.'
            )
    check_new([path], force)
    return path


def _check_agreement(proof: Proof, agreement: float, where: str = '') -> None:
    if not proof.agreement >= agreement:
        raise UsageError(
            '\n  '.join(
                [
                    f'the file does not compute what the model does{where}, and is not '
                    f'kept; labels have to agree to {100 * agreement:g} %:',
                    *proof.lines(),
                ]
            )
        )


def _require(*packages: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UsageError(
            f'{" and ".join(missing)} is not installed: pip install '
            f'{" ".join(packages)}'
        )


def _swaps_channels(inferencer) -> bool:
    """Whether the model takes RGB where mmcv loads BGR."""
    preprocessor = inferencer.cfg.model.get('data_preprocessor') or {}
    return any(preprocessor.get(name) for name in ('bgr_to_rgb', 'rgb_to_bgr'))


def _metadata(
    model: nn.Module, config: str, output: str, swaps: bool
) -> dict[str, str]:
    return dict(
        classes=json.dumps(model.dataset_meta['classes']),
        palette=json.dumps(model.dataset_meta['palette']),
        channel_order='RGB' if swaps else 'BGR',
        output=output,
        config=Path(config).stem,
        pvd_mm=__version__,
    )


def _samples(inferencer, images, number: int, size) -> Iterator[dict]:
    """Batches of one image, as the model's ``data_preprocessor`` takes them."""
    if images is not None:
        for path in find_images(images)[:number]:
            yield _resized(inferencer.prepare(str(path)), size)
        return
    dataset = DATASETS.build(inferencer.cfg.test_dataloader.dataset)
    for index in _spread(len(dataset), number):
        yield _resized(pseudo_collate([dataset[index]]), size)


def _spread(length: int, number: int) -> list[int]:
    """So many indices at most, evenly over all."""
    return [round(x) for x in np.linspace(0, length - 1, min(number, length))]


def _resized(batch: dict, size) -> dict:
    if size is not None:
        image = batch['inputs'][0][None].float()
        resized = nn.functional.interpolate(image, tuple(size), mode='bilinear')
        batch['inputs'] = [resized[0].round().to(torch.uint8)]
        batch['data_samples'][0].set_metainfo(dict(img_shape=tuple(size)))
    return batch


def _another_size(batch: dict) -> tuple[int, int]:
    """About three quarters of a batch's own, and odd."""
    return tuple(3 * side // 4 | 1 for side in batch['inputs'][0].shape[1:])


def _raw(image: Tensor, swaps: bool) -> Tensor:
    """What the file takes, (1, 3, H, W), from what mmcv has loaded, (3, H, W)."""
    return (image.flip(0) if swaps else image)[None].float()


# -- formats ------------------------------------------------------------------------


def _dynamic_shapes() -> tuple[dict]:
    auto = torch.export.Dim.DYNAMIC
    return ({0: auto, 2: auto, 3: auto},)


def _write_onnx(module, example, path, metadata, dynamic, opset) -> None:
    import onnx

    outputs = [module.output, 'logits'][: 1 if module.output == 'logits' else 2]
    with use_matrix_pooling():
        torch.onnx.export(
            module,
            (example,),
            str(path),
            dynamo=True,
            dynamic_shapes=_dynamic_shapes() if dynamic else None,
            opset_version=opset,
            input_names=['image'],
            output_names=outputs,
            external_data=False,
            verbose=False,
        )
    file = onnx.load(path)
    names = {0: 'batch', 2: 'height', 3: 'width'}
    _name_sides(file.graph, names if dynamic else {})
    for node in [*file.graph.node, *file.graph.value_info]:
        del node.metadata_props[:]  # stack traces, with the paths of this machine
        node.doc_string = ''
    del file.metadata_props[:]
    onnx.helper.set_model_props(file, metadata)
    onnx.save(file, path)


def _name_sides(graph, names: dict[int, str]) -> None:
    """Call the sides of the input and of what has its size by their names."""
    sides = graph.input[0].type.tensor_type.shape.dim
    old = {sides[i].dim_param: name for i, name in names.items()}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in old:
                side.dim_param = old[side.dim_param]
            elif side.dim_param and not side.dim_param.isidentifier():
                side.Clear()  # a formula of the old names


def _read_onnx(path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider']
    )
    return lambda image: session.run(None, {'image': image})


def _finish_onnx(path) -> None:
    """Drop the logits, which were there for the proof."""
    import onnx

    file = onnx.load(path)
    del file.graph.output[1:]
    onnx.save(file, path)
    onnx.checker.check_model(str(path), full_check=True)


def _to_float16(path: Path, calibration: list) -> None:
    import onnx
    from onnxruntime.transformers.onnx_model import OnnxModel

    file = OnnxModel(onnx.load(path))
    file.convert_float_to_float16(keep_io_types=True)
    file.topological_sort()
    onnx.save(file.model, path)


def _to_int8(path: Path, calibration: list[np.ndarray]) -> None:
    from onnxruntime import quantization

    images = iter(calibration)

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict | None:
            image = next(images, None)
            return None if image is None else dict(image=image)

    quantization.quantize_static(
        str(path), str(path), Reader(), per_channel=True, op_types_to_quantize=['Conv']
    )


def _calibration(inferencer, size) -> list[np.ndarray]:
    """Images of the train split, as the test pipeline loads them."""
    dataset = inferencer.cfg.train_dataloader.dataset
    while 'dataset' in dataset:  # e.g. RepeatDataset
        dataset = dataset.dataset
    dataset = DATASETS.build(dict(dataset, pipeline=[]))
    paths = [dataset[i]['img_path'] for i in _spread(len(dataset), _CALIBRATION_IMAGES)]
    batches = [_resized(inferencer.prepare(path), size) for path in paths]
    swaps = _swaps_channels(inferencer)
    return [_raw(batch['inputs'][0], swaps).numpy() for batch in batches]


_PRECISERS = dict(
    float32=lambda *_: None,
    float16=_to_float16,
    int8=_to_int8,
)


def _write_pt2(module, example, path, metadata, dynamic, opset) -> None:
    with use_standard_operators(), torch.no_grad():
        program = torch.export.export(
            module,
            (example,),
            dynamic_shapes=_dynamic_shapes() if dynamic else None,
            strict=False,
        )
    with open(path, 'wb') as file:
        torch.export.save(
            program, file, extra_files={'metadata.json': json.dumps(metadata)}
        )


def _read_pt2(path) -> Run:
    with open(path, 'rb') as file:
        module = torch.export.load(file).module()
    return lambda image: [x.numpy() for x in module(torch.from_numpy(image))]


def _write_torchscript(module, example, path, metadata, dynamic, opset) -> None:
    with use_standard_operators(), torch.no_grad():
        traced = torch.jit.trace(module, example, check_trace=False)
    torch.jit.save(traced, path, {'metadata.json': json.dumps(metadata)})


def _read_torchscript(path) -> Run:
    module = torch.jit.load(str(path))

    def run(image):
        with torch.no_grad():
            return [x.numpy() for x in module(torch.from_numpy(image))]

    return run


_WRITERS = dict(onnx=_write_onnx, pt2=_write_pt2, torchscript=_write_torchscript)
_READERS = dict(onnx=_read_onnx, pt2=_read_pt2, torchscript=_read_torchscript)


# -- proof --------------------------------------------------------------------------


@torch.no_grad()
def _prove(model: nn.Module, run: Run, samples: Sequence[dict], swaps: bool) -> Proof:
    """mmseg's own prediction beside that from the file's logits, at the size of the
    images' labels; and the file's result beside its logits."""
    same = pixels = 0
    difference = largest = 0.0
    areas = []
    for sample in samples:
        batch = model.data_preprocessor(sample, False)
        inputs, data_samples = batch['inputs'], batch['data_samples']
        own = model.encode_decode(inputs, [dict(img_shape=inputs.shape[2:])])
        expected = model.postprocess_result(own, data_samples)[0]
        wanted, logits = expected.pred_sem_seg.data, expected.seg_logits.data
        found = torch.from_numpy(run(_raw(sample['inputs'][0], swaps).numpy())[-1])
        difference = max(difference, (own - found).abs().max().item())
        largest = max(largest, logits.abs().max().item())
        got = model.postprocess_result(found, data_samples)[0].pred_sem_seg.data
        same += (got == wanted).sum().item()
        pixels += wanted.numel()
        if 'gt_sem_seg' in expected:
            areas.append(_areas(model, expected.gt_sem_seg.data, wanted, got))
    miou = tuple(_miou(parts) for parts in zip(*areas)) if areas else None
    return Proof(len(samples), same / pixels, difference, largest, miou)


def _areas(model, truth: Tensor, *predictions: Tensor) -> list:
    from mmseg.evaluation import IoUMetric

    number = len(model.dataset_meta['classes'])
    return [
        IoUMetric.intersect_and_union(p[0], truth[0].to(p), number, 255)
        for p in predictions
    ]


def _miou(areas: Sequence) -> float:
    intersect, union = (sum(parts) for parts in list(zip(*areas))[:2])
    return 100 * (intersect / union)[union > 0].mean().item()
