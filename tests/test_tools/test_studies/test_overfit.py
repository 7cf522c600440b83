# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Images learnt by heart: which are chosen, what is logged, drawn and reused."""

import json

import pytest

pytest.importorskip('mmdet')

from pvd_mm.data.samples import make_shapes_sample  # noqa: E402
from pvd_mm.utils.errors import MissingDataError  # noqa: E402
from studies.overfit import (  # noqa: E402
    choose_images,
    curve,
    markdown,
    overfit,
    plot,
)


def objects(*areas, image=0, crowd=0):
    return [
        dict(image_id=image, area=area, iscrowd=crowd, id=100 * image + n)
        for n, area in enumerate(areas)
    ]


def test_which_images():
    file = dict(
        images=[dict(id=i) for i in (5, 3, 2, 1, 0)],
        annotations=[
            *objects(2000, 100, image=0),
            *objects(2000, image=1, crowd=1),
            *objects(2000, 2000, image=3),
            *objects(9000, image=5),
        ],
    )
    chosen = choose_images(file, 2)
    assert [one['id'] for one in chosen['images']] == [3, 5]
    assert {one['image_id'] for one in chosen['annotations']} == {3, 5}
    with pytest.raises(MissingDataError, match='3 images .* only 2 have'):
        choose_images(file, 3)


def test_no_annotations(tmp_path):
    with pytest.raises(MissingDataError, match='instances_train2017.json'):
        overfit(['mask-rcnn_r18-c4_1x_coco'], str(tmp_path / 'out'), str(tmp_path))


def test_it_trains_tests_and_draws(tmp_path):
    data, out = tmp_path / 'shapes', tmp_path / 'out'
    make_shapes_sample(str(data), train=40, val=1)
    config = 'pvd-mask-rcnn_r18-c4-c32_1xb4-600_shapes-192x256'

    def run():
        return overfit(
            [config],
            str(out),
            str(data),
            images=2,
            iters=2,
            interval=1,
            scale=(96, 96),
            rois=8,
        )

    results = run()  # shapes are small, so one image in ten or so is fit
    assert [step for step, _ in results[0]['curve']] == [1, 2]
    assert all(-1 <= value <= 1 for _, value in results[0]['curve'])
    assert len(json.loads((out / 'first_2.json').read_text())['images']) == 2
    checkpoint = out / config / 'iter_2.pth'
    made = checkpoint.stat().st_mtime_ns
    assert run() == results  # nothing is trained twice
    assert checkpoint.stat().st_mtime_ns == made
    assert 'not reached' in markdown(results)
    plot(results, str(out / 'curves.png'))
    assert (out / 'curves.png').stat().st_size > 1000


def test_when_the_goal_is_reached():
    table = markdown(
        [
            dict(config='a', curve=[(50, 0.1), (100, 0.65), (150, 0.7)]),
            dict(config='b', curve=[(50, 0.1), (100, 0.2)]),
        ]
    )
    assert '| a | 100 | 0.100 | 0.650 | 0.700 |' in table
    assert '| b | not reached | 0.100 | 0.200 | - |' in table


def test_a_log_that_was_cut_off(tmp_path):
    """A test without detections counts as 0, half a line not at all."""
    folder = tmp_path / '1/vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(
        '{"lr": 0.1, "step": 1}\n'
        '{"coco/segm_mAP": 0.5, "step": 1}\n'
        '{"data_time": 0.1, "step": 2}\n'
        '{"coco/segm_mAP": 0.'
    )
    assert curve(str(tmp_path)) == [(1, 0.5), (2, 0.0)]
