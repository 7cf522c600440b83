# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The shipped configs: what they are, and what they cost by records of
``tools/benchmark_model.py``; their entries in the metafiles."""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import yaml
from mmengine.config import Config

from pvd_mm.engine.records import records_of
from pvd_mm.utils.config_types import type_name
from pvd_mm.utils.markdown import markdown_table
from pvd_mm.utils.shipped_configs import find_shipped, shipped_configs

from .tables import (
    ACCURACIES,
    NONE,
    NOT_RUN,
    Table,
    configs_of,
    how_to_run,
    load_published,
    number,
    tests_of,
)

_PASSES = ('forward', 'train')


def _measured(records: Sequence[dict]) -> Iterator[tuple[dict, dict]]:
    """What a config cost before its model was changed is left out, by the parameters
    of its newest result."""
    newest = {}
    found = sorted(records_of(records, 'model'), key=lambda record: record['date'])
    for record in found:
        newest.update({result['name']: result['params'] for result in record['result']})
    for record in found:
        for result in record['result']:
            if result['params'] == newest[result['name']]:
                yield record, result


def complexity_table(records: Sequence[dict]) -> Table:
    """Parameters and multiply-accumulates, time and memory of all shipped
    configs. A config that several records measure has a row for each."""
    head = [
        'config',
        'size',
        'params (M)',
        'GMACs',
        'forward (s)',
        'forward (MiB)',
        'training step (s)',
        'training step (MiB)',
        'machine',
    ]
    names = [Path(path).stem for path in shipped_configs()]
    costs = {}
    for record, result in _measured(records):
        counted = not any(key.endswith('_s') for key in result)
        if counted or any(f'{kind}_s' in result for kind in _PASSES):
            costs.setdefault(result['name'], []).append((record, result))
    detectors = {
        name
        for about, other in _validation_sets()
        if about['task'] != 'Semantic Segmentation'
        for name in configs_of(other)
    }
    rows, missing = [], {}
    for name in names:
        measured = costs.pop(name, [])
        rows += [_cost_row(name, *pair) for pair in measured] or [
            [name, *[NOT_RUN] * (len(head) - 1)]
        ]
        lacking = tuple(
            kind
            for kind in _PASSES
            if not any(f'{kind}_s' in result for _, result in measured)
        )
        if lacking:
            size = measured[0][1].get('size', ()) if measured else ()
            # segmentors and detectors are not measured together
            key = name in detectors, tuple(size), lacking
            missing.setdefault(key, []).append(name)
    for name, measured in costs.items():
        rows += [_cost_row(f'{name} (not shipped)', *pair) for pair in measured]
    notes = ['Times of rows that were not measured in one run do not compare.']
    if missing:
        commands = [
            _command(place, size, kinds, configs)
            for place, ((_, size, kinds), configs) in enumerate(missing.items(), 1)
        ]
        notes.append(how_to_run('\n'.join(commands)))
    return Table('Parameters, multiply-accumulates, time and memory', head, rows, notes)


def _command(
    place: int, size: Sequence[int], kinds: Sequence[str], configs: Sequence[str]
) -> str:
    words = ['--size', *map(str, size)] if size else []
    words += ['--only', *kinds, '--out', f'work_dirs/benchmark/{place}']
    return ' \\\n    '.join(
        ['python tools/benchmark_model.py', *configs, ' '.join(words)]
    )


def _cost_row(name: str, record: dict, result: dict) -> list[str]:
    columns = (
        ('forward_macs', 1e9, '.2f'),
        ('forward_s', 1, '.3f'),
        ('forward_mib', 1, '.0f'),
        ('train_s', 1, '.3f'),
        ('train_mib', 1, '.0f'),
    )
    return [
        name,
        '×'.join(map(str, result.get('size', ()))) or NONE,
        number(result['params'] / 1e6, '.2f'),
        *(
            number(result[key] / unit, form) if key in result else NOT_RUN
            for key, unit, form in columns
        ),
        record['machine'],
    ]


# ------------------------------------------------------------- README's tables


def _count(config: str, key: str, unit: float, records: Sequence[dict]) -> str:
    """What does not depend on the machine, as a cell."""
    for _, result in _measured(records):
        if result['name'] == config and key in result:
            return f'{result[key] / unit:.1f}'
    return NOT_RUN


def _of_the_paper(table: dict) -> list[str]:
    return [
        next(iter(row['configs']))
        for row in table['rows']
        if row['method'].startswith('Ours') and row.get('configs')
    ]


def segmentors_table(records: Sequence[dict]) -> str:
    """The segmentors for Cityscapes, ours first, in Markdown."""
    about = load_published()['table1']
    head = ['config', 'steps', 'width of the votes', 'params (M)', 'GMACs']
    rows = []
    for name in sorted(
        configs_of(about),
        key=lambda name: (
            not name.startswith('pvd_'),
            int(re.search(r'_r(\d+)', name)[1]),
        ),
    ):
        head_cfg = Config.fromfile(find_shipped(name)).model.decode_head
        kind = ['baseline', NONE]
        if type_name(head_cfg) == 'PVDHead':
            width = head_cfg.get('decoder', {}).get('vote_channels', 'maps')
            if isinstance(width, (list, tuple)):
                width = f'{min(width)} to {max(width)}'
            kind = [str(len(head_cfg.in_channels) - 1), str(width)]
        label = f'`{_short(name)}`'
        label += ", the paper's" if name in _of_the_paper(about) else ''
        rows.append(
            [
                label,
                *kind,
                _count(name, 'params', 1e6, records),
                _count(name, 'forward_macs', 1e9, records),
            ]
        )
    return markdown_table(head, rows, left=3)


def _short(name: str) -> str:
    """Without schedule and data: 'pvd_r50-block_1xb4-90k_…' in two words."""
    return '_'.join(takewhile(lambda word: not word.startswith('1xb'), name.split('_')))


def detectors_table(records: Sequence[dict]) -> str:
    """The detectors for COCO 2017 beside their Mask R-CNN, in Markdown."""
    about = load_published()['table2']
    head = [
        'config',
        'masks',
        'params (M)',
        'its Mask R-CNN',
        'mask branch, GMACs',
        'its Mask R-CNN',
    ]
    rows = []
    for name in configs_of(about):
        if not name.startswith('pvd-'):
            continue
        base = name.removeprefix('pvd-').replace('-literal', '')
        side = Config.fromfile(find_shipped(name)).model.train_cfg.rcnn.mask_size
        label = f'`{name}`' + (", the paper's" if name in _of_the_paper(about) else '')
        counts = [
            _count(config, key, unit, records)
            for key, unit in (('params', 1e6), ('mask_macs', 1e9))
            for config in (name, base)
        ]
        rows.append([label, f'{side} × {side}', *counts])
    return markdown_table(head, rows, left=2)


# ------------------------------------------------------------------- metafiles


def update_metafile(text: str, records: Sequence[dict]) -> str:
    """Enter what records show into a metafile; what else it says is kept.

    ``Metadata`` gets parameters and multiply-accumulates with the image size
    they are of, ``Results`` a list with the metrics of every plain test on the
    validation set that the config is for. Figures that no record shows are
    taken out.
    """
    comment = ''.join(
        takewhile(lambda line: line.startswith('#'), text.splitlines(keepends=True))
    )
    content = yaml.safe_load(text)
    for model in content['Models']:
        _enter_cost(model, records)
        _enter_results(model, records)
    return comment + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _enter_cost(model: dict, records: Sequence[dict]) -> None:
    metadata = model['Metadata']
    for key in ('Parameters (M)', 'GMACs', 'Image Size'):
        metadata.pop(key, None)
    for _, result in _measured(records):
        if result['name'] == model['Name'] and 'forward_macs' in result:
            metadata['Parameters (M)'] = round(result['params'] / 1e6, 2)
            metadata['GMACs'] = round(result['forward_macs'] / 1e9, 2)
            metadata['Image Size'] = '×'.join(map(str, result['size']))
            return


def _enter_results(model: dict, records: Sequence[dict]) -> None:
    old = model['Results']
    plain = {
        key: value
        for key, value in (old[0] if isinstance(old, list) else old).items()
        if key != 'Metrics'
    }
    results = []
    for about, other in _validation_sets():
        if model['Name'] in configs_of(other):
            metrics = {**about['metrics'], **about['also']}
            for test in tests_of(model['Name'], records, other['data']):
                results.append(
                    {
                        title: round(about['factor'] * test['result'][key], 2)
                        for title, key in metrics.items()
                        if test['result'].get(key) is not None
                    }
                )
    model['Results'] = [{**plain, 'Metrics': metrics} for metrics in results] or [plain]


def _validation_sets() -> Iterator[tuple[dict, dict]]:
    """Each table of accuracies with itself and with its others."""
    published = load_published()
    for name in ACCURACIES:
        about = published[name]
        for other in (about, *about['others']):
            yield about, other
