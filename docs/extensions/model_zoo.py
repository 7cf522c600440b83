# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Make the tables of the page ``model_zoo`` from the metafiles when the site is
built."""

import re
from pathlib import Path

import yaml
from sphinx.util import logging

from pvd_mm.utils.markdown import markdown_table

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
PAGE = 'model_zoo'


def read_models(root: Path = ROOT) -> list[dict]:
    """The models of all metafiles that ``model-index.yml`` names, in its
    order."""

    def load(name: str) -> dict:
        return yaml.safe_load((root / name).read_text(encoding='utf-8'))

    return [
        model
        for part in load('model-index.yml')['Import']
        for model in load(part)['Models']
    ]


def zoo_table(models: list[dict]) -> str:
    """A row for each model; columns for figures and weights if any has them.

    Args:
        models (list[dict]): As metafiles describe them.
    """
    columns = {
        'config': [f'[`{model["Name"]}`](../{model["Config"]})' for model in models],
        'architecture': [_architecture(model['Metadata']) for model in models],
        'images a step': [model['Metadata']['Batch Size'] for model in models],
    }
    for head, key, form in (
        ('params (M)', 'Parameters (M)', '.2f'),
        ('GMACs', 'GMACs', '.2f'),
        ('at', 'Image Size', ''),
    ):
        columns[head] = [
            format(model['Metadata'][key], form) if key in model['Metadata'] else ''
            for model in models
        ]
    columns['figures'] = [_figures(model.get('Results') or []) for model in models]
    columns['weights'] = [
        f'[file]({model["Weights"]})' if 'Weights' in model else '' for model in models
    ]
    filled = {head: cells for head, cells in columns.items() if any(cells)}
    rows = [[cell or '–' for cell in row] for row in zip(*filled.values())]
    return markdown_table(list(filled), rows, left=2)


def _architecture(meta: dict) -> str:
    return ', '.join([*meta['Architecture'], *filter(None, [meta.get('Granularity')])])


def _figures(results: dict | list) -> str:
    results = results if isinstance(results, list) else [results]
    return ', '.join(
        f'{name} {value}'
        for result in results
        for name, value in (result.get('Metrics') or {}).items()
    )


def fill(app, docname: str, source: list[str]) -> None:
    """Put a table in the place of each ``<!-- models: DATA -->`` of the page;
    called by Sphinx as it reads one."""
    if docname != PAGE:
        return
    groups = {}
    for model in read_models():
        groups.setdefault(model['Metadata']['Training Data'], []).append(model)

    def table(match: re.Match) -> str:
        if match[1] not in groups:
            logger.warning(
                'there are no models of %s', match[1], location=docname, type='zoo'
            )
            return ''
        return zoo_table(groups.pop(match[1]))

    source[0] = re.sub(r'<!-- models: (.+?) -->', table, source[0])
    for data in groups:
        logger.warning('there is no table of %s', data, location=docname, type='zoo')


def setup(app) -> dict:
    """Called by Sphinx."""
    app.connect('source-read', fill)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
