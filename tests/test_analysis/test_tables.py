# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The paper's tables: nobody's figures in another's place, nothing made up."""
import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from pvd_mm.analysis.complexity import model_complexity
from pvd_mm.analysis.markdown import markdown_table
from pvd_mm.analysis.records import (
    new_record,
    read_records,
    records_of,
    write_record,
)
from pvd_mm.analysis.tables import (
    NAMES,
    accuracy_table,
    complexity_table,
    load_published,
    make_tables,
    other_tables,
    table3,
    table4,
    update_blocks,
)
from pvd_mm.shipped import find_shipped, shipped_configs

TOOL = Path(__file__).parents[2] / 'tools/make_tables.py'
BLOCK = 'pvd_r50-block_1xb4-90k_cityscapes-512x1024'
C4 = 'pvd-mask-rcnn_r50-c4_1x_coco'
VAL = dict(frankfurt=267, lindau=59, munster=174)


def tested(config=BLOCK, kind='CheckedCityscapesDataset', folders=VAL,
           overrides=None, **result):
    return new_record(
        'test', result or dict(mIoU=77.125), config=config,
        overrides=overrides or {}, steps=90000, seed=0,
        checkpoint=dict(path='a.pth', sha256=None),
        data=dict(type=kind, split='val', folders=folders,
                  images=sum(folders.values())))


def row(table, config):
    return next(one for one in table.rows if config in one)


def test_the_paper_s_figures():
    """All rows, as the paper has them, and nothing in our columns."""
    table = accuracy_table('table1', [])
    methods = [one for one in table.rows if one[0]]
    assert len(methods) == 17
    assert [one[0] for one in methods if 'coarse' in one[0]] == [
        'LRR-4x (coarse)', 'SegModel (coarse)', 'ResNet-38 (coarse)',
        'DeepLabv3 (coarse)']
    assert methods[-1][:3] == ['Ours', BLOCK, '79.3']
    assert not any(re.match(r'\d', one[-1]) for one in table.rows)
    second = accuracy_table('table2', [])
    methods = [one for one in second.rows if one[0]]
    assert len(methods) == 10
    assert row(second, C4)[2:5] == ['33.9', '56.1', '36.2']
    assert row(second, C4)[-3:] == ['not run'] * 3
    assert f'mim train pvd_mm configs/pvd_mask_rcnn/{C4}.py' in second.notes[-1]


def test_every_config_of_the_data_file_is_shipped():
    published = load_published()
    for name in ('table1', 'table2'):
        for one in published[name]['rows']:
            for config, more in one.get('configs', {}).items():
                assert find_shipped(config), config
                assert not more.get('source') or \
                    more['source'] in published['sources']


def test_openmmlab_s_own_figures():
    """As the metafiles of the installed mmseg and mmdet have them."""
    import mmseg
    import yaml
    folder = Path(mmseg.__file__).parent / '.mim/configs/deeplabv3'
    found = [p for p in folder.glob('metafile.y*ml')]
    assert found, 'this mmsegmentation came without its metafiles'
    theirs = {one['Name']: one for one in
              yaml.safe_load(found[0].read_text())['Models']}
    table = accuracy_table('table1', [])
    for depth in (18, 50):
        name = f'deeplabv3_r{depth}-d8_4xb2-80k_cityscapes-512x1024'
        results = theirs[name]['Results']
        results = results[0] if isinstance(results, list) else results
        ours = row(table, f'deeplabv3_r{depth}-d8_1xb4-90k_cityscapes-512x1024')
        assert float(ours[3]) == results['Metrics']['mIoU']


def test_what_fills_a_cell():
    """The whole validation set fills it, and disagreeing records are both
    shown; samples, subsets and overridden tests have tables of their own."""
    records = [
        tested(), tested(mIoU=76.5),
        tested(folders=dict(town=500)), tested(folders=dict(VAL, munster=1)),
        tested(overrides={'model.decode_head.groups': 19}, mIoU=99.),
        tested('pvd_gone', mIoU=98.)
    ]
    table = accuracy_table('table1', records)
    assert row(table, BLOCK)[-1] == '77.12 / 76.50'
    assert any('2 records' in note for note in table.notes)
    assert '99.0' not in table.markdown() and '98.0' not in table.markdown()
    text = '\n'.join(one.markdown() for one in other_tables(
        [*records, tested('pvd_gone', folders=dict(a=1))]))
    assert 'val, 500 images' in text and 'val, 327 images' in text
    assert 'groups=19' in text
    assert 'no longer there' in text and '| pvd_gone |' in text
    coco = tested(C4, 'CheckedCocoDataset', dict(val2017=5000),
                  **{'coco/segm_mAP': 0.3391, 'coco/segm_mAP_50': 0.5})
    assert row(accuracy_table('table2', [coco]), C4)[-3:] == [
        '33.91', '50.00', 'not run']
    few = tested(C4, 'CheckedCocoDataset', dict(val2017=20),
                 **{'coco/segm_mAP': 0.9})
    assert '90' not in row(accuracy_table('table2', [few]), C4)


def op_record():
    result = dict(
        machine='m', threads=2, best='cpp',
        settings=dict(channels=19, dtype='float32', device='cpu',
                      sizes=[8, 1024], strides=[1, 2]),
        times=[dict(name=name, size=1024, stride=2, kind=kind,
                    median_s=seconds, scale=1)
               for name, seconds in (('matrix', 0.02), ('cpp', 0.003))
               for kind in ('forward', 'forward+backward')],
        memory=[dict(name='cpp', size=1024, stride=2, kind='forward',
                     peak_mib=304., scale=1)])
    return new_record('op', result)


def test_op_tables():
    table = table3([op_record()])
    first = dict(zip(table.head, table.rows[0], strict=True))
    assert first['input'] == '1024²'
    assert first['step update, s = 1 (paper)'] == '42,925'
    assert first['matrix, s = 2 (paper)'] == '–'
    assert first['matrix, s = 2 (reproduced)'] == '20'
    assert first['cpp, s = 2 (reproduced)'] == '3'
    assert first['matrix, s = 1 (reproduced)'] == 'not run'
    fourth = table4([op_record()])
    cpp = dict(zip(fourth.head, row(fourth, 'cpp'), strict=True))
    assert cpp['ms, s = 2 (paper)'] == '–'
    assert cpp['ms, s = 2 (reproduced)'] == '3'
    assert cpp['MiB, s = 2 (reproduced)'] == '304'
    for empty in (table3([]), table4([])):
        assert 'benchmark_op.py' in empty.notes[-1]


def test_complexity():
    one = dict(name=BLOCK, params=2e6, forward_macs=3e9, forward_s=0.5,
               forward_mib=7., size=[33, 64])
    table = complexity_table([new_record('model', [one])])
    assert row(table, BLOCK)[:6] == [BLOCK, '33×64', '2.00', '3.00', '0.500', '7']
    assert len(table.rows) == len(shipped_configs())
    others = [r for r in table.rows if BLOCK not in r]
    assert all(set(r[1:]) == {'not run'} for r in others)


@pytest.mark.parametrize('name', NAMES)
def test_no_records(name):
    for table in make_tables(name, [])[name]:
        assert 'not run' in table.markdown()


def test_a_bar_in_a_cell():
    assert markdown_table(['a'], [['x|y']]).endswith('| x\\|y |')


def test_the_tool(tmp_path):
    (tmp_path / 'empty').mkdir()
    write_record(str(tmp_path / 'work'), tested())
    (tmp_path / 'work/records/bad.json').write_text('{}')
    write_record(str(tmp_path / 'work'), op_record())

    def call(*words):
        return subprocess.run([sys.executable, str(TOOL), *words],
                              capture_output=True, text=True, cwd=tmp_path)

    done = call('--records', 'work', '--out', 'out')
    assert done.returncode == 0, done.stderr
    assert 'bad.json is left out' in done.stderr
    assert '2 records in work, 1 broken' in done.stderr
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert {'table1.md', 'table2.csv', 'fig8.png', 'other.md'} <= names
    with open(tmp_path / 'out/table1.csv', encoding='utf-8') as file:
        rows = list(csv.reader(file))
    assert ['Ours', BLOCK, '79.3', '–', '77.12'] in rows
    done = call('table1', '--records', 'empty')
    assert done.returncode == 0 and '0 records' in done.stderr
    done = call('--records', 'nowhere')
    assert done.returncode == 2 and 'nowhere is no folder' in done.stderr


DOCS = Path(__file__).parents[2] / 'docs'


def test_the_docs_are_not_stale():
    """The tables in the docs are those of the records beside them."""
    records, broken = read_records([str(DOCS)])
    assert records and not broken
    pages = [p for p in DOCS.glob('*.md') if '<!-- table: ' in p.read_text()]
    assert pages
    for page in pages:
        text = page.read_text(encoding='utf-8')
        assert update_blocks(text, records) == text, \
            f'python tools/make_tables.py --records docs --update {page}'


def test_the_records_of_the_docs_are_true():
    """Parameters and multiply-accumulates of two configs, counted anew."""
    from pvd_mm.analysis.complexity import count_params
    from pvd_mm.launch import load_config
    records, _ = read_records([str(DOCS)])
    known = {one['name']: one for record in records_of(records, 'model')
             for one in record['result']}
    assert set(known) == {Path(p).stem for p in shipped_configs()}
    for name in ('pvd_r18-stage-c32_1xb4-1200_camvid-180x240',
                 'fpn_r18-c32_1xb4-1200_camvid-180x240'):
        cfg = load_config(name)
        init_default_scope(cfg.default_scope)
        found = model_complexity(MODELS.build(cfg.model),
                                 (3, *known[name]['size']))
        assert found['params'] == known[name]['params'] == count_params(
            MODELS.build(cfg.model))
        assert found['macs'] == known[name]['forward_macs']


def test_updating_a_page(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('a\n<!-- table: table4 -->\nold\n<!-- end -->\nb\n')
    done = subprocess.run(
        [sys.executable, str(TOOL), '--records', str(tmp_path), '--update',
         str(page)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith('a\n<!-- table: table4 -->\n\n|  | ms, s = 1')
    assert text.endswith('<!-- end -->\nb\n') and 'old' not in text
    page.write_text('<!-- table: table9 -->\n<!-- end -->')
    with pytest.raises(ValueError, match='no table table9'):
        update_blocks(page.read_text(), [])
