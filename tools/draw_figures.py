# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Draw images, what two segmentors (Fig. 6) or two detectors (Fig. 7) predict for
them and the ground truth, and zoom in on where the two differ most.
"""

import argparse
import sys

from mmengine import track_iter_progress

from comparison.figures import draw_figures
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
        help='twice, once per model',
    )
    parser.add_argument(
        'images',
        nargs='*',
        help='files, folders or patterns in quotes (default: '
        'the val split of the configs, with its ground truth)',
    )
    parser.add_argument('--out', required=True, help='the picture, a .png')
    parser.add_argument(
        '--rows', type=int, default=4, help='images to draw (default: 4)'
    )
    parser.add_argument(
        '--max-images',
        type=int,
        default=100,
        help='images, evenly spread, to choose from (default: 100)',
    )
    parser.add_argument(
        '--zoom', type=float, default=4, help='magnification (default: 4)'
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
    with exit_on_user_error('draw_figures'):
        result = draw_figures(
            [Run(*values) for values in args.run],
            args.out,
            args.images,
            rows=args.rows,
            max_images=args.max_images,
            zoom=args.zoom,
            force=args.force,
            device=args.device,
            progress=track_iter_progress,
        )
    print()
    for image in result['images']:
        differing = 100 * image['differing']
        print(f'{image["image"]}: {differing:.1f} % of the pixels differ')
    print(f'Details: {result["json"]}\nPicture: {result["picture"]}')
    unreadable = result['unreadable']
    if unreadable:
        lines = [f'draw_figures: {len(unreadable)} files could not be read:']
        sys.exit('\n  '.join([*lines, *unreadable.values()]))


if __name__ == '__main__':
    main()
