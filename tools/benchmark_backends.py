# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Measure what a backend of the op is worth in PVD's own training: steps of
the same model with one and the other in alternation, and the median of the
ratios within pairs. Random weights and images: no data is needed.
"""

import argparse
import sys

import torch

from benchmarks.arguments import add_model_arguments
from pvd_mm import register_all_modules
from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.ops.backends import BACKENDS
from pvd_mm.utils.arguments import AtLeastOne, exit_on_user_error
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.files import check_folder


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser, "each config's crop_size, of detectors 800 1333")
    parser.add_argument(
        '--backends',
        nargs=2,
        choices=tuple(BACKENDS),
        default=('matrix', 'cpp'),
        metavar=('ONE', 'OTHER'),
        help='(default: matrix cpp)',
    )
    parser.add_argument(
        '--pairs',
        type=int,
        action=AtLeastOne,
        default=20,
        help='timed pairs of steps (default: 20)',
    )
    parser.add_argument('--out', help='folder for a record of it')
    args = parser.parse_args()
    try:
        check_folder(args.out or '.')
    except UserError as error:
        parser.error(f'--out: {error}')
    if len(set(args.backends)) < 2:
        parser.error('--backends must be two different ones')
    return args


@exit_on_user_error('benchmark_backends', ValueError)
def main() -> None:
    args = parse_args()
    hide_known_warnings()
    register_all_modules()
    from benchmarks.backends import compare_backends, markdown
    from benchmarks.models import load_benchmarks
    from pvd_mm.engine.records import new_record, write_record
    from pvd_mm.utils.machine import describe_machine

    if args.threads:
        torch.set_num_threads(args.threads)
    results = []
    for config in args.configs:
        (benchmark,) = load_benchmarks(
            [config], args.size, args.batch_size, args.device, kinds=['train']
        )
        benchmark.name = '`{}`, {}×{}'.format(benchmark.name, *benchmark.size)
        results += compare_backends(
            benchmark,
            args.backends,
            args.pairs,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    if args.out:
        write_record(args.out, new_record('backends', results, args.device))
    print(
        f'{args.batch_size} images, {describe_machine(args.device)}, torch '
        f'{torch.__version__}, {args.pairs} pairs.\n\n{markdown(results)}'
    )


if __name__ == '__main__':
    main()
