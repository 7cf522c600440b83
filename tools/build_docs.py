# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Build the documentation site. Warnings, broken links among them, are errors."""

import argparse
import sys
from pathlib import Path

from pvd_mm.utils.arguments import exit_on_user_error
from pvd_mm.utils.files import check_folder

DOCS = Path(__file__).resolve().parents[1] / 'docs'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        '--source', type=Path, default=DOCS, metavar='DIR', help='pages, and conf.py'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=DOCS / '_build',
        metavar='DIR',
        help='the site goes to the folder html in it',
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        from sphinx.cmd.build import build_main
    except ModuleNotFoundError as error:
        sys.exit(
            f'build_docs: {error.name} is not installed: '
            'pip install -r requirements/docs.txt'
        )
    if not (args.source / 'conf.py').is_file():
        sys.exit(
            f'build_docs: {args.source} has no conf.py; the pages are in a '
            'checkout of pvd_mm, not in its wheel'
        )
    site = args.out / 'html'
    with exit_on_user_error('build_docs'):
        check_folder(site)
    # Everything anew: a second build would not repeat the warnings of pages
    # that have not changed.
    status = build_main(
        [
            '--fresh-env',
            '--write-all',
            '--fail-on-warning',
            '--keep-going',
            '--quiet',
            '-d',
            str(args.out / 'doctrees'),
            str(args.source),
            str(site),
        ]
    )
    if status:
        print('build_docs: FAILED, see the warnings above', file=sys.stderr)
    else:
        print(site / 'index.html')
    return status


if __name__ == '__main__':
    sys.exit(main())
