"""Names of folders for classes. A folder may not have every name that a class can have."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

#: Characters that some file system or shell refuses, and % itself, because it marks them.
_REFUSED: Final = re.compile(r'[%<>:"/\\|?*\x00-\x1f\x7f]|^\.|[. ]$')
#: Folders that readers of images do not take for classes.
_RESERVED: Final = ("train", "test", "val", "valid", "validation", "__MACOSX")


def class_folder(class_name: str) -> str:
    """The name of the folder for a class. Characters that it cannot have are written as in a URL, such as ``%2F``."""
    name = _REFUSED.sub(lambda found: f"%{ord(found[0]):02X}", class_name)
    return f"%{ord(name[0]):02X}{name[1:]}" if name in _RESERVED else name


def class_name_of(folder: str) -> str:
    """The class whose images are in a folder of this name. The inverse of `class_folder`."""
    return unquote(folder)
