# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Compare trained segmentors, or detectors: print a table, draw pictures."""

import argparse
from pathlib import Path

from mmengine import track_iter_progress

from comparison.compare import compare
from comparison.runs import Run
from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.utils.arguments import exit_on_user_error
from pvd_mm.utils.files import check_new


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--run',
        nargs='+',
        action='append',
        required=True,
        metavar='ARG',
        help='NAME CONFIG CHECKPOINT [WORK_DIR], once per model, CONFIG a path '
        'or the name of a shipped one; the metrics '
        'are read from the test in WORK_DIR, or else computed',
    )
    parser.add_argument(
        '--out', default='work_dirs/compare', help='folder of the results'
    )
    parser.add_argument(
        '--force', action='store_true', help='replace results that are in that folder'
    )
    parser.add_argument('--images', type=int, default=4, help='rows of the picture')
    parser.add_argument(
        '--max-images',
        type=int,
        default=100,
        help='images to run when all metrics are read from files',
    )
    parser.add_argument(
        '--focus', default='pole', help='class of segmentors reported on its own'
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda:0, ...')
    args = parser.parse_args()
    for values in args.run:
        if len(values) not in (3, 4):
            parser.error(
                '--run takes NAME CONFIG CHECKPOINT [WORK_DIR], but got '
                + ' '.join(values)
            )
    return args


def main() -> None:
    args = parse_args()
    hide_known_warnings()
    files = [Path(args.out, f'compare.{end}') for end in ('md', 'json', 'png')]
    with exit_on_user_error('compare', ValueError, FileNotFoundError):
        check_new(files, args.force)
        result = compare(
            [Run(*values) for values in args.run],
            args.out,
            images=args.images,
            max_images=args.max_images,
            focus=args.focus,
            device=args.device,
            progress=track_iter_progress,
        )
    print('\n\n' + Path(result['markdown']).read_text())
    for row in result['rows']:
        print(f'{row["method"]}: metrics {row["figures"]}')
    print(f'Table:   {result["markdown"]}, {result["json"]}')
    print(f'Picture: {result["picture"]}')


if __name__ == '__main__':
    main()
