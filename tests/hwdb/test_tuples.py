"""NamedTuple of hwdb.tuples against that of typing."""

import pickle
import sys
import typing

import pytest

from roofcast.hwdb.tuples import NamedTuple


class Ours(NamedTuple):
    """A size."""

    name: str
    count: "int | None" = None
    parts: tuple[int, ...] = ()

    @property
    def long(self):
        """Its name, twice."""
        return 2 * self.name


class Theirs(typing.NamedTuple):
    """A size."""

    name: str
    count: "int | None" = None
    parts: tuple[int, ...] = ()


def test_it_is_the_tuple_of_typing():
    for how in ("_fields", "_field_defaults", "__doc__", "__module__", "__match_args__"):
        assert getattr(Ours, how) == getattr(Theirs, how)
    assert typing.get_type_hints(Ours) == typing.get_type_hints(Theirs)
    one = Ours("a", parts=(1,))
    assert one == Theirs("a", parts=(1,)) == ("a", None, (1,))
    assert repr(one) == "Ours(name='a', count=None, parts=(1,))"
    assert (one.long, one._replace(count=2).count, one._asdict()["name"]) == ("aa", 2, "a")
    assert pickle.loads(pickle.dumps(one)) == one and type(pickle.loads(pickle.dumps(one))) is Ours
    assert (Ours.__name__, Ours.__qualname__) == ("Ours", "Ours")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="typing makes it")
def test_a_field_without_a_default_does_not_follow_one_with_a_default():
    with pytest.raises(TypeError, match="without a default"):

        class Wrong(NamedTuple):
            first: int = 0
            second: int
