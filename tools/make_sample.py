# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Draw the built-in street sample, in the layout of Cityscapes."""

import argparse
import sys
import time

from pvd_mm.samples import make_street_sample


def size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.lower().split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r}; expected HEIGHTxWIDTH, such as 256x512'
        ) from None
    return height, width


def counted(jobs: list):
    """Go through the jobs and say how far it is, at most twice a second."""
    # not mmengine's progress bar: it would load all of torch for it
    start = said = time.monotonic()
    for done, job in enumerate(jobs, 1):
        yield job
        now = time.monotonic()
        if now - said > 0.5 or done == len(jobs):
            said = now
            left = (now - start) / done * (len(jobs) - done)
            end = '\n' if done == len(jobs) else ''
            text = f'\r{done}/{len(jobs)} scenes, {left:.0f} s left '
            print(text, end=end, flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('--out', default='data/street', help='folder')
    parser.add_argument('--train', type=int, default=200, help='train scenes')
    parser.add_argument('--val', type=int, default=40, help='val scenes')
    parser.add_argument(
        '--size', type=size, default='256x512', help='HEIGHTxWIDTH in pixels'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed')
    parser.add_argument(
        '--force',
        action='store_true',
        help='replace a street sample that has other parameters',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        written = make_street_sample(
            args.out,
            train=args.train,
            val=args.val,
            size=args.size,
            seed=args.seed,
            force=args.force,
            progress=counted,
        )
    except (ValueError, OSError) as error:
        sys.exit(f'make_sample: {error}')
    counts = f'{args.train} train and {args.val} val scenes'
    if written:
        print(f'{args.out}: {counts} drawn')
    else:
        print(f'{args.out}: {counts} are there already, nothing to do')


if __name__ == '__main__':
    main()
