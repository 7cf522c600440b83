# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Measure models side by side: MACs, parameters, time and memory of a forward
pass and of a training step; of detectors the mask branch by itself, too. The
first config is what the others are compared with. Random weights and images: no
data is needed.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.arguments import add_model_arguments
from pvd_mm import register_all_modules
from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.utils.arguments import AtLeastOne, exit_on_user_error
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.files import check_folder, write_text

KINDS = ('mask', 'forward', 'train')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_arguments(parser, "the first config's crop_size, of detectors 800 1333")
    for option, default, words in (
        ('--rounds', 3, 'timed passes; the median counts (default: 3)'),
        ('--train-rounds', None, 'timed training steps (default: as --rounds)'),
        ('--rois', None, 'detectors: RoIs of the mask branch (default: 100)'),
        ('--objects', None, 'detectors: objects of an image (default: 8)'),
    ):
        parser.add_argument(
            option, type=int, action=AtLeastOne, default=default, help=words
        )
    parser.add_argument(
        '--no-train', action='store_true', help='measure the forward pass alone'
    )
    parser.add_argument(
        '--only', nargs='+', choices=KINDS, default=KINDS, help='measure these alone'
    )
    parser.add_argument(
        '--count',
        action='store_true',
        help='count parameters and multiply-accumulates, and measure nothing: for a '
        'machine that is busy',
    )
    parser.add_argument(
        '--out', metavar='FILE', help='also write FILE.json and FILE.md, and a record'
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='replace FILE.json and FILE.md if they exist',
    )
    args = parser.parse_args()
    out = (args.out or '').removesuffix('.md').removesuffix('.json')
    args.files = [Path(out + end) for end in ('.json', '.md') if args.out]
    there = [str(path) for path in args.files if path.exists()]
    if there and not args.force:
        parser.error(
            f'--out: {" and ".join(there)} exist already; choose '
            'another name, or replace them with --force'
        )
    try:
        for path in args.files:
            check_folder(path.parent)
    except UserError as error:
        parser.error(f'--out: {error}')
    return args


@exit_on_user_error('benchmark_model')
def main() -> None:
    args = parse_args()
    hide_known_warnings()
    register_all_modules()
    from benchmarks.models import benchmark, load_benchmarks, markdown
    from pvd_mm.engine.records import new_record, write_record
    from pvd_mm.utils.machine import describe_machine

    if args.threads:
        torch.set_num_threads(args.threads)
    models = load_benchmarks(
        args.configs,
        args.size,
        args.batch_size,
        args.device,
        kinds=[kind for kind in args.only if kind != 'train' or not args.no_train],
        **{
            name: getattr(args, name)
            for name in ('rois', 'objects')
            if getattr(args, name) is not None
        },
    )
    results = benchmark(
        models,
        0 if args.count else args.rounds,
        args.train_rounds,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    title = (
        f'{models[0].title()}. {describe_machine(args.device)}, torch '
        f'{torch.__version__}, '
        + ('counted.' if args.count else f'median of {args.rounds}, in turn.')
    )
    table = f'{title}\n\n{markdown(results)}\n'
    print(table)
    if args.out:
        data, text = args.files
        write_text(text, table)
        write_text(data, json.dumps(dict(title=title, results=results), indent=2))
        for model, result in zip(models, results):
            result.update(size=list(model.size), batch_size=args.batch_size)
        record = new_record('model', results, args.device)
        print(write_record(str(data.parent), record))


if __name__ == '__main__':
    main()
