"""`introspect tools NAME key=value...`: a tool called by hand, against the tool itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.cli_process import introspect
from support.tool_cases import context_for, family_model

from introspect.commands.tool_call import MOST_CHARACTERS, MOST_LINES, parsed, shown
from introspect.errors import ConfigError
from introspect.tools.instruments.registry import ALL_TOOLS

OWN = '''\
def odd(context, numbers: list[int], flag: bool = False, note: str | None = None, share: float = 0.5) -> dict:
    """Give back what it was given.

    Args:
        numbers: some
        flag: whether
        note: any text
        share: how much
    """
    if flag:
        return {"bad": 1 / 0}
    return {"numbers": numbers, "note": note, "share": share, "raw": "a\\x1b[2J\\u202e", "nan": float("nan")}
'''


def called(folder: Path, *arguments: str) -> Any:
    done = introspect("tools", *arguments, "--json", cwd=folder)
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done.stderr
    return json.loads(done.stdout)


def test_it_gives_what_the_tool_gives(tmp_path: Path, model_dir: Path, byte_format: Any) -> None:
    row = called(tmp_path, "get_weight_statistics", "layer_name=model.layers.0.mlp", "--model", "tiny")
    context = context_for(family_model("tiny"), byte_format)
    expected = ALL_TOOLS["get_weight_statistics"].call(context, {"layer_name": "model.layers.0.mlp"})
    assert row["result"] == expected and (row["tool"], row["model"]) == ("get_weight_statistics", "tiny")
    other = called(tmp_path, "get_architecture_summary", "--model", str(model_dir))
    assert other["result"]["layers"] == 2 and other["arguments"] == {}
    by_key = called(tmp_path, "process_text", "text=a=b", "layer_names=model.layers.0", "layer_names=lm_head")
    as_json = called(tmp_path, "process_text", "text=a=b", 'layer_names=["model.layers.0", "lm_head"]')
    assert by_key["result"] == as_json["result"] and by_key["arguments"]["text"] == "a=b"
    assert called(tmp_path, "get_activation_statistics", "layer_name=lm_head", "--text", "a=b")["result"]


def test_a_file_that_is_named_is_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    row = called(tmp_path, "./own.py:odd", "numbers=1", "numbers=2", "note=null", "share=1e-3")
    assert row["tool"] == "odd"
    assert row["arguments"] == {"numbers": [1, 2], "flag": False, "note": "null", "share": 0.001}
    assert row["result"] == {**row["result"], "numbers": [1, 2], "note": "null", "nan": "NaN"}
    done = introspect("tools", "./own.py:odd", "numbers=[3]", cwd=tmp_path)
    assert done.returncode == 0 and "\x1b" not in done.stdout and "\u202e" not in done.stdout
    assert "\\u202e" in done.stdout
    failed = introspect("tools", "./own.py:odd", "numbers=3", "flag=true", cwd=tmp_path)
    assert failed.returncode == 2 and "own.py:11: odd failed (ZeroDivisionError" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing_such"], "no tool is called 'nothing_such'"),
        (["logit_lens"], "argument 'text' is missing"),
        (["logit_lens", "text=a", "top_k=x"], 'expected integer, got "x"'),
        (["logit_lens", "text=a", "top_k=99"], "top_k 99: give 1 to 20"),
        (["logit_lens", "text=a", "text=b"], "text is given twice"),
        (["logit_lens", "text=a", "txt=b"], "unknown argument 'txt'; did you mean 'text'?"),
        (["logit_lens", "\x1b[2J"], "write key=value"),
        (["process_text", "text=a", "layer_names=a,b"], "several in one text"),
        (["get_weight_statistics", "layer_name=nowhere"], "no layer is called 'nowhere'"),
        (["get_activation_statistics", "layer_name=lm_head"], "--text gives one here"),
        (["query_memory"], "works on the notes of a run"),
        (["list_heritage_documents"], "works on the documents of a run"),
        (["./nowhere.py:f"], "nowhere.py: no such file"),
        (["get_architecture_summary", "--model", "./nowhere"], "nowhere"),
        (["get_architecture_summary", "--dtype", "float8"], "float8"),
    ],
)
def test_what_cannot_be_called_is_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = introspect("tools", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and done.stderr.count("\n") == 1 and "\x1b" not in done.stderr


def test_the_types_of_the_tool_say_how_a_value_is_read() -> None:
    lens = ALL_TOOLS["logit_lens"]
    assert parsed(lens, ["text=12", "layers=[0, 1]", "top_k=3"]) == {
        "text": "12",
        "layers": [0, 1],
        "top_k": 3,
    }
    assert parsed(lens, ["text=", "layers=0", "layers=model.layers.1"])["layers"] == [0, "model.layers.1"]
    mode = parsed(ALL_TOOLS["ablate"], ["text={", "component=1", "mode=zero"])
    assert mode == {"text": "{", "component": "1", "mode": "zero"}
    with pytest.raises(ConfigError, match="key=value"):
        parsed(lens, ["=x"])


def test_what_is_shown_is_bounded() -> None:
    lines = shown({"long": "x" * 10_000, "many": list(range(5000))})
    assert len(lines) == MOST_LINES + 1 and "--json has all" in lines[-1]
    assert max(map(len, lines)) <= MOST_CHARACTERS + 40 and "more characters" in lines[1]
