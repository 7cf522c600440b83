# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Make the train ids of Cityscapes from the label ids of the download, beside
them, or with --panoptic COCO's panoptic format from its instance ids; both by
cityscapesscripts. What is there is kept.
"""

import argparse
import sys

from mmengine import track_iter_progress

from pvd_mm.data.converters import convert_cityscapes, convert_cityscapes_panoptic
from pvd_mm.utils.arguments import exit_on_user_error

CHECK = 'python tools/check_dataset.py pvd_r50-block_1xb4-90k_cityscapes-512x1024'
PANOPTIC_CHECK = (
    'python tools/check_dataset.py '
    'pvd-panoptic_r50-fpn_1xb4-90k_cityscapes-panoptic-512x1024'
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'root',
        nargs='?',
        default='data/cityscapes',
        help='folder that holds gtFine (default: %(default)s)',
    )
    parser.add_argument(
        '--force', action='store_true', help='make maps anew that are there'
    )
    parser.add_argument(
        '--panoptic',
        action='store_true',
        help='make panoptic segments and objects, in annotations/',
    )
    return parser.parse_args()


def make_panoptic(args: argparse.Namespace) -> None:
    with exit_on_user_error('cityscapes'):
        counts = convert_cityscapes_panoptic(args.root, args.force)
    for split, count in counts.items():
        print(f'{split}: {"kept" if count is None else f"{count} images"}')
    print(f'Before a long run: {PANOPTIC_CHECK}')


def main() -> None:
    args = parse_args()
    if args.panoptic:
        return make_panoptic(args)
    with exit_on_user_error('cityscapes'):
        result = convert_cityscapes(args.root, args.force, track_iter_progress)
    print(
        f'\n{result["written"]} maps written, {result["kept"]} kept.\n'
        f'Before a long run: {CHECK}'
    )
    if result['broken']:
        lines = [f'cityscapes: {len(result["broken"])} maps could not be converted:']
        sys.exit('\n  '.join([*lines, *result['broken'].values()]))


if __name__ == '__main__':
    main()
