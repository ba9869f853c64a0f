"""Records that are made several times in every call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

Class = TypeVar("Class")


@dataclass_transform(frozen_default=True)
def record(cls: type[Class]) -> type[Class]:
    """A class whose objects never change, as `@dataclass(frozen=True, slots=True)` makes it.

    That one sets each field through `object.__setattr__`, which takes four times as long as to set
    it; a call makes some twenty records of ten fields. Here it is the type checker alone that
    forbids to change them.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
