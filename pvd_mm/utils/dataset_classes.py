# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Do the classes of a dataset fit the heads of a model? For both frameworks."""

from collections.abc import Iterator
from typing import Any

from .errors import ClassesError, some

# Heads whose labels are not the classes of the data: an edge, a map of stuff.
_OTHER_LABELS = ('STDCHead', 'FusedSemanticHead')
_OTHER_PLACES = ('rpn_head', 'semantic_head')


def check_class_names(classes: Any, owner: str) -> None:
    """Refuse a string in place of a list of names.

    Args:
        classes (Any): What the dataset's metainfo has.
        owner (str): Name of the dataset class, for the message.

    Raises:
        ClassesError: It is a string, as of ``classes=('ring')`` without its comma.
    """
    if isinstance(classes, str):
        raise ClassesError(
            f'{owner}: classes is the string {classes!r}, whose {len(classes)} '
            f'letters would be classes. Give a tuple, of a single name '
            f'({classes!r},) with its comma, or the path of a file that exists and '
            'has a name per line.'
        )


def leaves(dataset: Any) -> Iterator[Any]:
    """The datasets inside mmengine's wrappers, such as ``ConcatDataset``."""
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from leaves(part)
    elif hasattr(dataset, 'dataset'):
        yield from leaves(dataset.dataset)
    else:
        yield dataset


def _heads(model: Any) -> Iterator[tuple[str, Any]]:
    """Name and module of each head that is trained with the classes of the data."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if (
            kind.endswith('Head')
            and isinstance(getattr(module, 'num_classes', None), int)
            and kind not in _OTHER_LABELS
            and 'RPN' not in kind  # mmdet's detector RPN has it as its bbox_head
            and not set(_OTHER_PLACES) & set(name.split('.'))
            and not getattr(module, 'class_agnostic', False)
        ):
            yield name, module


def compare_classes(model: Any, dataset: Any) -> tuple[list[str], list[str]]:
    """Compare ``num_classes`` of every head with the classes of the data.

    Heads that see other labels are left out: those of region proposals and of
    mmdet's semantic branches, mmseg's ``STDCHead`` and class-agnostic masks. With
    ``thing_classes`` in the metainfo (panoptic data) a head needs no more than
    those; one of a single output channel tells two classes apart, whatever its
    ``num_classes``.

    Args:
        model (nn.Module): A model of mmseg or mmdet.
        dataset (Any): What it is trained with, of mmengine, or a wrapper of it.

    Returns:
        tuple[list[str], list[str]]: Of the heads that have fewer classes than the
        data, which cannot be trained; and of those that have more, or another
        ``ignore_index``, which may be meant.
    """
    fewer, other = {}, {}  # for their order, and each once
    for part in leaves(dataset):
        metainfo = getattr(part, 'metainfo', {})  # torch's own datasets have none
        classes = metainfo.get('classes')
        if not classes:
            continue
        needed = len(metainfo.get('thing_classes') or classes)
        for name, head in _heads(model):
            who, data = f'{name} ({type(head).__name__})', type(part).__name__
            text = (
                f'{who} has num_classes={head.num_classes}, but {data} has '
                f'{len(classes)} classes ({some(classes)})'
            )
            binary = getattr(head, 'out_channels', None) == 1
            if head.num_classes < needed and not (binary and needed == 2):
                fewer[text] = None
            elif head.num_classes > len(classes):
                other[text] = None
            own, ignored = (getattr(x, 'ignore_index', None) for x in (head, part))
            if None not in (own, ignored) and own != ignored:
                other[f'{who} has ignore_index={own}, but {data} has {ignored}'] = None
    return list(fewer), list(other)
