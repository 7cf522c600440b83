# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Measure exported segmentors side by side, in onnxruntime and in PyTorch: time, peak
memory and size of the file, from the raw image to the label map. Without configs: PVD,
its baselines and mmseg's models for real time. Random weights and images: no data is
needed. What was interrupted is gone on with.
"""

import argparse
import sys
from pathlib import Path

from pvd_mm import register_all_modules
from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.utils.arguments import AtLeastOne, exit_on_user_error
from pvd_mm.utils.files import check_folder

SIZES = (512, 1024), (360, 480)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'configs',
        nargs='*',
        help='paths or names of shipped configs, or mmseg::FOLDER/NAME.py for one of '
        "mmseg's own; the first one is what the others are compared with",
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        action='append',
        metavar=('H', 'W'),
        help='image size, may be given again (default: '
        f'{" and ".join("{} {}".format(*size) for size in SIZES)})',
    )
    parser.add_argument(
        '--rounds',
        type=int,
        action=AtLeastOne,
        default=5,
        help='timed runs of each; the median counts (default: 5)',
    )
    parser.add_argument(
        '--threads', type=int, action=AtLeastOne, help='of both runtimes'
    )
    parser.add_argument(
        '--out',
        default='work_dirs/exported',
        metavar='DIR',
        help='folder of the files, of the progress and of the record '
        '(default: %(default)s)',
    )
    args = parser.parse_args()
    args.size = args.size or [list(size) for size in SIZES]
    if min(map(min, args.size)) < 1:
        parser.error('--size must be at least 1')
    return args


@exit_on_user_error('benchmark_exported')
def main() -> None:
    args = parse_args()
    check_folder(args.out)
    hide_known_warnings()
    register_all_modules()
    from benchmarks.exported import CANDIDATES, Candidate, benchmark, markdown
    from pvd_mm.engine.records import new_record, write_record

    own = [Candidate(Path(config).stem, config) for config in args.configs]
    result = benchmark(
        own or CANDIDATES,
        args.out,
        args.size,
        args.rounds,
        args.threads,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    record = new_record('exported', result, 'cpu')
    print(f'{record["machine"]}, median of {args.rounds}.\n\n{markdown(result)}\n')
    print(write_record(args.out, record))


if __name__ == '__main__':
    main()
