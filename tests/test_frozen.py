from __future__ import annotations

from dataclasses import replace

from socksd.frozen import value


@value
class Pair:
    one: int
    other: str = "x"


def test_a_value_is_what_its_fields_are() -> None:
    assert Pair(1) == Pair(1, "x") != Pair(2)
    assert len({Pair(1), Pair(1, "x"), Pair(2)}) == 2
    assert replace(Pair(1), other="y") == Pair(1, "y")
    assert repr(Pair(1)) == "Pair(one=1, other='x')"
    assert not hasattr(Pair(1), "__dict__")
