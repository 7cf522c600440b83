# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What mmengine's runner has logged in a work directory."""

import json
from pathlib import Path


def read_log(work_dir: str) -> tuple[dict[int, dict], dict[int, dict]]:
    """Read the log of a training, over all its parts if it was resumed.

    A later part replaces what it overlaps. A line that was cut off is left out.

    Args:
        work_dir (str): The work directory of the training.

    Returns:
        tuple[dict, dict]: Step to record of training; step to metrics of
        validation.
    """
    training, validation = {}, {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            (training if 'lr' in record else validation)[record['step']] = record
    return training, validation
