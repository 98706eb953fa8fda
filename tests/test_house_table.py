"""The table of the package's shape, on a package small enough to be counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from house_table import rows
from package_shape import Package, Unknown, depth_and_cycles

SOURCES = {
    "__init__.py": "",
    "low.py": "from typing import Any\n\n\nclass Value:\n    def read(self, a: Any) -> Any: ...\n",
    "room/__init__.py": "",
    "room/high.py": """from typing import Any, cast
from introspect.low import Value

def make() -> Value:
    from introspect.room.lazy import helper
    return helper(Value(1, 2, 3, 4, 5), Value(1, 2, 3, 4), cast(Any, None))
""",
    "room/lazy.py": "import introspect.low\n\ndef helper(*values: dict[str, 'Any']): ...\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, source in SOURCES.items():
        path = tmp_path / "introspect" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return tmp_path


def test_imports_are_followed_to_the_module_that_they_name(tree: Path) -> None:
    package = Package.read(tree)
    assert package.graph(lazy=False) == {
        "low": set(),
        "room.high": {"low"},
        "room.lazy": {"low"},
    }
    assert package.graph(lazy=True)["room.high"] == {"low", "room.lazy"}
    assert depth_and_cycles(package.graph(lazy=False)) == (2, 0)
    assert depth_and_cycles(package.graph(lazy=True)) == (3, 0)


def test_a_cycle_is_counted() -> None:
    assert depth_and_cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})[1] == 1


def test_calls_by_position_any_and_definitions_are_counted(tree: Path) -> None:
    package = Package.read(tree)
    assert package.positional_calls() == ["room.high:6 Value (5)"]
    assert package.any_names() == (2, 1)
    assert package.modules_of(("gone|make", "Value.read", "low:Value", "helper")) == [
        "room.high",
        "low",
        "room.lazy",
    ]
    with pytest.raises(Unknown, match="no module defines gone"):
        package.modules_of(("gone",))


def test_a_state_without_the_steps_of_a_path_is_refused_not_guessed(tree: Path) -> None:
    with pytest.raises(Unknown):
        rows(Package.read(tree))
