# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Make the paper's tables, with figures from records of tests and benchmarks
beside the paper's and OpenMMLab's; and Fig. 8. Rows that nobody ran say so and
give the command. Tests on other data have tables of their own.
"""

import argparse
import re
import sys
from pathlib import Path

from benchmarks.op_report import draw
from pvd_mm.engine.records import read_records, records_of
from pvd_mm.utils.arguments import exit_on_user_error
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.files import check_new, make_folder, write_text
from results.pages import NAMES, make_tables, update_page


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'table',
        nargs='?',
        default='all',
        choices=[*NAMES, 'all'],
        help='which (default: all)',
    )
    parser.add_argument(
        '--records',
        nargs='+',
        metavar='DIR',
        help='folders to search for records (default: work_dirs '
        "and docs, which has the project's own)",
    )
    parser.add_argument(
        '--out',
        default='work_dirs/tables',
        metavar='DIR',
        help='folder of the tables (default: %(default)s)',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace tables that are in that folder'
    )
    parser.add_argument(
        '--update',
        nargs='+',
        metavar='PAGE',
        default=[],
        help='write no files, but make these pages anew: what is '
        'between "<!-- table: NAME -->" and "<!-- end -->" in '
        'Markdown, and the figures in metafiles',
    )
    args = parser.parse_args()
    missing = [place for place in args.records or () if not Path(place).is_dir()]
    if missing:
        parser.error(f'--records: {", ".join(missing)} is no folder')
    args.records = args.records or ['work_dirs', 'docs']
    return args


def update(pages: list[str], records: list[dict]) -> None:
    for page in map(Path, pages):
        try:
            text = update_page(page, records)
        except (OSError, ValueError) as error:
            raise UserError(f'{page}: {error}') from error
        write_text(page, text)
        print(page)


def files(args: argparse.Namespace, records: list[dict]) -> dict:
    """Path to what writes that file."""
    out, content = Path(args.out), {}
    for name, tables in make_tables(args.table, records).items():
        text = '\n\n'.join(table.markdown() for table in tables) + '\n'
        content[out / f'{name}.md'] = text
        for i, table in enumerate(tables):
            title = re.sub(r'\W+', '-', table.title.lower()).strip('-')[:60]
            suffix = f'_{i}_{title}' if i else ''
            content[out / f'{name}{suffix}.csv'] = table.csv()
    if args.table in ('all', 'table3'):
        for i, record in enumerate(records_of(records, 'op')):
            content[out / f'fig8{f"_{i}" if i else ""}.png'] = record['result']
    return content


@exit_on_user_error('make_tables')
def main() -> None:
    args = parse_args()
    records, broken = read_records(args.records)
    for message in broken:
        print(f'make_tables: {message}', file=sys.stderr)
    print(
        f'{len(records)} records in {", ".join(args.records)}'
        + (f', {len(broken)} broken' if broken else ''),
        file=sys.stderr,
    )
    if args.update:
        update(args.update, records)
        return
    content = files(args, records)
    check_new(content, args.force)
    make_folder(args.out)
    for path, made in content.items():
        if path.suffix == '.png':
            draw(made, str(path))
            continue
        write_text(path, made)
        if path.suffix == '.md':
            print(made)
    print('\n'.join(map(str, content)))


if __name__ == '__main__':
    main()
