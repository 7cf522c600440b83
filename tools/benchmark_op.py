# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Measure the dynamic deconvolution: Tables 3 and 4 and Fig. 8 of the paper
with every backend that runs here, and its peers, all in turn in one process.
Writes op_speed.json, op_speed.md and, with matplotlib, fig8.png.
"""

import argparse
import os
import shlex
import sys

# torch's profiler, which measures memory, reports its every start
os.environ.setdefault('KINETO_LOG_LEVEL', '99')

import torch  # noqa: E402

from benchmarks.op import measure  # noqa: E402
from benchmarks.op_candidates import DTYPES, Settings, check  # noqa: E402
from benchmarks.op_report import (  # noqa: E402
    FILES,
    results_folder,
    summary_text,
    write,
)
from pvd_mm.engine.records import new_record, write_record  # noqa: E402
from pvd_mm.ops.checks import FORMULATIONS  # noqa: E402
from pvd_mm.utils.arguments import AtLeastOne  # noqa: E402
from pvd_mm.utils.errors import UserError  # noqa: E402


def parse_args() -> argparse.Namespace:
    usual = Settings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--out',
        default='work_dirs/op_speed',
        metavar='DIR',
        help='folder of the results (default: %(default)s)',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace results that are in that folder'
    )
    parser.add_argument(
        '--device', help='cpu, cuda, cuda:1, ... (default: cuda where there is one)'
    )
    parser.add_argument(
        '--threads', type=int, action=AtLeastOne, help='threads on a CPU'
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=int,
        default=usual.sizes,
        help='sides of the input maps (default: 8 16 ... 1024)',
    )
    parser.add_argument(
        '--strides', nargs='+', type=int, default=usual.strides, help='(default: 1 2)'
    )
    parser.add_argument(
        '--channels', type=int, default=usual.channels, help='(default: %(default)s)'
    )
    parser.add_argument(
        '--dtype', default=usual.dtype, choices=DTYPES, help='(default: %(default)s)'
    )
    parser.add_argument(
        '--formulation',
        default=usual.formulation,
        choices=FORMULATIONS,
        help='(default: %(default)s)',
    )
    parser.add_argument(
        '--budget',
        type=float,
        default=usual.budget,
        help='timed seconds for each cell, beside '
        f'{usual.least_runs} runs at least '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--without',
        nargs='+',
        default=(),
        metavar='NAME',
        help="leave out, e.g. 'compiled', which takes seconds "
        "to compile for each size, or 'fold'",
    )
    args = parser.parse_args()
    names = set(Settings._fields) & set(vars(args))
    try:
        args.settings = check(Settings(**{name: getattr(args, name) for name in names}))
        args.folder = results_folder(args.out, args.force)
    except (UserError, ValueError) as error:
        parser.error(str(error))
    return args


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    command = shlex.join(['python', 'tools/benchmark_op.py', *sys.argv[1:]])
    result = measure(
        args.settings, lambda line: print(line, file=sys.stderr, flush=True), command
    )
    written = write(result, args.folder)
    record = new_record('op', result, args.settings.device)
    path = write_record(str(args.folder), record)
    print(summary_text(result))
    for name, reason in result['left_out'].items():
        print(f'Left out: {name}: {reason}')
    if len(written) < len(FILES):
        print('No picture: matplotlib is not installed')
    print(f'{result["seconds"]} s; ' + ', '.join(map(str, [*written, path])))


if __name__ == '__main__':
    main()
