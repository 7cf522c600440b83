# Copyright (c) PVD-MM contributors. Apache-2.0.
"""How a checkpoint fits a model."""

import re
from typing import NamedTuple

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader

from pvd_mm.utils.errors import UsageError


class CheckpointFit(NamedTuple):
    """How a checkpoint fits a model; names of tensors.

    Counters of batches that a normalisation has seen are not asked for.
    """

    own: list[str]  # those of the model
    given: list[str]  # those of the file
    missing: list[str]  # the model has them, the file does not
    unexpected: list[str]  # the file has them, the model does not
    differing: dict[str, str]  # both have them; how their shapes differ


def _unwrap(model: torch.nn.Module) -> torch.nn.Module:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def fit_checkpoint(model: torch.nn.Module, checkpoint: dict) -> CheckpointFit:
    """Compare a loaded checkpoint with a model; wrappers are looked through.

    Args:
        model (nn.Module): The model.
        checkpoint (dict): What the file holds, or its ``state_dict`` alone.
    """
    given = {
        re.sub(r'^module\.', '', key): value
        for key, value in checkpoint.get('state_dict', checkpoint).items()
        if isinstance(value, torch.Tensor)
    }
    own = _unwrap(model).state_dict()
    return CheckpointFit(
        own=list(own),
        given=list(given),
        missing=[
            key
            for key in own
            if key not in given and not key.endswith('num_batches_tracked')
        ],
        unexpected=[key for key in given if key not in own],
        differing={
            key: f'{tuple(given[key].shape)} in the file, '
            f'{tuple(own[key].shape)} in the model'
            for key in own
            if key in given and given[key].shape != own[key].shape
        },
    )


def _some(keys: list[str], number: int = 3) -> str:
    text = ', '.join(keys[:number])
    return text + (', …' if len(keys) > number else '')


def check_checkpoint(model: torch.nn.Module, path: str) -> None:
    """Refuse a checkpoint that belongs to another model.

    mmengine only warns and goes on with what fits, so a test of the wrong
    file ends in a table of wrong numbers.

    Args:
        model (nn.Module): The built model; wrappers are looked through.
        path (str): The checkpoint file.

    Raises:
        UsageError: If keys are missing, do not belong to the model (those
            of auxiliary heads excepted), or differ in shape; names a few and
            tells the counts.
    """
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    if not isinstance(checkpoint, dict):
        raise UsageError(
            f'{path} holds a {type(checkpoint).__name__}, not a checkpoint.'
        )
    fit = fit_checkpoint(model, checkpoint)
    misfits = [
        (fit.missing, 'missing from the file'),
        (
            [key for key in fit.unexpected if 'auxiliary_head' not in key],
            'unknown to the model',
        ),
        (
            [f'{key} ({shapes})' for key, shapes in fit.differing.items()],
            'of another shape',
        ),
    ]
    parts = [
        f'{len(keys)} keys are {fault}: {_some(keys)}'
        for keys, fault in misfits
        if keys
    ]
    if parts:
        raise UsageError(
            f'{path} is a checkpoint of another model than '
            f'{type(_unwrap(model)).__name__} of this config ({len(fit.given)} keys in '
            f'the file, {len(fit.own)} in the model).\n  ' + '\n  '.join(parts)
        )
