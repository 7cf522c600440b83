# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What the command lines of the benchmarks of models have in common."""

import argparse

from pvd_mm.utils.arguments import AtLeastOne


def add_model_arguments(parser: argparse.ArgumentParser, default_size: str) -> None:
    """Add the arguments that say which models are measured, on what and where.

    Args:
        parser (ArgumentParser): Gets them.
        default_size (str): The image size where none is given, in words.
    """
    parser.add_argument('configs', nargs='+', help='paths or names of shipped configs')
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        action=AtLeastOne,
        metavar=('H', 'W'),
        help=f'image size; default: {default_size}',
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        action=AtLeastOne,
        default=2,
        help='images of a training step (default: 2)',
    )
    parser.add_argument('--device', default='cpu', help='(default: cpu)')
    parser.add_argument(
        '--threads', type=int, action=AtLeastOne, help='threads on a CPU'
    )
