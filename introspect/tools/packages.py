"""Tools that installed packages add by the entry-point group `introspect.tools`.

An entry point's name is the tool's name, its value a function that describes itself as ours do. Reading what
is on offer imports nothing; a package is imported when a phase names its tool, or to list them all.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, EntryPoint, distributions

from introspect.display import one_line
from introspect.errors import ConfigError
from introspect.tools.base import Tool
from introspect.tools.catalogue import TOOL_MODULES

GROUP = "introspect.tools"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class OfferedTool:
    """A tool that a package offers and nobody has imported yet."""

    package: str
    version: str
    entry_point: EntryPoint

    def load(self) -> Tool:
        """Import the tool. Raises ConfigError, one line that names the package, where that fails."""
        try:
            with redirect_stdout(sys.stderr):  # what a module prints when it is imported is no data of ours
                tool = Tool.from_function(self.entry_point.load())
        except (Exception, SystemExit) as error:  # whatever a package does wrong is one line of its own
            why = one_line(f"{type(error).__name__}: {error}")[:200]
            raise ConfigError(
                f"{self}: tool '{self.entry_point.name}' cannot be loaded ({why}); mend or remove the package"
            ) from None
        return replace(tool, name=self.entry_point.name, package=self.package, version=self.version)

    def __str__(self) -> str:
        return one_line(f"package {self.package} {self.version}")


@dataclass
class Offers:
    """What installed packages offer: tools by name, and why others are refused, by name too."""

    tools: dict[str, OfferedTool] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def offered_tools() -> Offers:
    """The tools on offer. Names that are taken or unfit are refused; a broken package spoils no other."""
    offers = Offers()
    # Most often there are none, and to read who a hundred packages are takes tens of milliseconds.
    if not any(map(_has_tools, distributions())):
        return offers
    for distribution in _installed():
        package = str(distribution.metadata["Name"])
        try:
            found = [e for e in distribution.entry_points if e.group == GROUP]
        except Exception as error:
            offers.unreadable.append(
                one_line(f"package {package}: its entry points cannot be read ({error})")
            )
            continue
        for entry in found:
            _take(offers, OfferedTool(package, str(distribution.version), entry))
    return offers


def _has_tools(distribution: Distribution) -> bool:
    """Whether a package may have something to offer; one whose entry points cannot be read may."""
    try:
        return any(entry.group == GROUP for entry in distribution.entry_points)
    except Exception:
        return True


def _take(offers: Offers, offer: OfferedTool) -> None:
    name = offer.entry_point.name
    if name in TOOL_MODULES:
        why = f"{offer}: tool '{name}' is refused; a tool of this program has that name"
    elif not _NAME.fullmatch(name):
        why = f"{offer}: tool '{one_line(name)}' is refused; a name is made of a to z, digits and _"
    elif name in offers.tools or name in offers.refused:
        other = offers.tools.pop(name, None)
        why = f"{offer}: tool '{name}' is refused; {other or 'another package'} has one of that name too"
    else:
        offers.tools[name] = offer
        return
    offers.refused[name] = why


def _installed() -> Iterator[Distribution]:
    """Every installed distribution once: the first on the path hides those of the same name behind it."""
    seen = set()
    for distribution in distributions():
        try:
            name = re.sub(r"[-_.]+", "-", str(distribution.metadata["Name"])).lower()
        except Exception:  # metadata that cannot be read names no package to complain of
            continue
        if name not in seen:
            seen.add(name)
            yield distribution
