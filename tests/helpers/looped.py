"""A law over many cases as one test: a test per case costs more than most cases do."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest

MOST = 20  # failures that the message lists


def named(case: Any) -> str:
    """A case as a message names it."""
    if isinstance(case, tuple):
        return ", ".join(map(named, case))
    return str(getattr(case, "id", case))


def each(names: str, cases: Iterable[Any], ids: Callable[[Any], str] = named) -> Callable:
    """As pytest.mark.parametrize, but one test, which lists all cases that fail.

    names: the arguments, separated by commas; ids: how the message names a case.
    """
    arguments, cases = [name.strip() for name in names.split(",")], list(cases)
    assert cases, f"no case of {names}"

    def looping(test: Callable) -> Callable:
        @functools.wraps(test)
        def looped(**fixtures: Any) -> None:
            failed = []
            for case in cases:
                values = case if len(arguments) > 1 else (case,)
                try:  # whatever it raises, the case is named and the others are tried
                    test(**dict(zip(arguments, values, strict=True)), **fixtures)
                except (Exception, pytest.fail.Exception) as error:
                    failed.append(f"{ids(case)}: {type(error).__name__}: {error}")
            shown = "\n".join(failed[:MOST])
            assert not failed, f"{len(failed)} of {len(cases)} cases fail:\n{shown}"

        signature = inspect.signature(test)
        kept = [p for name, p in signature.parameters.items() if name not in arguments]
        looped.__signature__ = signature.replace(parameters=kept)
        return looped

    return looping
