# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Test (and evaluate) a segmentor or a detector."""

import argparse
import os

from mmengine.config import DictAction

from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.engine.test import test
from pvd_mm.utils.arguments import exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of a config, or the name of a shipped one')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for the log and the metrics as json')
    parser.add_argument(
        '--out', help='where to save predictions: a folder (mmseg), a .pkl (mmdet)'
    )
    parser.add_argument('--show', action='store_true', help='show painted images')
    parser.add_argument('--show-dir', help='save painted images there')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds per shown image'
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, as key=value pairs; a list is '
        'key="[a,b]" or key=a,b, nested lists are key="[(a,b),(c,d)]"',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch passes it, in either spelling.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    hide_known_warnings()
    with exit_on_user_error('error'):
        test(
            args.config,
            args.checkpoint,
            args.work_dir,
            args.out,
            args.show,
            args.show_dir,
            args.wait_time,
            args.tta,
            args.cfg_options,
            args.launcher,
        )


if __name__ == '__main__':
    main()
