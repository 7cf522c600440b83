# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Unpack COCO's official zips into the layout that the configs read, and count
what is there. What is unpacked already is kept, and needs no zip.
"""

import argparse
import sys

from mmengine import track_iter_progress

from pvd_mm.data.converters import arrange_coco
from pvd_mm.utils.arguments import exit_on_user_error
from pvd_mm.utils.errors import some

CHECK = 'python tools/check_dataset.py pvd-mask-rcnn_r50-c4_1x_coco'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'zips', nargs='?', help='folder of the zips (default: that of --out)'
    )
    parser.add_argument(
        '--out',
        default='data/coco',
        help='folder of the results (default: %(default)s)',
    )
    parser.add_argument(
        '--year',
        type=int,
        choices=(2017, 2014),
        default=2017,
        help='(default: %(default)s)',
    )
    parser.add_argument(
        '--splits',
        nargs='+',
        choices=('train', 'val'),
        default=('train', 'val'),
        help='(default: both)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with exit_on_user_error('coco'):
        result = arrange_coco(
            args.out, args.zips, args.year, args.splits, track_iter_progress
        )
    print()
    missing = []
    for split, counts in result.items():
        missing += counts['missing']
        text = (
            f'{split}{args.year}: {counts["unpacked"]} files unpacked, '
            f'{counts["listed"]} images listed'
        )
        if counts['listed'] != counts['official']:
            text += f' (the official file lists {counts["official"]})'
        print(text)
    print(f'Before a long run: {CHECK}{"2014" if args.year == 2014 else ""}')
    if missing:
        sys.exit(
            f'coco: {len(missing)} images are listed, but not there: {some(missing)}'
        )


if __name__ == '__main__':
    main()
