# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Checks in the pipeline of a dataset. For the checked datasets of both frameworks."""

from collections.abc import Callable
from typing import Any

from PIL import Image

from .errors import AnnotationError

#: What a height and width that are exchanged mostly come from.
TURNED_HINT = (
    'mmcv turns an image by its EXIF orientation when it is loaded, and nothing else '
    "with it. Turn the file's pixels, or load it with "
    "color_type='color_ignore_orientation' in LoadImageFromFile."
)


_ORIENTATION = 0x0112  # a tag of EXIF


def orientation(image: Image.Image) -> int:
    """How an opened image is turned by its EXIF data, 1 to 8; 1 is not at all."""
    if 'exif' not in image.info:  # without it Pillow would look for one and decode
        return 1
    return image.getexif().get(_ORIENTATION, 1)


class PipelineCheckMixin:
    """Puts checks behind steps of the pipeline, for subclasses of mmengine's
    ``BaseDataset``."""

    @property
    def pipeline(self) -> Any:
        """The transforms of the dataset, with the checks among them."""
        return self._checked_pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        # A property, so that a pipeline that is switched during training
        # is checked as well.
        self._insert_checks(pipeline)
        self._checked_pipeline = pipeline

    def _check_behind(self, step: Callable) -> Callable | None:
        """The check that follows a step; None if there is none."""
        raise NotImplementedError

    def _insert_checks(self, node: Any) -> None:
        """Put the checks into all pipelines below ``node``."""
        steps = getattr(node, 'transforms', None)
        if isinstance(steps, list):
            checked = []
            for step, following in zip(steps, [*steps[1:], None]):
                checked.append(step)
                check = self._check_behind(step)
                if check is None:
                    self._insert_checks(step)
                elif type(following) is not type(check):  # not there already
                    checked.append(check)
            steps[:] = checked
        elif steps is not None:  # a wrapper around one inner pipeline
            self._insert_checks(steps)
        for branch in getattr(node, 'subroutines', ()):  # TestTimeAug
            self._insert_checks(branch)


def image_size_problem(results: dict) -> str | None:
    """Compare the size of a loaded image with the one in its annotations.

    Args:
        results (dict): With ``img`` (H, W, C) and ``img_path``; ``height`` and
            ``width``, if it has them, are the annotations'.

    Returns:
        str | None: What is wrong.
    """
    size = tuple(results['img'].shape[:2])
    annotated = results.get('height'), results.get('width')
    if None in annotated or annotated == size:
        return None
    return (
        f'{results["img_path"]} is {size} (height, width), but its annotations are '
        f'for {annotated}.' + (f' {TURNED_HINT}' if annotated == size[::-1] else '')
    )


class ImageSizeCheck:
    """Pipeline step behind the one that loads an image: refuses an image of another
    size than its annotations are for.

    Args:
        owner (str): Name of the dataset class, for the message.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner

    def __call__(self, results: dict) -> dict:
        """Check ``results``, see :func:`image_size_problem`; change nothing.

        Raises:
            AnnotationError: The sizes differ.
        """
        problem = image_size_problem(results)
        if problem:
            raise AnnotationError(f'{self.owner}: {problem}')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
