# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The paper's tables: nobody's figures in another's place, nothing made up."""

import copy
import csv
import importlib
import inspect
import re
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import yaml
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from helpers.commands import ROOT, tool
from pvd_mm.apis.complexity import model_complexity
from pvd_mm.apis.images import read_image
from pvd_mm.data.samples import make_shapes_sample, make_street_sample
from pvd_mm.data.samples.street.sample import scene_files
from pvd_mm.engine.records import (
    new_record,
    read_records,
    records_of,
    write_record,
)
from pvd_mm.utils.markdown import block_names
from pvd_mm.utils.shipped_configs import shipped_configs
from results.model_zoo import (
    complexity_table,
    detectors_table,
    segmentors_table,
    update_metafile,
)
from results.op_tables import table3, table4
from results.pages import NAMES, make_tables, update_page
from results.tables import (
    ACCURACIES,
    accuracy_table,
    configs_of,
    load_published,
    other_tables,
)
from studies.ablation import load_grid

TOOL = ROOT / 'tools/make_tables.py'
BLOCK = 'pvd_r50-block_1xb4-90k_cityscapes-512x1024'
C4 = 'pvd-mask-rcnn_r50-c4_1x_coco'
VAL = dict(frankfurt=267, lindau=59, munster=174)


def of_test(
    config=BLOCK,
    kind='CheckedCityscapesDataset',
    folders=VAL,
    overrides=None,
    shipped='',
    finished=True,
    steps=90000,
    **result,
):
    return new_record(
        'test',
        result or dict(mIoU=77.125),
        config=config,
        shipped=config if shipped == '' else shipped,
        finished=finished,
        overrides=overrides or {},
        steps=steps,
        seed=0,
        checkpoint=dict(path='a.pth', sha256='0123456789'),
        data=dict(
            type=kind, split='val', folders=folders, images=sum(folders.values())
        ),
    )


def of_coco(count=5000, name='val2017', config=C4, **result):
    return of_test(
        config,
        'CheckedCocoDataset',
        {name: count},
        **{f'coco/{key}': value for key, value in result.items()},
    )


def row(table, config):
    return next(one for one in table.rows if config in one)


def test_the_paper_s_figures():
    """All rows, as the paper has them, and nothing in our columns."""
    table = accuracy_table('table1', [])
    methods = [one for one in table.rows if one[0]]
    assert len(methods) == 17
    assert [one[0] for one in methods if 'coarse' in one[0]] == [
        'LRR-4x (coarse)',
        'SegModel (coarse)',
        'ResNet-38 (coarse)',
        'DeepLabv3 (coarse)',
    ]
    assert methods[-1][:3] == ['Ours', BLOCK, '79.3']
    assert not any(re.match(r'\d', one[-1]) for one in table.rows)
    second = accuracy_table('table2', [])
    methods = [one for one in second.rows if one[0]]
    assert len(methods) == 10
    assert row(second, C4)[2:5] == ['33.9', '56.1', '36.2']
    assert row(second, C4)[-3:] == ['not run'] * 3
    assert f'    pvd_mask_rcnn/{C4}' in second.notes[-1]
    assert 'mim train pvd_mm configs/$config.py' in second.notes[-1]


def test_every_config_of_the_data_file_is_shipped():
    """And every shipped one is of one validation set."""
    published = load_published()
    sets = []
    for name in ACCURACIES:
        about = published[name]
        rows = [config for one in about['rows'] for config in one.get('configs', ())]
        assert sorted(rows) == sorted(configs_of(about))
        sets += [about, *about['others']]
        for one in about['rows']:
            for more in one.get('configs', {}).values():
                assert not more.get('source') or more['source'] in published['sources']
    assert sorted(name for one in sets for name in configs_of(one)) == sorted(
        Path(path).stem for path in shipped_configs()
    )


def test_the_samples_are_as_the_data_file_says():
    """Number and folders of what make_sample.py draws unless told otherwise."""
    street, shapes = (
        next(
            one
            for one in load_published()[table]['others']
            if one['title'].startswith(name)
        )['data']['folders']
        for table, name in (('table1', 'Street'), ('table2', 'Shapes'))
    )
    default = inspect.signature(make_street_sample).parameters['val'].default
    assert street == Counter(
        scene_files(Path(), 'val', index)[0].parent.name for index in range(default)
    )
    default = inspect.signature(make_shapes_sample).parameters['val'].default
    assert shapes == dict(val2017=default)


def of_openmmlab(framework):
    """The metrics of each config in the metafiles of the installed mmseg or mmdet, by
    the config's name."""
    folder = Path(importlib.import_module(framework).__file__).parent / '.mim/configs'
    metrics = {}
    for path in folder.glob('*/metafile.y*ml'):
        content = yaml.safe_load(path.read_text())
        models = content if isinstance(content, list) else content.get('Models')
        for one in models or ():
            results = one.get('Results') or []
            for result in results if isinstance(results, list) else [results]:
                if result['Task'].endswith('Segmentation'):
                    metrics[Path(one['Config']).stem] = result['Metrics']
    assert metrics, f'this {framework} came without its metafiles'
    return metrics


@pytest.mark.parametrize(
    'depth, method', [(18, 'deeplabv3'), (50, 'deeplabv3'), (50, 'pspnet')]
)
def test_openmmlab_s_own_figures(depth, method):
    """As the metafiles of the installed mmseg have them."""
    theirs = of_openmmlab('mmseg')
    found = row(
        accuracy_table('table1', []),
        f'{method}_r{depth}-d8_1xb4-90k_cityscapes-512x1024',
    )
    name = f'{method}_r{depth}-d8_4xb2-80k_cityscapes-512x1024'
    assert float(found[3]) == theirs[name]['mIoU']


def test_openmmlab_s_own_detectors():
    """Of our configs and of those that are upstream's alone."""
    theirs = of_openmmlab('mmdet')
    assert not [name for name in theirs if 'c4' in name]  # as our note says
    table = accuracy_table('table2', [])
    ours = row(table, 'mask-rcnn_r50-fpn_1x_coco')
    assert float(ours[5]) == theirs['mask-rcnn_r50_fpn_1x_coco']['mask AP']
    upstream = {
        name: method['method']
        for method in load_published()['table2']['rows']
        for name in method.get('upstream', ())
    }
    assert len(upstream) == 3
    for name, method in upstream.items():
        found = row(table, f'{name} (mmdet)')
        assert found[0] == method
        assert float(found[5]) == theirs[name]['mask AP']
        assert found[-3:] == ['–'] * 3
        assert name not in table.notes[-1]  # what was not run
    solo = [values['mask AP'] for name, values in theirs.items() if 'solo_' in name]
    assert max(solo) == theirs['decoupled-solo_r50_fpn_3x_coco']['mask AP']


def test_the_whole_validation_set_fills_a_cell():
    """Records that disagree are both shown, and where they are from."""
    table = accuracy_table('table1', [of_test(), of_test(mIoU=76.5)])
    assert row(table, BLOCK)[-1] == '77.12 / 76.50'
    note = next(note for note in table.notes if 'reproduced: ' in note)
    assert note.count('seed 0, 90000 steps, checkpoint 01234567') == 2
    assert BLOCK not in table.notes[-1]  # what was not run
    coco = of_coco(segm_mAP=0.3391, segm_mAP_50=0.5, segm_mAP_75=None)
    assert row(accuracy_table('table2', [coco]), C4)[-3:] == ['33.91', '50.00', '–']


@pytest.mark.parametrize(
    'record,expected',
    [
        (of_test(folders=dict(town=500), mIoU=98.0), 'val, 500 images (town: 500)'),
        (of_test(folders=dict(VAL, munster=1), mIoU=98.0), 'val, 327 images'),
        (
            of_test(overrides={'model.decode_head.decoder.groups': 19}, mIoU=98.0),
            'groups=19',
        ),
        (of_test(overrides={'--tta': True}, mIoU=98.0), '--tta=True'),
        (of_test(finished=False, steps=5, mIoU=98.0), '| 5 (not the whole schedule) |'),
        (of_test('mine.py', shipped=None, mIoU=98.0), '| mine.py (no longer there) |'),
        (of_test(str(TOOL), shipped=None, mIoU=98.0), f'| {TOOL} (not shipped) |'),
        (of_test('pvd_gone', mIoU=98.0), '| pvd_gone (no longer shipped) |'),
        (of_test(BLOCK, shipped=None, mIoU=98.0), f'| {BLOCK} (no longer there) |'),
        (of_coco(20, segm_mAP=0.98), 'val, 20 images (val2017: 20)'),
        (of_coco(40504, 'val2014', f'{C4}2014', segm_mAP=0.98), '## COCO 2014, val'),
    ],
)
def test_what_fills_no_cell(record, expected):
    """It has a table of its own, with its figures."""
    name = 'table2' if 'coco/segm_mAP' in record['result'] else 'table1'
    first, *others = make_tables(name, [record])[name]
    assert '98.0' not in first.markdown()
    text = '\n'.join(one.markdown() for one in others)
    assert text.count('98.00') == 1 and expected in text
    other = dict(table1='table2', table2='table1')[name]
    assert '98.00' not in '\n'.join(
        one.markdown() for one in make_tables(other, [record])[other]
    )


def test_overrides_that_only_say_where_things_are():
    key = 'test_dataloader.dataset.data_root'
    found = of_test(overrides={key: '/data', 'test_dataloader.num_workers': 0})
    assert row(accuracy_table('table1', [found]), BLOCK)[-1] == '77.12'
    coco = of_coco(segm_mAP=0.5)
    coco['data']['split'] = 'val2017'
    for file, expected in (
        ('instances_val2017.json', '50.00'),
        ('mine.json', 'not run'),
    ):
        coco['overrides'] = {'test_evaluator.0.ann_file': f'/d/{file}'}
        assert row(accuracy_table('table2', [coco]), C4)[-3] == expected


def test_the_data_at_hand():
    """CamVid and the samples have all their configs, run or not."""
    camvid = 'pvd_r18-stage-c32_1xb4-1200_camvid-180x240'
    record = of_test(
        camvid,
        'CamVidDataset',
        dict(val=101),
        steps=1200,
        mIoU=52.5,
        mBoundaryIoU=14.25,
    )
    newer = copy.deepcopy(record)
    newer['result'].update({'Pieces.pole': 1.5, 'LargestPiece.pole': 40.0})
    tables = {one.title: one for one in other_tables('table1', [record, newer])}
    table = tables['CamVid, val']
    assert table.head[-4:] == ['mIoU', 'boundary IoU', 'pole pieces', 'largest piece']
    own = [one[1:] for one in table.rows if one[0] == camvid]
    assert own == [
        ['–', '1200', '0', '52.50', '14.25', '–', '–'],
        ['–', '1200', '0', '52.50', '14.25', '1.50', '40.00'],
    ]
    others = [one for one in table.rows if one[0] != camvid]
    assert len(others) == len(configs_of(dict(configs='*_camvid-*'))) - 1
    assert all(one[-4:] == ['not run'] * 4 for one in others)
    assert camvid not in table.notes[-1] and others[0][0] in table.notes[-1]
    assert {'not run'} == {one[-1] for one in tables['Street sample, val'].rows}
    titles = [one.title for one in other_tables('table2', [])]
    assert titles == ['COCO 2014, val', 'Shapes sample, val']


def op_record(**settings):
    place = dict(size=1024, stride=2, kind='forward')
    result = dict(
        machine='m',
        threads=2,
        best='cpp',
        settings=dict(
            dict(
                channels=19,
                dtype='float32',
                device='cpu',
                formulation='exact',
                sizes=[8, 1024],
                strides=[1, 2],
            ),
            **settings,
        ),
        times=[
            dict(place, name=name, kind=kind, median_s=seconds, scale=scale)
            for name, seconds, scale in (
                ('reference', 20.0, 64.0),
                ('matrix', 0.02, 1),
                ('cpp', 0.003, 1),
            )
            for kind in ('forward', 'forward+backward')
        ],
        memory=[dict(place, name='cpp', peak_mib=304.0, scale=1)],
    )
    return new_record('op', result)


def test_op_tables():
    (table,) = table3([op_record()])
    first = dict(zip(table.head, table.rows[0], strict=True))
    assert first['input'] == '1024²'
    assert first['step update, s = 1 (paper)'] == '42,925'
    assert first['matrix, s = 2 (paper)'] == '–'
    assert first['step update, s = 2 (reproduced)'] == '≈ 20,000'
    assert first['matrix, s = 2 (reproduced)'] == '20'
    assert first['cpp, s = 2 (reproduced)'] == '3'
    assert first['matrix, s = 1 (reproduced)'] == 'not run'
    (fourth,) = table4([op_record()])
    cpp = dict(zip(fourth.head, row(fourth, 'cpp'), strict=True))
    assert cpp['ms, s = 2 (paper)'] == '–'
    assert cpp['ms, s = 2 (reproduced)'] == '3'
    assert cpp['MiB, s = 2 (reproduced)'] == '304.0'
    for one in (table, fourth, *table3([]), *table4([])):  # cells are not run
        assert 'benchmark_op.py' in one.notes[-1]


def test_the_record_of_a_real_benchmark(run_tool, call, tmp_path):
    """Tables 3 and 4 and Fig. 8 are made of what benchmark_op.py leaves."""
    run_tool(
        'benchmark_op',
        '--device',
        'cpu',
        '--sizes',
        8,
        16,
        '--budget',
        0.001,
        '--without',
        'compiled',
        'fold',
        'reference',
        '--out',
        'work_dirs/op',
    )
    (record,), broken = read_records([str(tmp_path)])
    assert not broken and record['kind'] == 'op'
    call('all')
    assert read_image(tmp_path / 'work_dirs/tables/fig8.png').std() > 10
    times = {
        one['stride']: one['median_s']
        for one in record['result']['times']
        if (one['name'], one['size'], one['kind']) == ('matrix', 8, 'forward')
    }
    with open(tmp_path / 'work_dirs/tables/table3.csv', encoding='utf-8') as file:
        *_, last = csv.DictReader(file)
    for stride, seconds in times.items():
        assert float(last[f'matrix, s = {stride} (reproduced)']) == pytest.approx(
            seconds * 1e3, rel=0.01
        )
    assert last['step update, s = 1 (reproduced)'] == 'not run'


def test_op_records_of_two_machines():
    """Both are shown; one that is not of the paper's settings says so."""
    titles = [one.title for one in table3([op_record(), op_record(channels=32)])]
    assert len(titles) == 2
    assert titles[0].endswith(': m') and titles[1].endswith(': m, channels 32')


def test_complexity():
    one = dict(
        name=BLOCK,
        params=2e6,
        forward_macs=3e9,
        forward_s=0.5,
        forward_mib=7.0,
        size=[33, 64],
    )
    table = complexity_table([new_record('model', [one])])
    assert row(table, BLOCK)[:7] == [
        BLOCK,
        '33×64',
        '2.00',
        '3.00',
        '0.500',
        '7',
        'not run',
    ]
    assert len(table.rows) == len(shipped_configs())
    others = [r for r in table.rows if BLOCK not in r]
    assert all(set(r[1:]) == {'not run'} for r in others)
    commands = table.notes[-1].split('python tools/benchmark_model.py')
    (found,) = (command for command in commands if f'{BLOCK} ' in command)
    assert '--size 33 64 --only train' in found
    gone = complexity_table([new_record('model', [dict(one, name='pvd_gone')])])
    assert gone.rows[-1][0] == 'pvd_gone (not shipped)'


def test_readme_s_tables():
    records = [
        new_record(
            'model',
            [
                dict(name=BLOCK, params=2e6, forward_macs=3e9, size=[33, 64]),
                dict(name=C4, params=4e6, mask_macs=5e9, size=[33, 64]),
            ],
        )
    ]
    lines = segmentors_table(records).splitlines()
    assert "| `pvd_r50-block`, the paper's | 16 | maps | 2.0 | 3.0 |" in lines
    assert '| `pvd_r50-stage-w64` | 4 | 64 | not run | not run |' in lines
    assert '| `deeplabv3_r18-d8` | baseline | – | not run | not run |' in lines
    lines = detectors_table(records).splitlines()
    assert f"| `{C4}`, the paper's | 56 × 56 | 4.0 | not run | 5.0 | not run |" in lines


def test_metafiles():
    """What records show is entered, once for each; the rest is kept, and what
    no record shows any more is taken out."""
    text = (
        '# A comment.\nCollections: []\nModels:\n'
        f'- Name: {BLOCK}\n  Results:\n    Task: T\n    Dataset: Cityscapes\n'
        '    Metrics:\n      mIoU: 99.0\n'
        '  Metadata:\n    Batch Size: 4\n    GMACs: 99.0\n'
    )
    cost = new_record(
        'model', [dict(name=BLOCK, params=2e6, forward_macs=3e9, size=[33, 64])]
    )
    other = of_test(folders=dict(town=3), mIoU=98.0)
    new = update_metafile(text, [of_test(), of_test(mIoU=76.5), cost, other])
    assert new.startswith('# A comment.\n') and '9' * 2 not in new
    (model,) = yaml.safe_load(new)['Models']
    assert model['Metadata'] == {
        'Batch Size': 4,
        'Parameters (M)': 2.0,
        'GMACs': 3.0,
        'Image Size': '33×64',
    }
    assert [one['Metrics']['mIoU'] for one in model['Results']] == [77.12, 76.5]
    assert {one['Dataset'] for one in model['Results']} == {'Cityscapes'}
    (empty,) = yaml.safe_load(update_metafile(new, []))['Models']
    assert empty['Metadata'] == {'Batch Size': 4}
    assert empty['Results'] == [{'Task': 'T', 'Dataset': 'Cityscapes'}]


@pytest.mark.parametrize('name', NAMES)
def test_no_records(name):
    for table in make_tables(name, [])[name]:
        assert 'not run' in table.markdown()


@pytest.fixture
def call(run_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return partial(run_tool, 'make_tables')


def test_the_tool(call, tmp_path):
    (tmp_path / 'empty').mkdir()
    write_record(str(tmp_path / 'work'), of_test())
    (tmp_path / 'work/records/bad.json').write_text('{}')
    write_record(str(tmp_path / 'work'), op_record())
    write_record(str(tmp_path / 'work'), op_record(channels=32))

    said = call('--records', 'work', '--out', 'out')
    assert 'bad.json is left out' in said
    assert '3 records in work, 1 broken' in said
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert {
        'table1.md',
        'table2.csv',
        'table1_1_camvid-val.csv',
        'fig8.png',
        'fig8_1.png',
        'complexity.csv',
    } <= names
    with open(tmp_path / 'out/table1.csv', encoding='utf-8') as file:
        rows = list(csv.reader(file))
    assert ['Ours', BLOCK, '79.3', '–', '77.12'] in rows
    mine = tmp_path / 'out/table2.md'
    mine.write_text('mine')
    said = call('table2', '--records', 'work', '--out', 'out', ok=False)
    assert 'table2.md' in said and '--force' in said
    assert mine.read_text() == 'mine'
    call('table2', '--records', 'work', '--out', 'out', '--force')
    assert 'Table 2' in mine.read_text()
    said = call('table1', '--records', 'empty')
    assert '0 records' in said and 'not run' in said
    assert 'nowhere is no folder' in call('--records', 'nowhere', ok=False)
    assert (
        'choose from table1, table2, panoptic, table3, table4, complexity, all'
        in call('table5', ok=False).replace("'", '')
    )


DOCS = ROOT / 'docs'


def test_nothing_is_stale():
    """Tables in the pages, and figures in the metafiles, are those of the
    records in docs."""
    records, broken = read_records([str(DOCS)])
    assert records and not broken
    known = {
        *NAMES,
        'segmentors',
        'detectors',
        *(Path(one['path']).stem for one in records),
    }
    pages = [
        page
        for page in [ROOT / 'README.md', *DOCS.rglob('*.md')]
        if known & set(block_names(page.read_text()))
    ]
    assert {'README.md', 'tables.md', 'benchmarks.md'} <= {page.name for page in pages}
    metafiles = sorted((ROOT / 'configs').glob('*/metafile.yml'))
    for page in [*pages, *metafiles]:
        assert update_page(page, records) == page.read_text(encoding='utf-8'), (
            f'python tools/make_tables.py --records docs --update {page}'
        )


def test_the_records_of_the_docs_are_true():
    """Parameters and multiply-accumulates of two configs, counted anew."""
    from pvd_mm.apis.complexity import count_params
    from pvd_mm.engine.config import load_config

    records, _ = read_records([str(DOCS)])
    known = {
        one['name']: one
        for record in records_of(records, 'model')
        for one in record['result']
    }
    assert set(known) == {Path(p).stem for p in shipped_configs()}
    for name in (
        'pvd_r18-stage-c32_1xb4-1200_camvid-180x240',
        'fpn_r18-c32_1xb4-1200_camvid-180x240',
    ):
        cfg = load_config(name)
        init_default_scope(cfg.default_scope)
        found = model_complexity(MODELS.build(cfg.model), (3, *known[name]['size']))
        assert (
            found['params']
            == known[name]['params']
            == count_params(MODELS.build(cfg.model))
        )
        assert found['macs'] == known[name]['forward_macs']


def test_updating_a_page(call, tmp_path):
    path = write_record(
        str(tmp_path),
        new_record(
            'model',
            [
                dict(
                    name=BLOCK,
                    params=2e6,
                    forward_macs=3e9,
                    forward_s=0.5,
                    forward_mib=7.0,
                    size=[33, 64],
                )
            ],
        ),
    )
    page = tmp_path / 'page.md'
    foreign = '<!-- table: of a grid -->\nkept\n<!-- end -->\n'
    page.write_text(
        f'a\n<!-- table: table4 -->\nold\n<!-- end -->\nb\n{foreign}'
        f'<!-- table: {path.stem} -->\n<!-- end -->\n'
    )
    said = tool('make_tables', '--records', tmp_path, '--update', page)  # as users
    assert str(page) in said
    text = page.read_text()
    assert text.startswith('a\n<!-- table: table4 -->\n\n|  | ms, s = 1')
    assert 'old' not in text and f'<!-- end -->\nb\n{foreign}' in text
    assert f'| {BLOCK} | 2.0 | 1.000 | 3.0 |' in text
    page.write_text('<!-- table: table9 -->\n<!-- end -->')
    with pytest.raises(ValueError, match='its blocks are table9, the tables table1'):
        update_page(page, [])
    said = call('--records', tmp_path, '--update', page, ok=False)
    assert 'page.md: it has no block' in said


def test_blocks_of_pages_are_of_known_tables():
    """Of records, or of a grid of trainings."""
    records, _ = read_records([str(DOCS)])
    known = {
        *NAMES,
        'segmentors',
        'detectors',
        *(Path(one['path']).stem for one in records),
    }
    for path in (ROOT / 'configs/ablations').glob('*.yml'):
        known |= set(load_grid(str(path)).tables)
    for page in [ROOT / 'README.md', *DOCS.rglob('*.md')]:
        assert set(block_names(page.read_text())) <= known, page
