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

import numpy as np
import torch

from pvd_mm import register_all_modules
from pvd_mm.engine.config import load_config
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.files import check_folder, make_folder


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='+', help='paths or names of shipped configs')
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help="image size; default: the first config's crop_size, of detectors 800 1333",
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=2,
        help='images of a training step (default: 2)',
    )
    parser.add_argument(
        '--rounds',
        type=int,
        default=3,
        help='timed passes; the median counts (default: 3)',
    )
    parser.add_argument(
        '--no-train', action='store_true', help='measure the forward pass alone'
    )
    parser.add_argument(
        '--only',
        nargs='+',
        choices=['mask', 'forward', 'train'],
        help='measure these alone',
    )
    parser.add_argument(
        '--train-rounds', type=int, help='timed training steps (default: as --rounds)'
    )
    parser.add_argument(
        '--rois', type=int, help='detectors: RoIs of the mask branch (default: 100)'
    )
    parser.add_argument(
        '--objects', type=int, help='detectors: objects of an image (default: 8)'
    )
    parser.add_argument('--device', default='cpu', help='(default: cpu)')
    parser.add_argument('--threads', type=int, help='threads on a CPU')
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
    for name in ('size', 'batch_size', 'rounds', 'train_rounds', 'rois', 'objects'):
        given = getattr(args, name)
        if given is not None and np.min(given) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1')
    return args


def make_subjects(args: argparse.Namespace, configs: list, training: bool) -> list:
    from benchmarks.subjects import subject_class

    scopes = {cfg.default_scope for cfg in configs}
    if len(scopes) > 1:
        sys.exit('benchmark_model: segmentors and detectors cannot be compared')
    kind = subject_class(*scopes)
    if training and args.batch_size < kind.least_batch_size:
        sys.exit(
            'benchmark_model: --batch-size must be at least '
            f'{kind.least_batch_size} to train: batch norm over one pooled '
            'pixel needs two images'
        )
    kinds = tuple(
        one
        for one in kind.kinds
        if one in (args.only or kind.kinds) and (training or one != 'train')
    )
    if not kinds:
        sys.exit('benchmark_model: these leave nothing to measure')
    special = {
        name: getattr(args, name)
        for name in ('rois', 'objects')
        if getattr(args, name) is not None
    }
    if special and scopes != {'mmdet'}:
        sys.exit('benchmark_model: --rois and --objects are for detectors')
    size = tuple(args.size or kind.default_size(configs[0]))
    subjects = [
        kind(cfg, Path(name).stem, size, args.batch_size, args.device, **special)
        for name, cfg in zip(args.configs, configs)
    ]
    for subject in subjects:
        subject.kinds = kinds
    return subjects


def main() -> None:
    args = parse_args()
    register_all_modules()
    from benchmarks.models import benchmark, markdown
    from pvd_mm.engine.records import new_record, write_record
    from pvd_mm.utils.machine import describe_machine

    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        configs = [load_config(name) for name in args.configs]
    except UserError as error:
        sys.exit(f'benchmark_model: {error}')
    training = not args.no_train and 'train' in (args.only or ['train'])
    subjects = make_subjects(args, configs, training)
    results = benchmark(
        subjects,
        args.rounds,
        (args.train_rounds or args.rounds) if training else 0,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    title = (
        f'{subjects[0].title()}. {describe_machine(args.device)}, torch '
        f'{torch.__version__}, median of {args.rounds}, in turn.'
    )
    table = f'{title}\n\n{markdown(results)}\n'
    print(table)
    if args.out:
        data, text = args.files
        make_folder(data.parent)
        text.write_text(table, encoding='utf-8')
        data.write_text(
            json.dumps(dict(title=title, results=results), indent=2), encoding='utf-8'
        )
        for subject, one in zip(subjects, results):
            one.update(size=list(subject.size), batch_size=args.batch_size)
        record = new_record('model', results, args.device)
        print(write_record(str(data.parent), record))


if __name__ == '__main__':
    main()
