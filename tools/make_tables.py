# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Make the paper's tables, with figures from records of tests and benchmarks
beside the paper's and OpenMMLab's; and Fig. 8. Rows that nobody ran say so and
give the command.
"""
import argparse
import sys
from pathlib import Path

from pvd_mm.analysis.records import read_records, records_of
from pvd_mm.analysis.tables import NAMES, make_tables, update_blocks


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('table', nargs='?', default='all',
                        choices=[*NAMES, 'all'], help='which')
    parser.add_argument('--records', nargs='+', default=['work_dirs'],
                        metavar='DIR', help='where to look for records')
    parser.add_argument('--out', default='work_dirs/tables', help='folder')
    parser.add_argument('--update', nargs='+', metavar='PAGE', default=[],
                        help='Markdown pages whose tables between "<!-- table: '
                        'NAME -->" and "<!-- end -->" are made anew, instead')
    args = parser.parse_args()
    missing = [place for place in args.records if not Path(place).is_dir()]
    if missing and args.records != ['work_dirs']:
        parser.error(f'--records: {", ".join(missing)} is no folder')
    return args


def main() -> None:
    args = parse_args()
    records, broken = read_records(args.records)
    for message in broken:
        print(message, file=sys.stderr)
    print(f'{len(records)} records in {", ".join(args.records)}'
          + (f', {len(broken)} broken' if broken else ''), file=sys.stderr)
    for page in map(Path, args.update):
        try:
            text = update_blocks(page.read_text(encoding='utf-8'), records)
        except (OSError, ValueError) as error:
            sys.exit(f'make_tables: {page}: {error}')
        page.write_text(text, encoding='utf-8')
        print(page)
    if args.update:
        return
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, tables in make_tables(args.table, records).items():
        text = '\n'.join(table.markdown() for table in tables) or \
            '## Tests on other data\n\nno records\n'
        (out / f'{name}.md').write_text(text, encoding='utf-8')
        for number, table in enumerate(tables):
            suffix = f'_{number + 1}' if len(tables) > 1 else ''
            (out / f'{name}{suffix}.csv').write_text(
                table.csv(), encoding='utf-8')
        print(text)
    measured = records_of(records, 'op')
    if args.table in ('all', 'table3') and measured:
        from pvd_mm.analysis.op_report import draw
        draw(measured[-1]['result'], str(out / 'fig8.png'))
        print(f'{out / "fig8.png"}')


if __name__ == '__main__':
    main()
