# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Let detectors learn a few COCO images by heart, from scratch: the sanity
check of a mask head. Draws their mask AP on these images, step by step.
"""

import argparse
import json
from pathlib import Path

from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.utils.arguments import exit_on_user_error
from pvd_mm.utils.files import check_new
from studies.overfit import markdown, overfit, plot


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('configs', nargs='+', help='COCO configs with masks')
    parser.add_argument('--data-root', default='data/coco', help='COCO 2017')
    parser.add_argument('--out', default='work_dirs/overfit', help='folder')
    parser.add_argument(
        '--force', action='store_true', help='replace results that are in that folder'
    )
    parser.add_argument('--images', type=int, default=8, help='how many')
    parser.add_argument('--iters', type=int, default=500, help='steps')
    parser.add_argument('--interval', type=int, default=50, help='steps between tests')
    parser.add_argument(
        '--scale',
        type=int,
        nargs=2,
        default=(256, 256),
        metavar=('W', 'H'),
        help='the images fit into this',
    )
    args = parser.parse_args()
    if min(args.images, args.iters, args.interval, *args.scale) < 1:
        parser.error('--images, --iters, --interval and --scale must be at least 1')
    return args


def main() -> None:
    args = parse_args()
    hide_known_warnings()
    out = Path(args.out)
    with exit_on_user_error('overfit'):
        check_new((out / f'overfit.{end}' for end in ('md', 'json', 'png')), args.force)
        results = overfit(
            args.configs,
            args.out,
            args.data_root,
            args.images,
            args.iters,
            args.interval,
            tuple(args.scale),
        )
    table = markdown(results)
    (out / 'overfit.md').write_text(table + '\n', encoding='utf-8')
    (out / 'overfit.json').write_text(json.dumps(results, indent=2))
    plot(results, str(out / 'overfit.png'))
    print(f'{table}\n{out}/overfit.md, .json and .png')


if __name__ == '__main__':
    main()
