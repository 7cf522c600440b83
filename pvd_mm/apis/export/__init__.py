# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A trained model as one file that runs without PVD-MM and OpenMMLab, and the proof
that it computes the same."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from pvd_mm.ops.checks import check_choice
from pvd_mm.ops.compatibility import exports_any_size
from pvd_mm.utils.errors import UsageError
from pvd_mm.utils.files import check_new, whole
from pvd_mm.version import __version__

from ..inferencers import load_inferencer
from .files import (
    FORMATS,
    LEAST_OPSET,
    PRECISIONS,
    finish_onnx,
    read,
    to_float16,
    to_int8,
    write,
)
from .samples import (
    another_size,
    calibration_images,
    load_samples,
    raw,
    resized,
    swaps_channels,
)
from .segmentor import OUTPUTS, Proof, WholeSegmentor

__all__ = ['Proof', 'WholeSegmentor', 'export']

#: The module of each framework, which needs no other framework.
_MODULES = dict(mmseg='.segmentor', mmdet='.detector')

#: Of an ONNX file, and the share of pixels whose labels have to be the same, or of
#: detections.
AGREEMENTS = dict(
    mmseg=dict(float32=0.999, float16=0.99, int8=0.9),
    mmdet=dict(float32=0.99, float16=0.9, int8=0.5),
)


def export(
    config: str,
    checkpoint: str,
    out: str,
    format: str = 'onnx',
    output: str | None = None,
    size: Sequence[int] | None = None,
    images: Sequence[str] | None = None,
    number: int = 8,
    precision: str = 'float32',
    agreement: float | None = None,
    opset: int = LEAST_OPSET,
    force: bool = False,
):
    """Write a trained segmentor, detector or panoptic model to a file, and prove the
    file.

    A segmentor's file takes images (N, 3, H, W), float32, 0 to 255, in the channel
    order that its metadata names, and gives labels (N, H, W), or scores or logits
    (N, C, H, W), of the images' size: normalisation and the resizing of the logits are
    in it. A detector's takes one image, (1, 3, H, W), and gives what
    :meth:`.WholeDetector.forward` returns, a panoptic model's what
    :meth:`.WholePanopticModel.forward` returns: normalisation, padding and NMS are in
    it. A resizing of the image by the config's test pipeline is not, and neither is a
    sliding window: that is the caller's. Metadata: ``classes``, ``palette``,
    ``channel_order``, ``output``, ``config`` and ``pvd_mm``, JSON where it is a list;
    of a detector also ``resize`` and ``mask_threshold``, of a panoptic model
    ``fusion``, JSON.

    Args:
        config (str): Path of a config, or the name of a shipped one.
        checkpoint (str): Its checkpoint.
        out (str): The file; it ends in .onnx, .pt2 or .pt, by its format.
        format (str): 'onnx' of standard operators; of segmentors also 'pt2'
            (``torch.export``) or 'torchscript'. Defaults to 'onnx'.
        output (str, optional): Of segmentors, 'labels', 'scores' or 'logits'. Defaults
            to None: 'labels'.
        size (Sequence[int], optional): Height and width, fixed, of one image. Defaults
            to None: images of any size; of segmentors, any number of them.
        images (Sequence[str], optional): Files, folders and patterns to prove it on.
            Defaults to None: images of the config's test set.
        number (int): How many of them at most. Defaults to 8.
        precision (str): Of an ONNX file: 'float32'; 'float16', weights and what the
            runtime computes in it, input and output stay float32; or 'int8', the
            convolutions, by onnxruntime's static quantisation, calibrated on images of
            the config's train split. Defaults to 'float32'.
        agreement (float, optional): The least share of pixels whose labels have to be
            the same, or of detections, see :mod:`.detector_proof`. Defaults to None:
            that of ``AGREEMENTS``.
        opset (int): Of ONNX, 18 or more. Defaults to 18.
        force (bool): Whether ``out`` may be replaced. Defaults to False.

    Returns:
        Proof | DetectorProof: How the file compares with the model.

    Raises:
        UserError: An argument is not allowed, ``out`` exists, a package is missing,
            the model cannot be exported, or the file differs from it; nothing is
            written then. Also what :func:`.load_inferencer` raises.
    """
    path = _check(out, format, output, size, number, precision, opset, force)
    if agreement is not None and not 0 <= agreement <= 1:
        raise UsageError(f'agreement is {agreement}; expected a share from 0 to 1.')
    inferencer = load_inferencer(config, checkpoint, device='cpu')
    if agreement is None:
        agreement = AGREEMENTS[inferencer.scope][precision]
    if format != 'onnx' and inferencer.scope != 'mmseg':
        raise UsageError(
            f"format '{format}' is for segmentors; detectors have operators that only "
            'ONNX has: RoIAlign and NMS.'
        )
    task = importlib.import_module(_MODULES[inferencer.scope], __name__)
    module = task.wrap(inferencer, output)
    samples = list(load_samples(inferencer, images, number, size))
    calibration = calibration_images(inferencer, size) if precision == 'int8' else []
    swaps = swaps_channels(inferencer)
    metadata = dict(
        _metadata(inferencer.model, config, swaps), **task.metadata(inferencer, module)
    )
    example = raw(samples[0], swaps)
    if size is None and 0 in module.sides:
        example = example.repeat(2, 1, 1, 1)  # 1 would be a fixed number
    with whole(path) as partial:
        try:
            write(format, module, example, partial, metadata, size is None, opset)
        except Exception as error:  # of any kind, from three exporters
            raise UsageError(
                f'{config} cannot be exported as {format}: {type(error).__name__}: '
                f'{str(error).strip().splitlines()[0]}'
            ) from error
        if precision == 'float16':
            to_float16(partial, module.half_operators)
        elif precision == 'int8':
            to_int8(partial, calibration, module.mean_range)
        run = read(format, partial)
        proof = task.prove(inferencer, run, samples, swaps)
        _check_agreement(proof, agreement, task.COMPARED)
        if size is None:  # what an exporter takes from the example fails here
            other = resized(samples[0], another_size(samples[0]))
            again = task.prove(inferencer, run, [other], swaps)
            _check_agreement(again, agreement, task.COMPARED, ' for another size')
        if format == 'onnx':
            finish_onnx(partial, module.proof_outputs)
    return proof


def _check(out, format, output, size, number, precision, opset, force) -> Path:
    try:
        check_choice('format', format, tuple(FORMATS))
        check_choice('precision', precision, PRECISIONS)
        check_choice('output', output, (None, *OUTPUTS))
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


def _check_agreement(
    proof: NamedTuple, agreement: float, compared: str, where: str = ''
) -> None:
    if not proof.agreement >= agreement:
        raise UsageError(
            '\n  '.join(
                [
                    f'the file does not compute what the model does{where}, and is not '
                    f'kept; of the {compared} {100 * agreement:g} % have to agree:',
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


def _metadata(model: torch.nn.Module, config: str, swaps: bool) -> dict[str, str]:
    return dict(
        classes=json.dumps(model.dataset_meta['classes']),
        palette=json.dumps(model.dataset_meta['palette']),
        channel_order='RGB' if swaps else 'BGR',
        config=Path(config).stem,
        pvd_mm=__version__,
    )
