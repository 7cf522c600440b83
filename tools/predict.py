# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Predict images with a trained segmentor, detector or panoptic model: label maps
as PNG, instances as COCO JSON or panoptic segments as both, and the images with
their predictions painted on them.
"""

import argparse
import sys

from mmengine import track_iter_progress

from pvd_mm.apis.predict import predict
from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.utils.arguments import exit_on_user_error


def size(text: str) -> tuple[int, int]:
    sides = text.lower().split('x')
    try:
        height, width = map(int, sides * 2 if len(sides) == 1 else sides)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r}; expected HEIGHTxWIDTH, such as 512x1024, or one side'
        ) from None
    return height, width


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='path or name of a shipped config')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        'images',
        nargs='+',
        help='files, folders (with their subfolders), or patterns in quotes',
    )
    parser.add_argument('--out', required=True, help='folder of the results')
    parser.add_argument(
        '--force',
        action='store_true',
        help='write into a folder that is not '
        'empty, replacing results of the same name',
    )
    parser.add_argument(
        '--device', help='cpu, cuda:0, ... (default: a GPU if there is one)'
    )
    parser.add_argument(
        '--scale',
        type=float,
        metavar='FACTOR',
        help='resize images by this '
        'factor (default: to the size that the test pipeline of the config has)',
    )
    parser.add_argument(
        '--slide',
        nargs=2,
        type=size,
        metavar=('CROP', 'STRIDE'),
        help='segmentors: slide a window of CROP pixels over the resized image, '
        'such as --slide 512x1024 384x768',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='detectors: lowest score that is painted (default: 0.3)',
    )
    parser.add_argument(
        '--opacity',
        type=float,
        default=0.5,
        help='segmentors: of the painted classes (default: 0.5)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    hide_known_warnings()
    with exit_on_user_error('predict'):
        result = predict(
            args.config,
            args.checkpoint,
            args.images,
            args.out,
            force=args.force,
            device=args.device,
            scale=args.scale,
            slide=args.slide,
            score_thr=args.score_thr,
            opacity=args.opacity,
            progress=track_iter_progress,
        )
    print(f'\n{len(result["done"])} images predicted')
    print(f'Results: {result["results"]}')
    unreadable = result['unreadable']
    if unreadable:
        lines = [f'predict: {len(unreadable)} files could not be read:']
        sys.exit('\n  '.join([*lines, *unreadable.values()]))


if __name__ == '__main__':
    main()
