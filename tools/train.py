# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Train a segmentor or a detector."""

import argparse
import os

from mmengine.config import DictAction

from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.engine.train import train
from pvd_mm.utils.arguments import exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of a config, or the name of a shipped one')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or, without a value, from the '
        'newest whole one of the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='train with mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the total batch size',
    )
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
        train(
            args.config,
            args.work_dir,
            args.resume,
            args.amp,
            args.auto_scale_lr,
            args.cfg_options,
            args.launcher,
        )


if __name__ == '__main__':
    main()
