# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Follow the votes for one pixel: draw on the image, level by level, which pixels
of the coarser maps voted for it, and how strongly.
"""

import argparse
import sys

import numpy as np

from pvd_mm.utils.errors import UserError
from pvd_mm.visualization.draw_votes import draw_votes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='path or name of a shipped config')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('image', help='image file')
    parser.add_argument(
        '--pixel',
        nargs=2,
        type=int,
        required=True,
        metavar=('X', 'Y'),
        help='the pixel of the image, counted from 0',
    )
    parser.add_argument('--out', required=True, help='the picture, a .png')
    parser.add_argument(
        '--group',
        type=int,
        help='the group of votes, counted from 0 (default: '
        'that of the predicted class)',
    )
    parser.add_argument(
        '--scale',
        type=float,
        metavar='FACTOR',
        help='resize the image by this '
        'factor (default: to the size that the test pipeline of the config has)',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace the picture if it exists'
    )
    parser.add_argument(
        '--device', help='cpu, cuda:0, ... (default: a GPU if there is one)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        result = draw_votes(
            args.config,
            args.checkpoint,
            args.image,
            tuple(args.pixel),
            args.out,
            group=args.group,
            force=args.force,
            device=args.device,
            scale=args.scale,
        )
    except UserError as error:
        sys.exit(f'draw_votes: {error}')
    row, column = result['output']
    print(f'{result["predicted"]}; row {row}, column {column} of the output')
    for level, stride, weights in result['levels']:
        print(
            f'M_{level}, stride {stride}, {weights.shape[0]}x{weights.shape[1]}: '
            f'{np.count_nonzero(weights)} pixels, sum {weights.sum():.4f}, '
            f'from {weights.min():.4f} to {weights.max():.4f}'
        )
    print(result['picture'])


if __name__ == '__main__':
    main()
