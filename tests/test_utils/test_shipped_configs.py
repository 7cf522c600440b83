# Copyright (c) PVD-MM contributors. Apache-2.0.
from pathlib import Path

import pytest
import yaml

from pvd_mm.engine.config import resolve_config
from pvd_mm.utils.errors import UsageError
from pvd_mm.utils.shipped_configs import mim_root, shipped_configs


def test_metafiles_list_every_shipped_config():
    root = mim_root()
    listed = []
    for part in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        meta = yaml.safe_load((root / part).read_text())
        collections = {c['Name'] for c in meta['Collections']}
        for model in meta['Models']:
            assert model['In Collection'] in collections
            assert Path(model['Config']).stem == model['Name']
            listed.append(model['Config'].removeprefix('configs/'))
    assert sorted(listed) == shipped_configs()


@pytest.mark.parametrize('form', ['{}.py', '{}', 'pvd/{}', 'configs/pvd/{}.py'])
def test_resolve_by_name(form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = 'pvd_r18-stage_1xb4-90k_cityscapes-512x1024'
    assert Path(resolve_config(form.format(name))).stem == name


def test_resolve_nothing_like_it():
    with pytest.raises(UsageError, match='The shipped configs are'):
        resolve_config('zzz')
