# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Train a grid of configs, overrides and seeds; go on where it stopped; write
its tables and plots.
"""

import argparse
import sys
from pathlib import Path

from pvd_mm.utils.arguments import exit_on_user_error
from pvd_mm.utils.files import check_folder, make_folder
from studies.ablation import (
    load_grid,
    markdown,
    plot,
    read_results,
    run,
    update_blocks,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('grid', help='YAML file, see configs/ablations')
    parser.add_argument('--out', default='work_dirs/ablation', help='folder')
    parser.add_argument('--data', help="root of the data, if not the grid's")
    parser.add_argument(
        '--jobs', type=int, default=1, help='trainings at a time, of one thread each'
    )
    parser.add_argument('--only', nargs='+', metavar='NAME', help='trials')
    parser.add_argument('--tables-only', action='store_true', help='train nothing')
    parser.add_argument(
        '--update',
        nargs='+',
        metavar='PAGE',
        default=[],
        help='Markdown pages whose tables between "<!-- table: '
        'TITLE -->" and "<!-- end -->" are made anew from the '
        'results; train nothing',
    )
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f'--jobs must be at least 1, got {args.jobs}')
    return args


def main() -> None:
    args = parse_args()
    with exit_on_user_error('ablation', OSError, ValueError):
        check_folder(args.out)
        grid = load_grid(args.grid)
        failed = (
            []
            if args.tables_only or args.update
            else run(grid, args.out, args.data, args.jobs, args.only)
        )
        results = read_results(args.out)
        text = markdown(grid, results)
        pages = {
            page: update_blocks(Path(page).read_text(encoding='utf-8'), grid, results)
            for page in args.update
        }
    for page, content in pages.items():
        Path(page).write_text(content, encoding='utf-8')
        print(page)
    if pages:
        return
    out = make_folder(args.out)
    (out / 'tables.md').write_text(text + '\n', encoding='utf-8')
    for title in grid.tables:
        plot(grid, title, results, str(out / f'{title.replace(" ", "_")}.png'))
    print(f'{text}\n\n{out}/tables.md and a plot of each table')
    if failed:
        sys.exit(f'ablation: {len(failed)} trainings failed, see above')


if __name__ == '__main__':
    main()
