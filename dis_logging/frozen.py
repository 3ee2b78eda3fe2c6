"""Values that never change: what `dataclass(frozen=True, slots=True)` generates for each class, written once for all."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any, ClassVar, NoReturn


class Frozen:
    """
    Base of values that are compared, hashed, shown and pickled by their fields, and whose fields are set once.

    A frozen dataclass is the same to its users, but its methods are compiled when its module is imported, a millisecond
    for each class: together they took longer than the rest of the package. A subclass names its fields in ``__slots__``,
    takes them in that order in its constructor, sets them with `set_field`, and is still a dataclass to
    `dataclasses.fields`, `asdict` and `replace` by way of ``@dataclass(init=False, repr=False, eq=False)``.
    """

    __slots__: tuple[str, ...] = ()
    #: The fields that `repr` leaves out.
    _hidden: ClassVar[frozenset[str]] = frozenset()

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__slots__])

    def __repr__(self) -> str:
        # A traceback that shows local variables may come upon one whose constructor was interrupted.
        names = [name for name in self.__slots__ if name not in self._hidden and hasattr(self, name)]
        shown = [f"{name}={getattr(self, name)!r}" for name in names]
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._values()


#: How a constructor sets a field.
set_field = object.__setattr__
