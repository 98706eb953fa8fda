"""What a record says of the machine: no home directory, no credentials; texts of the model as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.record_examples import conversation, generation, run_start

from introspect import events as ev
from introspect.runlog.codec import to_plain_record
from introspect.runlog.surroundings import REDACTED, private, private_text

SECRETS = [
    "hf_abcdefghijklmnopqrstuvwxyzABCDEF12",
    "sk-proj-abcdefghijklmnopqrstuvwx",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "xoxb-1234567890-abcdefghij",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
]
SPOKEN = [
    "https://{}@example.com/x",
    "HF_TOKEN={}",
    "password: '{}'",
    "Authorization: Bearer {}",
    "in {} out",
    '"api_key": "{}"',
]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOME", "/people/someone")
    return "/people/someone"


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("spoken", SPOKEN)
def test_no_credential_is_written_of_the_program(secret: str, spoken: str) -> None:
    message = spoken.format(secret)
    written: list[ev.Event] = [
        ev.Error(message=message, traceback=f"Traceback\n  {message}\n"),
        ev.Warning(experiment=0, turn=1, code="c", message=message),
        ev.ToolResult(
            experiment=0, turn=1, function="f", ok=False, result={}, text="", seconds=0.0, traceback=message
        ),
        run_start(environment={"placement": message, "api_key": secret}, settings={"model": {"id": message}}),
    ]
    for event in written:
        assert secret not in json.dumps(to_plain_record(event))


@pytest.mark.parametrize(
    "plain",
    [
        "https://example.com:8080/x",
        "max_new_tokens=400000",
        "eos_token: <|im_end|>",
        "token count (2345 > 2000)",
        "user@host",
        "a secret of weights",
    ],
)
def test_what_is_no_credential_stays(plain: str) -> None:
    assert private_text(plain) == plain and private({"eos_token": plain}) == {"eos_token": plain}


def test_the_home_directory_is_a_tilde(home: str) -> None:
    settings: dict[str, Any] = {
        "model": {"id": f"{home}/models/m"},
        "documents": [f"{home}/d.md", "/data/d.md"],
    }
    start = to_plain_record(run_start(model=f"{home}/models/m", settings=settings, forced_from=home))
    assert (start["model"], start["forced_from"]) == ("~/models/m", "~")
    assert start["settings"] == {"model": {"id": "~/models/m"}, "documents": ["~/d.md", "/data/d.md"]}
    trace = f'File "{home}/x.py", line 3\nOSError: {home}: no, nor {home}2/x nor /mnt{home}/y'
    told = to_plain_record(ev.Error(message="m", traceback=trace))["traceback"]
    assert told == f'File "~/x.py", line 3\nOSError: ~: no, nor {home}2/x nor /mnt{home}/y'


def test_texts_that_a_model_reads_or_writes_stay_as_they_were(home: str) -> None:
    text = f"{home}/x and {SECRETS[0]} and password: hunter22"
    result = ev.ToolResult(
        experiment=0,
        turn=1,
        function="f",
        ok=True,
        result={"token": text, home: text},
        text=text,
        seconds=0.0,
    )
    for event in (*conversation(text), generation(text), result):
        record = to_plain_record(event)
        for name in ("text", "task", "result"):
            if hasattr(event, name):
                assert record[name] == getattr(event, name)
    start = run_start(
        system_prompt=text, settings={"experiments": [{"task": text}], "system_prompt": {"text": text}}
    )
    record = to_plain_record(start)
    assert (record["system_prompt"], record["settings"]) == (start.system_prompt, start.settings)


def test_a_machine_without_a_home_has_nothing_to_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert private("/etc/x") == "/etc/x" and private_text("in /etc/x") == "in /etc/x"
    assert private({"password": "x"}) == {"password": REDACTED}
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    assert private("/people/x") == "/people/x"
