# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Draw a built-in sample: street (as Cityscapes), shapes (as COCO), or
street-panoptic (street with instances, as both)."""

import argparse
import inspect
import time

from pvd_mm.data.samples import (
    make_shapes_sample,
    make_street_panoptic_sample,
    make_street_sample,
)
from pvd_mm.utils.arguments import exit_on_user_error

KINDS = {
    'street': make_street_sample,
    'shapes': make_shapes_sample,
    'street-panoptic': make_street_panoptic_sample,
}


def size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.lower().split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r}; expected HEIGHTxWIDTH, such as 256x512'
        ) from None
    return height, width


def with_progress(scenes: list):
    """Go through the scenes and print how many are done, at most twice a second."""
    # not mmengine's progress bar: it would load all of torch for it
    start = printed = time.monotonic()
    for done, scene in enumerate(scenes, 1):
        yield scene
        now = time.monotonic()
        if now - printed > 0.5 or done == len(scenes):
            printed = now
            left = (now - start) / done * (len(scenes) - done)
            end = '\n' if done == len(scenes) else ''
            text = f'\r{done}/{len(scenes)} scenes, {left:.0f} s left '
            print(text, end=end, flush=True)


def default(kind: str, name: str):
    return inspect.signature(KINDS[kind]).parameters[name].default


def defaults(name: str) -> str:
    texts = []
    for kind in KINDS:
        value = default(kind, name)
        value = 'x'.join(map(str, value)) if isinstance(value, tuple) else value
        texts.append(f'{value} for {kind}')
    return f'(default: {", ".join(texts)})'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--kind', choices=KINDS, default='street', help='(default: street)'
    )
    parser.add_argument('--out', help='folder (default: data/KIND)')
    parser.add_argument('--train', type=int, help=f'train scenes {defaults("train")}')
    parser.add_argument('--val', type=int, help=f'val scenes {defaults("val")}')
    parser.add_argument(
        '--size', type=size, help=f'HEIGHTxWIDTH in pixels {defaults("size")}'
    )
    parser.add_argument('--seed', type=int, help=f'seed {defaults("seed")}')
    parser.add_argument(
        '--force',
        action='store_true',
        help='replace a sample of this kind that has other parameters',
    )
    args = parser.parse_args()
    if args.out is None:
        args.out = f'data/{args.kind}'
    for name in ('train', 'val', 'size', 'seed'):
        if getattr(args, name) is None:
            setattr(args, name, default(args.kind, name))
    return args


def main() -> None:
    args = parse_args()
    with exit_on_user_error('make_sample', ValueError, OSError):
        written = KINDS[args.kind](
            args.out,
            train=args.train,
            val=args.val,
            size=args.size,
            seed=args.seed,
            force=args.force,
            progress=with_progress,
        )
    counts = f'{args.train} train and {args.val} val scenes'
    if written:
        print(f'{args.out}: {counts} drawn')
    else:
        print(f'{args.out}: {counts} are there already, nothing to do')


if __name__ == '__main__':
    main()
