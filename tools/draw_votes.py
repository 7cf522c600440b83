# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Follow the votes for one pixel: draw on the image, level by level, which pixels
of the coarser maps voted for it, and how strongly.
"""

import argparse

import numpy as np

from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.utils.arguments import exit_on_user_error
from pvd_mm.utils.markdown import markdown_table
from pvd_mm.visualization.draw_votes import Level, draw_votes

_HEAD = ['map', 'size', 'stride', 'voters', 'sum of weights', 'least', 'greatest']


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
        '--verbose', action='store_true', help="print each level's weights, too"
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
    hide_known_warnings()
    with exit_on_user_error('draw_votes'):
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
    print('Pixel {} {} is predicted as {}.'.format(*args.pixel, result['predicted']))
    if args.verbose:
        row, column = result['output']
        print(f"Votes for row {row}, column {column} of the decoder's output:\n")
        rows = [_cells(level) for level in result['levels']]
        print(markdown_table(_HEAD, rows, padded=True) + '\n')
    print(f'Picture: {result["picture"]}')


def _cells(level: Level) -> list[str]:
    weights = level.weights
    return [
        f'M_{level.level}',
        f'{weights.shape[0]}x{weights.shape[1]}',
        str(level.stride),
        str(np.count_nonzero(weights)),
        *(f'{x:.4f}' for x in (weights.sum(), weights.min(), weights.max())),
    ]


if __name__ == '__main__':
    main()
