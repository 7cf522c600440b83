# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What a head does with its ``decoder=dict(...)``, and what else was given."""

import inspect
from collections.abc import Callable, Sequence

from .association import PixelAssociation
from .step import DecodingStep
from .voting_decoder import PixelVotingDecoder

#: What a config may give a decoder, of whichever class uses it
DECODER_ARGUMENTS = frozenset(
    parameter.name
    for cls in (PixelVotingDecoder, DecodingStep, PixelAssociation)
    for parameter in inspect.signature(cls).parameters.values()
    if parameter.kind != parameter.VAR_KEYWORD
) - {'in_channels', 'out_channels', 'channels', 'depth', 'gain', 'init_cfg'}


def decoder_config(
    decoder: dict | None, in_channels: Sequence[int], channels: int, **defaults
) -> dict:
    """The whole config of a head's decoder, for ``MODELS.build``.

    Args:
        decoder (dict, optional): What the user gave: arguments of
            :class:`PixelVotingDecoder`, or with ``type`` of another decoder
            in the registry.
        in_channels (Sequence[int]): Channels of z_0 … z_L, from the head.
        channels (int): C_obj, from the head.
        **defaults: What the head knows better than the decoder's defaults.

    Raises:
        TypeError: If ``decoder`` is not a dict.
        ValueError: If it names what follows from the head.
    """
    decoder = {} if decoder is None else decoder
    if not isinstance(decoder, dict):
        raise TypeError(
            'decoder must be a dict of the arguments of PixelVotingDecoder, but '
            f'got {decoder!r}'
        )
    fixed = dict(in_channels=in_channels, channels=channels)
    for name in fixed:
        if name in decoder:
            raise ValueError(
                f'decoder must not name {name}, which follows from the arguments of '
                f'the head, but got decoder=dict({name}={decoder[name]!r})'
            )
    return {'type': PixelVotingDecoder, **defaults, **decoder, **fixed}


def given_arguments(function: Callable, args: Sequence, kwargs: dict) -> dict:
    """What a call gives, by name, whether by position or by keyword.

    Raises:
        TypeError: If the function can't be called so.
    """
    signature = inspect.signature(function)
    given = dict(signature.bind_partial(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind == parameter.VAR_KEYWORD:
            given.update(given.pop(parameter.name, {}))
    return given


def default_of(cls: type, name: str):
    """The default of an argument of a class, also where it is its base that takes
    it.

    Raises:
        TypeError: If none of them has it.
    """
    for base in cls.__mro__:
        parameters = inspect.signature(base.__init__).parameters
        if name in parameters and '__init__' in vars(base):
            return parameters[name].default
    raise TypeError(f'{cls.__name__} has no argument {name}')


def refuse_decoder_arguments(
    head: str, given: dict, decoder: dict | None, own: Sequence[str] = ()
) -> None:
    """Say how to write a config that gives a head its decoder's arguments.

    Args:
        head (str): Name of the head's class.
        given (dict): Arguments that are not in its signature.
        decoder (dict, optional): Its ``decoder``.
        own (Sequence[str]): Those that the head takes as well.

    Raises:
        TypeError: If some of ``given`` belong to the decoder.
    """
    moved = {
        name: value
        for name, value in given.items()
        if name in DECODER_ARGUMENTS and name not in own
    }
    if not moved:
        return

    def written(arguments: dict) -> str:
        return ', '.join(f'{name}={value!r}' for name, value in arguments.items())

    raise TypeError(
        f'{head} takes the arguments of its decoder in one dict. In place of\n'
        f'    {written(moved)}\n'
        'write\n'
        f'    decoder=dict({written({**(decoder or {}), **moved})})'
    )


def refuse_arguments(head: str, given: dict, decoder: dict | None) -> None:
    """Refuse what is not in a head's signature, see :func:`refuse_decoder_arguments`.

    Raises:
        TypeError: If there is any.
    """
    refuse_decoder_arguments(head, given, decoder)
    if given:
        raise TypeError(f'{head} got unexpected arguments: {", ".join(given)}')
