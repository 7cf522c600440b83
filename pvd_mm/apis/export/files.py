# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The formats of a file: writing it, running it, making it smaller."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pvd_mm.ops.compatibility import pool_without_guards

from .adaptive_pooling import use_matrix_pooling
from .whole_model import WholeModel

#: Suffix of the file, by format.
FORMATS = {'onnx': '.onnx', 'pt2': '.pt2', 'torchscript': '.pt'}

#: The first with Col2Im, which the op becomes.
LEAST_OPSET = 18

PRECISIONS = ('float32', 'float16', 'int8')

Run = Callable[[np.ndarray], list[np.ndarray]]


def write(
    format: str,
    module: WholeModel,
    example: Tensor,
    path: Path,
    metadata: dict[str, str],
    dynamic: bool,
    opset: int,
) -> None:
    """Write a module.

    Args:
        format (str): One of ``FORMATS``.
        module (WholeModel): The model.
        example (Tensor): Images, (N, 3, H, W).
        path (Path): The file.
        metadata (dict[str, str]): Of the file.
        dynamic (bool): Whether its ``sides`` are free.
        opset (int): Of ONNX.
    """
    _WRITERS[format](module, example, path, metadata, dynamic, opset)


def read(format: str, path: Path) -> Run:
    """What runs a file: a function of an image (N, 3, H, W) to the list of its
    outputs."""
    return _READERS[format](path)


def _program(
    module: WholeModel, example: Tensor, dynamic: bool
) -> torch.export.ExportedProgram:
    free = {side: torch.export.Dim.DYNAMIC for side in module.sides}
    with module.recording(), pool_without_guards(), torch.no_grad():
        return torch.export.export(
            module,
            (example,),
            dynamic_shapes=(free,) if dynamic else None,
            strict=False,
        )


def _write_onnx(module, example, path, metadata, dynamic, opset) -> None:
    import onnx

    with use_matrix_pooling():
        program = _program(module, example, dynamic)
    torch.onnx.export(
        program,
        (),
        str(path),
        dynamo=True,
        opset_version=opset,
        custom_translation_table=module.translations(),
        input_names=['image'],
        output_names=module.output_names,
        external_data=False,
        verbose=False,
    )
    file = onnx.load(path)
    _name_sides(file.graph, module.sides if dynamic else {}, module.first_side)
    for node in [*file.graph.node, *file.graph.value_info]:
        del node.metadata_props[:]  # stack traces, with the paths of this machine
        node.doc_string = ''
    del file.metadata_props[:]
    onnx.helper.set_model_props(file, metadata)
    onnx.save(file, path)


def _name_sides(graph, names: dict[int, str], first: str) -> None:
    """Call the sides of the input and of what has its size by their names, and the
    first side of the outputs."""
    sides = graph.input[0].type.tensor_type.shape.dim
    old = {graph.output[0].type.tensor_type.shape.dim[0].dim_param: first}
    old.update({sides[i].dim_param: name for i, name in names.items()})
    old.pop('', None)  # of a fixed side
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


def finish_onnx(path: Path, proof_outputs: int) -> None:
    """Drop the last outputs, which were there for the proof, and check the file.

    Raises:
        onnx.checker.ValidationError: It is no valid file.
    """
    import onnx

    file = onnx.load(path)
    if proof_outputs:
        del file.graph.output[-proof_outputs:]
    onnx.save(file, path)
    onnx.checker.check_model(str(path), full_check=True)


def to_float16(path: Path, operators: Sequence[str] | None) -> None:
    """Make the weights of an ONNX file float16, and what computes with them; input
    and output stay float32.

    Args:
        path (Path): The file.
        operators (Sequence[str], optional): Only these operators. None: all that have
            a float16 kind.
    """
    import onnx
    from onnxruntime.transformers.onnx_model import OnnxModel

    file = OnnxModel(onnx.load(path))
    options = {}
    if operators is not None:
        kinds = {node.op_type for node in file.model.graph.node}
        options['op_block_list'] = sorted(kinds.difference(operators))
    file.convert_float_to_float16(keep_io_types=True, **options)
    file.topological_sort()
    # the conversion leaves wrong types behind casts; they follow from the operators
    del file.model.graph.value_info[:]
    onnx.save(file.model, path)


def to_int8(
    path: Path, calibration: Sequence[np.ndarray], mean_range: bool = False
) -> None:
    """Make the convolutions of an ONNX file int8, with weights of 7 bits.

    Args:
        path (Path): The file.
        calibration (Sequence[np.ndarray]): Images (N, 3, H, W) as it takes them.
        mean_range (bool): Whether 8 bits hold what an image has on the mean, which
            no single strange one widens, or what any has. Defaults to False.
    """
    from onnxruntime import quantization

    images = iter(calibration)

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict | None:
            image = next(images, None)
            return None if image is None else dict(image=image)

    quantization.quantize_static(
        str(path),
        str(path),
        Reader(),
        per_channel=True,
        op_types_to_quantize=['Conv'],
        # x86 without VNNI adds two products of 8 bits in 16, which 7 bits spare
        reduce_range=True,
        extra_options=dict(CalibMovingAverage=mean_range),
    )


def _write_pt2(module, example, path, metadata, dynamic, opset) -> None:
    program = _program(module, example, dynamic)
    with open(path, 'wb') as file:
        torch.export.save(
            program, file, extra_files={'metadata.json': json.dumps(metadata)}
        )


def _read_pt2(path) -> Run:
    with open(path, 'rb') as file:
        module = torch.export.load(file).module()
    return lambda image: [x.numpy() for x in module(torch.from_numpy(image))]


def _write_torchscript(module, example, path, metadata, dynamic, opset) -> None:
    with module.recording(), torch.no_grad():
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
