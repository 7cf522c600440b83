# Copyright (c) PVD-MM contributors. Apache-2.0.
import pytest

from pvd_mm.engine.config import require_pretrained
from pvd_mm.utils.errors import UsageError


def test_weights_that_a_model_starts_with(tmp_path):
    """Told before the data are read; wherever in the model they are."""

    def model(checkpoint):
        start = dict(type='mmengine.PretrainedInit', checkpoint='left.pth')
        weights = dict(type='Pretrained', checkpoint=checkpoint)
        return dict(
            type='CascadeEncoderDecoder',
            backbone=dict(type='ResNet', init_cfg=start),
            decode_head=[
                dict(type='FCNHead'),
                dict(type='FCNHead', init_cfg=[weights]),
            ],
        )

    file = tmp_path / 'there.pth'
    with pytest.raises(UsageError, match=f'starts with not found: {file}'):
        require_pretrained(model(str(file)))
    file.touch()
    for place in (str(file), 'torchvision://resnet18', 'https://host/resnet18.pth'):
        require_pretrained(model(place))
    require_pretrained(None)
