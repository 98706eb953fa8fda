"""A process of its own in which chat templates are rendered: they are programs that strangers wrote.

`python -m introspect.templates.sandbox` reads one JSON object, `template` and `jobs`, from standard
input and writes READY, then one a line for each job: `text`, or `error`. It needs jinja2 alone, no tensor
library.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from types import FrameType
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

JOB_SECONDS = 1.0
"""Processor time of one rendering."""
TEMPLATE_SECONDS = 5
"""Processor time of all renderings of a template: where the interpreter cannot stop one, the kernel does."""
MEMORY_BYTES = 1 << 29
"""Address space of the process."""
MOST_STOPPED = 2
"""Renderings that may run out of time before the rest is not tried."""
READY = {"ready": True}
"""The first line: the process has come as far as its work, and what fails from here on is the template's."""
TEXT_CHARACTERS = 1 << 20
"""Characters of one rendering, and of one error message a thousandth of that."""


class TooMuch(Exception):
    """A rendering takes more time or text than any prompt needs."""


class _Generation(Extension):
    """`{% generation %}` marks what the assistant wrote, for training; here its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _PlainNamespace(Namespace):
    """jinja2's namespace without names that begin with an underscore: these lead into the interpreter."""

    def __init__(*args: object, **attributes: object) -> None:
        self, *rest = args
        for name in dict(*rest, **attributes):
            _refuse_private(name)
        Namespace.__init__(self, *rest, **attributes)

    def __setitem__(self, name: str, value: object) -> None:
        _refuse_private(name)
        Namespace.__setitem__(self, name, value)


def _refuse_private(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace takes no attribute called {name!r}")


class _Dict:
    """`dict` as a template may use it: to be called, and for `fromkeys`; it leads to no other attribute."""

    def __call__(self, *args: Any, **items: object) -> dict[Any, object]:
        return dict(*args, **items)

    def fromkeys(self, keys: Iterable[object], value: object = None) -> dict[object, object]:
        return dict.fromkeys(keys, value)


def _raise_exception(message: object) -> None:
    raise TemplateError(str(message))


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


class Renderer:
    """A template in the environment that transformers gives to chat templates, at times of ours.

    Compiled at the first rendering. `now` is the time that the template believes it is.
    """

    def __init__(self, template: str) -> None:
        self.source = template
        self.now = datetime(1970, 1, 1)
        self._compiled: Template | None = None

    def render(self, variables: dict[str, object]) -> str:
        """One rendering. Raises TooMuch beyond TEXT_CHARACTERS, and what a template makes jinja2 raise."""
        if self._compiled is None:
            self._compiled = self._environment().from_string(self.source)
        pieces, length = [], 0
        for piece in self._compiled.generate(**variables):
            length += len(piece)
            if length > TEXT_CHARACTERS:
                raise TooMuch(f"takes more than {TEXT_CHARACTERS} characters")
            pieces.append(piece)
        return "".join(pieces)

    def _environment(self) -> ImmutableSandboxedEnvironment:
        env = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
        )
        env.filters["tojson"] = _to_json
        env.globals.update(
            raise_exception=_raise_exception,
            strftime_now=lambda form: self.now.strftime(form),
            dict=_Dict(),
            namespace=_PlainNamespace,
        )
        return env


def outcome(renderer: Renderer, job: dict[str, Any]) -> dict[str, str]:
    """`{"text": …}` of a job, or `{"error": …}`: nothing that a template does comes out as an exception."""
    try:
        renderer.now = datetime.fromisoformat(job["now"])
        with _timed():
            return {"text": renderer.render(job["variables"])}
    except RecursionError:
        return {"error": "calls itself without end"}
    except MemoryError:
        return {"error": f"takes more than {MEMORY_BYTES >> 20} MiB"}
    except TooMuch as error:
        return {"error": str(error)}
    except Exception as error:
        message = str(error)[: TEXT_CHARACTERS // 1000]
        named = "" if type(error) is TemplateError else f"{type(error).__name__}: "
        return {"error": f"{named}{message}" if message else type(error).__name__}


@contextlib.contextmanager
def _timed() -> Iterator[None]:
    """Raise TooMuch in the body after JOB_SECONDS of processor time, where the system has such a timer."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooMuch(f"takes more than {JOB_SECONDS:g} s of processor time")

    signal.signal(signal.SIGVTALRM, stop)
    # Again and again: a template cannot catch an exception, but a finalizer may swallow one.
    signal.setitimer(signal.ITIMER_VIRTUAL, JOB_SECONDS, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _confine() -> None:
    """Bound processor time and memory of this process, where the system can."""
    try:
        import resource
    except ImportError:
        return
    for kind, most in ((resource.RLIMIT_CPU, TEMPLATE_SECONDS), (resource.RLIMIT_AS, MEMORY_BYTES)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Render every job of standard input, in order; a line is written as soon as it is known."""
    sys.stdout.write(json.dumps(READY) + "\n")
    sys.stdout.flush()
    work = json.load(sys.stdin)
    _confine()
    renderer = Renderer(work["template"])
    stopped = 0
    for job in work["jobs"]:
        answer = outcome(renderer, job)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        stopped += "processor time" in answer.get("error", "")
        if stopped == MOST_STOPPED:
            break


if __name__ == "__main__":
    main()
