# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Tell what keeps the boundary IoU of segmentors down: the resolution of their
maps, what they take the segments for, or where they draw the outlines. Prints
a table for boundaries of several widths.
"""

import argparse

from mmengine import track_iter_progress

from comparison.runs import Run
from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.utils.arguments import exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--run',
        nargs=3,
        action='append',
        required=True,
        metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
        help='once per segmentor',
    )
    parser.add_argument(
        '--strides',
        nargs='+',
        type=int,
        default=[1, 2, 4, 8],
        metavar='S',
        help='of the maps that labels go through (default: 1 2 4 8)',
    )
    parser.add_argument(
        '--ratios',
        nargs='+',
        type=float,
        default=[0.005, 0.01, 0.02],
        metavar='R',
        help='widths of the boundary, as parts of the image '
        'diagonal (default: 0.005 0.01 0.02)',
    )
    parser.add_argument('--device', default='cpu', help='(default: cpu)')
    args = parser.parse_args()
    if min(args.strides) < 1:
        parser.error(f'--strides must be at least 1, got {args.strides}')
    if not all(0 < ratio < 1 for ratio in args.ratios):
        parser.error(f'--ratios must be between 0 and 1, got {args.ratios}')
    return args


def main() -> None:
    args = parse_args()
    hide_known_warnings()
    from studies.boundary_limits import boundary_limits, table  # imports mmseg

    with exit_on_user_error('boundary_limits', ValueError, FileNotFoundError):
        rows = boundary_limits(
            [Run(*values) for values in args.run],
            args.strides,
            args.ratios,
            args.device,
            lambda images: track_iter_progress(list(images)),
        )
    print(f'\n\n{table(rows, args.ratios)}')


if __name__ == '__main__':
    main()
