# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Say what is missing or malformed in a config's data, before a long run
does. Ends with 1 if anything is.
"""

import argparse
import sys

from mmengine.config import DictAction

from pvd_mm.data.dataset_check import SPLITS, check_dataset, summary
from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.engine.config import load_config
from pvd_mm.utils.arguments import exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('config', help='config of mmseg or mmdet')
    parser.add_argument(
        '--splits', nargs='+', choices=SPLITS, default=SPLITS, help='which to look at'
    )
    parser.add_argument(
        '--most', type=int, default=50, help='problems that are listed of a split'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='overrides, such as data_root',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    hide_known_warnings()
    with exit_on_user_error('check_dataset'):
        reports = check_dataset(
            load_config(args.config, cfg_options=args.cfg_options), args.splits
        )
    print(summary(reports, args.most))
    if any(report.problems for report in reports):
        sys.exit(1)


if __name__ == '__main__':
    main()
