# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Make the train ids of Cityscapes from the label ids of the download, beside
them, by cityscapesscripts. Maps that are there are kept.
"""

import argparse
import sys

from mmengine import track_iter_progress

from pvd_mm.data.converters import convert_cityscapes
from pvd_mm.utils.arguments import exit_on_user_error

CHECK = 'python tools/check_dataset.py pvd_r50-block_1xb4-90k_cityscapes-512x1024'


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
    return parser.parse_args()


def main() -> None:
    args = parse_args()
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
