# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Measure what a backend of the op is worth in PVD's own training: steps of
the same model with one and the other in alternation, and the median of the
ratios within pairs. Random weights and images: no data is needed.
"""

import argparse
import sys
from pathlib import Path

import torch

from pvd_mm import register_all_modules
from pvd_mm.engine.config import load_config
from pvd_mm.ops.backends import BACKENDS
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.files import check_folder


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'configs', nargs='+', help='paths or names of shipped configs of PVD'
    )
    parser.add_argument(
        '--backends',
        nargs=2,
        choices=tuple(BACKENDS),
        default=('matrix', 'cpp'),
        metavar=('ONE', 'OTHER'),
        help='(default: matrix cpp)',
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help="image size; default: each config's crop_size",
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=2,
        help='images of a training step (default: 2)',
    )
    parser.add_argument(
        '--pairs', type=int, default=20, help='timed pairs of steps (default: 20)'
    )
    parser.add_argument('--device', default='cpu', help='(default: cpu)')
    parser.add_argument('--threads', type=int, help='threads on a CPU')
    parser.add_argument('--out', help='folder for a record of it')
    args = parser.parse_args()
    try:
        check_folder(args.out or '.')
    except UserError as error:
        parser.error(f'--out: {error}')
    if min(args.batch_size, args.pairs, *(args.size or [1])) < 1:
        parser.error('--size, --batch-size and --pairs must be at least 1')
    if len(set(args.backends)) < 2:
        parser.error('--backends must be two different ones')
    return args


def main() -> None:
    args = parse_args()
    register_all_modules()
    from benchmarks.backends import compare_backends, table
    from benchmarks.subjects import subject_class
    from pvd_mm.engine.records import new_record, write_record
    from pvd_mm.utils.machine import describe_machine

    if args.threads:
        torch.set_num_threads(args.threads)
    results = []
    try:
        for name in args.configs:
            cfg = load_config(name)
            kind = subject_class(cfg.default_scope)
            size = tuple(args.size or kind.default_size(cfg))
            subject = kind(
                cfg,
                f'`{Path(name).stem}`, {size[0]}×{size[1]}',
                size,
                args.batch_size,
                args.device,
            )
            results += compare_backends(
                subject,
                args.backends,
                args.pairs,
                lambda line: print(line, file=sys.stderr, flush=True),
            )
    except (UserError, ValueError) as error:
        sys.exit(f'benchmark_backends: {error}')
    if args.out:
        write_record(args.out, new_record('backends', results, args.device))
    print(
        f'{args.batch_size} images, {describe_machine(args.device)}, torch '
        f'{torch.__version__}, {args.pairs} pairs.\n\n{table(results)}'
    )


if __name__ == '__main__':
    main()
