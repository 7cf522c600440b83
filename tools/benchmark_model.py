# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Measure models side by side: MACs, parameters, time and memory of a forward
pass and of a training step. The first config is what the others are compared
with. Random weights and images: no data is needed.
"""
import argparse
import json
import platform
import sys
from pathlib import Path

import torch

from pvd_mm import register_all_modules
from pvd_mm.launch import LaunchError, load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'configs', nargs='+', help='paths or names of shipped configs')
    parser.add_argument(
        '--size', nargs=2, type=int, metavar=('H', 'W'),
        help="image size; default: the first config's crop_size")
    parser.add_argument('--batch-size', type=int, default=2,
                        help='images of a training step (default: 2)')
    parser.add_argument('--rounds', type=int, default=3,
                        help='timed passes; the median counts (default: 3)')
    parser.add_argument('--no-train', action='store_true',
                        help='measure the forward pass alone')
    parser.add_argument('--device', default='cpu', help='(default: cpu)')
    parser.add_argument('--threads', type=int, help='threads on a CPU')
    parser.add_argument('--out', help='also write FILE.json and FILE.md')
    args = parser.parse_args()
    if min(args.batch_size, args.rounds, *(args.size or [1])) < 1:
        parser.error('--size, --batch-size and --rounds must be at least 1')
    if args.batch_size < 2 and not args.no_train:
        parser.error('--batch-size must be at least 2 to train: batch norm '
                     'over one pooled pixel needs two images')
    return args


def main() -> None:
    args = parse_args()
    register_all_modules()
    from pvd_mm.analysis.speed import Subject, benchmark, markdown
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        configs = [load_config(name) for name in args.configs]
    except LaunchError as error:
        sys.exit(f'benchmark_model: {error}')
    size = tuple(args.size or configs[0].crop_size)
    subjects = [
        Subject(cfg, Path(name).stem, size, args.batch_size, args.device)
        for name, cfg in zip(args.configs, configs)
    ]
    results = benchmark(subjects, args.rounds, not args.no_train,
                        lambda line: print(line, file=sys.stderr, flush=True))
    machine = torch.cuda.get_device_name(args.device) \
        if args.device.startswith('cuda') else \
        f'{platform.machine()} CPU, {torch.get_num_threads()} threads'
    title = (f'{size[0]}×{size[1]}, forward 1 image, training step '
             f'{args.batch_size} images, {machine}, torch '
             f'{torch.__version__}, median of {args.rounds}')
    table = f'{title}\n\n{markdown(results)}\n'
    print(table)
    if args.out:
        out = Path(args.out).with_suffix('')
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix('.md').write_text(table, encoding='utf-8')
        out.with_suffix('.json').write_text(
            json.dumps(dict(title=title, results=results), indent=2),
            encoding='utf-8')


if __name__ == '__main__':
    main()
