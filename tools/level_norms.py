# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Record how large a PVD's decoded maps and their gradients are, level by
level, in the first steps of a training: is the chain stable?
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from mmengine.config import DictAction

from pvd_mm.engine.compatibility import hide_known_warnings
from pvd_mm.utils.arguments import exit_on_user_error
from pvd_mm.utils.files import check_new
from studies.level_norms import plot, record_level_norms, table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('config', help='semantic config with a PVD head')
    parser.add_argument('--out', default='work_dirs/level_norms', help='folder')
    parser.add_argument(
        '--force', action='store_true', help='replace results that are in that folder'
    )
    parser.add_argument('--steps', type=int, default=100, help='of training')
    parser.add_argument(
        '--vary',
        nargs='+',
        metavar='KEY=VALUE',
        default=[],
        help='overrides, each of which is trained in turn after the plain '
        'config; join what belongs together with a semicolon, and name it in '
        'front: "zero: model.decode_head.decoder.vote_start=zero"',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='overrides for all of them',
        default={},
    )
    args = parser.parse_args()
    if args.steps < 1:
        parser.error(f'--steps must be at least 1, got {args.steps}')
    for vary in args.vary:
        if not all('=' in part for part in named(vary)[1].split(';')):
            parser.error(f'--vary takes KEY=VALUE, got {vary}')
    return args


def named(text: str) -> tuple[str, str]:
    """'name: overrides' in two; without a name it is the overrides'."""
    name, colon, rest = text.partition(': ')
    if colon:
        return name, rest
    return ', '.join(part.split('.')[-1] for part in text.split(';')), text


def overrides(text: str) -> dict:
    """Of 'a.b=1;c=[2,3]'."""
    pairs = (part.split('=', 1) for part in text.split(';') if part)
    return {key: DictAction._parse_iterable(value) for key, value in pairs}


def main() -> None:
    args = parse_args()
    hide_known_warnings()
    out = Path(args.out).absolute()
    recorded = []
    files = [out / f'level_norms.{end}' for end in ('md', 'json', 'png')]
    with exit_on_user_error('level_norms'):
        check_new(files, args.force)
        for number, vary in enumerate(['', *args.vary]):
            name, vary = named(vary or 'plain: ')
            recorded.append(
                record_level_norms(
                    name,
                    args.config,
                    str(out / f'{number}'),
                    args.steps,
                    {**args.cfg_options, **overrides(vary)},
                )
            )
    text = table(recorded)
    (out / 'level_norms.md').write_text(text + '\n', encoding='utf-8')
    (out / 'level_norms.json').write_text(
        json.dumps([asdict(norms) for norms in recorded])
    )
    plot(recorded, str(out / 'level_norms.png'))
    print(f'{text}\n{out}/level_norms.md, .json and .png')


if __name__ == '__main__':
    main()
