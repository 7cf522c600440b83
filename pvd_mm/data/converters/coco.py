# Copyright (c) PVD-MM contributors. Apache-2.0.
"""COCO 2017 and 2014: the official layout, from the official zips."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pvd_mm.utils.errors import AnnotationError, MissingDataError, UserError, some
from pvd_mm.utils.files import check_folder, whole

#: Images that the official files list
IMAGES = {
    (2017, 'train'): 118287, (2017, 'val'): 5000,
    (2014, 'train'): 82783, (2014, 'val'): 40504,
}  # fmt: skip


def arrange_coco(
    root: str,
    zips: str | None = None,
    year: int = 2017,
    splits: Sequence[str] = ('train', 'val'),
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Unpack what the configs read, and count it.

    A file that is there with the size that the zip says is left as it is, so
    that an interrupted run goes on. What is unpacked already needs no zip.

    Args:
        root (str): Folder of the results: ``annotations``, ``train2017``, ...
        zips (str, optional): Folder of the zips (``train2017.zip``,
            ``annotations_trainval2017.zip``, ...). Defaults to None: ``root``.
        year (int): 2017 or 2014. Defaults to 2017.
        splits (Sequence[str]): Of 'train' and 'val'. Defaults to both.
        progress (Callable): Wraps the list of a zip's files. Defaults to none.

    Returns:
        dict: By split, ``listed``, how many images the annotation file lists;
        ``missing``, which of them are not there; ``official``, how many the
        official file lists; ``unpacked``, how many files were written.

    Raises:
        MissingDataError: Neither the zip nor what is in it is there.
        UserError: A zip is broken, or ``root`` cannot be a folder.
        AnnotationError: The annotation file is broken.
        ValueError: The year or a split is unknown.
    """
    unknown = [split for split in splits if (year, split) not in IMAGES]
    if unknown:
        raise ValueError(
            f'there is no split {some(unknown)} of COCO {year} here; there are '
            f'{some([f"{split} {year}" for year, split in IMAGES])}.'
        )
    check_folder(root)
    out, source = Path(root), Path(root if zips is None else zips)
    counts = {}
    for split in splits:
        name = f'{split}{year}'
        annotations = f'annotations/instances_{name}.json'
        unpacked = _unpack(
            source / f'annotations_trainval{year}.zip',
            out,
            re.escape(annotations),
            out / annotations,
            progress,
        )
        unpacked += _unpack(
            source / f'{name}.zip', out, rf'{name}/[^/]+\.jpg', out / name, progress
        )
        listed = _list_images(out / annotations)
        present = {path.name for path in (out / name).iterdir()}
        counts[split] = dict(
            listed=len(listed),
            official=IMAGES[year, split],
            unpacked=unpacked,
            missing=[f'{name}/{file}' for file in listed if file not in present],
        )
    return counts


def _unpack(
    path: Path,
    out: Path,
    pattern: str,
    result: Path,
    progress: Callable[[Iterable], Iterable],
) -> int:
    """Unpack the files whose whole name fits; how many were not there."""
    if not path.is_file():
        if result.exists():
            return 0
        raise MissingDataError(
            f'there is neither {result} nor {path}, which holds it and comes from '
            'https://cocodataset.org/#download.'
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                member
                for member in archive.infolist()
                if re.fullmatch(pattern, member.filename)
            ]
            if not members:
                raise UserError(f'{path} holds nothing that is named like {result}.')
            members = [member for member in members if not _is_unpacked(out, member)]
            for member in progress(members) if members else ():
                with (
                    archive.open(member) as source,
                    whole(out / member.filename) as partial,
                    open(partial, 'wb') as file,
                ):
                    shutil.copyfileobj(source, file, 1 << 20)
    except zipfile.BadZipFile as error:
        raise UserError(f'{path} is no zip, or only a part of one: {error}.') from error
    return len(members)


def _is_unpacked(out: Path, member: zipfile.ZipInfo) -> bool:
    path = out / member.filename
    return path.is_file() and path.stat().st_size == member.file_size


def _list_images(path: Path) -> list[str]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        return [image['file_name'] for image in content['images']]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AnnotationError(
            f'{path} is not an annotation file of COCO: {error!r}'
        ) from error
