# Copyright (c) PVD-MM contributors. Apache-2.0.
"""All that is to be known of a GPU, in one go: whether the Triton kernels are right
on it, how fast the op is beside its peers, and a training step of PVD beside
DeepLabv3's. Random weights and images: no data is needed. Writes a record of each.
"""

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Callable

# torch's profiler, which measures memory, reports its every start
os.environ.setdefault('KINETO_LOG_LEVEL', '99')

from benchmarks import gpu, op, op_report  # noqa: E402
from benchmarks.op_candidates import DTYPES, Settings, check  # noqa: E402
from pvd_mm import register_all_modules  # noqa: E402
from pvd_mm.engine.compatibility import hide_known_warnings  # noqa: E402
from pvd_mm.engine.records import new_record, write_record  # noqa: E402
from pvd_mm.ops.backends.self_check import describe  # noqa: E402
from pvd_mm.utils.arguments import AtLeastOne, exit_on_user_error  # noqa: E402
from pvd_mm.utils.errors import UserError  # noqa: E402
from pvd_mm.utils.files import check_folder  # noqa: E402

CONFIGS = (
    'deeplabv3_r50-d8_1xb4-90k_cityscapes-512x1024',
    'pvd_r50-stage_1xb4-90k_cityscapes-512x1024',
)


def parse_args() -> argparse.Namespace:
    usual = Settings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--out',
        default='work_dirs/benchmark_gpu',
        metavar='DIR',
        help='folder that the records go into (default: %(default)s)',
    )
    parser.add_argument(
        '--device',
        default='cuda',
        help='cuda, cuda:1, ...; cpu tries the program (default: %(default)s)',
    )
    parser.add_argument(
        '--dtypes',
        nargs='+',
        choices=DTYPES,
        default=DTYPES,
        help='of the self-checks (default: all)',
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=int,
        action=AtLeastOne,
        default=usual.sizes,
        help='of the op: sides of the input maps (default: 8 16 ... 1024)',
    )
    parser.add_argument(
        '--budget',
        type=float,
        default=usual.budget,
        help='of the op: timed seconds for each cell (default: %(default)s)',
    )
    parser.add_argument(
        '--without',
        nargs='+',
        default=(),
        metavar='NAME',
        help="of the op: leave out, e.g. 'compiled'",
    )
    parser.add_argument(
        '--configs',
        nargs='+',
        default=CONFIGS,
        help='the models, of which the first is what the others are compared with '
        '(default: DeepLabv3 and PVD with a ResNet-50)',
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        action=AtLeastOne,
        metavar=('H', 'W'),
        help="of the images (default: the first config's crop_size)",
    )
    for option, default, words in (
        ('--batch-size', 2, 'images of a training step (default: 2)'),
        ('--rounds', 10, 'timed passes of the models (default: 10)'),
    ):
        parser.add_argument(
            option, type=int, action=AtLeastOne, default=default, help=words
        )
    return parser.parse_args()


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def check_kernels(args: argparse.Namespace) -> dict:
    checks = gpu.self_checks(args.device, args.dtypes)
    print(gpu.markdown(checks))
    return new_record(
        'gpu',
        dict(description=describe(args.device), self_checks=checks),
        str(args.device),
    )


def measure_op(args: argparse.Namespace) -> dict:
    command = shlex.join(['python', 'tools/benchmark_gpu.py', *sys.argv[1:]])
    result = op.measure(args.settings, report, command)
    print(op_report.markdown(result))
    return new_record('op', result, str(args.device))


def measure_models(args: argparse.Namespace) -> dict:
    from benchmarks.models import benchmark, load_benchmarks, markdown

    models = load_benchmarks(args.configs, args.size, args.batch_size, str(args.device))
    results = benchmark(models, args.rounds, report=report)
    print(f'{models[0].title()}.\n\n{markdown(results)}')
    for model, result in zip(models, results):
        result.update(size=list(model.size), batch_size=args.batch_size)
    return new_record('model', results, str(args.device))


PARTS = (
    ('Self-check of the Triton kernels', check_kernels),
    ('The op', measure_op),
    ('Models', measure_models),
)


def run_part(
    title: str, part: Callable[[argparse.Namespace], dict], args: argparse.Namespace
) -> str:
    """Run a part and write its record; returns why it failed, so that the others
    still run."""
    print(f'\n## {title}\n', flush=True)
    try:
        path = write_record(args.out, part(args))
    except UserError as error:
        return f'{title}: {error}'
    except Exception as error:
        traceback.print_exc()
        return f'{title}: {type(error).__name__}: {error}'
    print(f'\nRecord: {path}', flush=True)
    return ''


@exit_on_user_error('benchmark_gpu', ValueError)
def main() -> None:
    args = parse_args()
    args.device = gpu.find_device(args.device)
    args.settings = check(
        Settings(
            sizes=args.sizes,
            device=str(args.device),
            budget=args.budget,
            without=args.without,
        )
    )
    check_folder(args.out)
    hide_known_warnings()
    register_all_modules()
    print(f'# {describe(args.device)}')
    failed = [run_part(title, part, args) for title, part in PARTS]
    failed = [line for line in failed if line]
    if failed:
        raise UserError('\n'.join(['not everything could be measured', *failed]))
    print(f'\nAll records are in {args.out}/records.')


if __name__ == '__main__':
    main()
