"""GGUF files: the model in them against the one they were written from, and what is refused or told."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.broken_models import whole_model
from support.gguf_files import write_gguf
from support.in_process import introspect_here
from support.sessions import PHASE, a_phase
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from introspect.checkpoint.gguf_header import read_header
from introspect.checkpoint.gguf_tokenizer import SINGLE_DIGITS
from introspect.checkpoint.loading import LoadedModel, load_model
from introspect.errors import ModelError
from introspect.execution.preflight import check_model
from introspect.phase.config import ModelConfig

KINDS = ("llama", "qwen2", "qwen3")
IDS = torch.arange(2, 60)[None]


def loaded_from(file: Path, dtype: str = "float32") -> LoadedModel:
    return load_model(ModelConfig(id=str(file), device="cpu", dtype=dtype))


def row_of(file: Path) -> Any:
    return check_model(a_phase(model={"id": str(file), "device": "cpu", "dtype": "float32"}))


def a_model(folder: Path, kind: str, **changes: Any) -> Path:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16 if kind != "qwen3" else 32}
    if kind == "qwen2":
        del sizes["head_dim"]
    return whole_model(folder, kind, **sizes | changes)


@pytest.fixture(scope="module", params=KINDS)
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's directory of each kind that is read."""
    return a_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("llama"), "llama")


def test_a_model_comes_back_from_a_file_bit_by_bit(folder: Path, tmp_path: Path) -> None:
    file = write_gguf(folder, tmp_path / "m.gguf")
    loaded, meant = loaded_from(file), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    state = loaded.model.state_dict()
    assert state.keys() == meant.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in meant.state_dict().items())
    with torch.no_grad():
        assert torch.equal(loaded.model(IDS).logits, meant(IDS).logits)
    assert loaded.weight_hash == hashlib.sha256(file.read_bytes()).hexdigest()
    assert loaded.warnings == () and row_of(file)["model"]["codes"] == []
    text = AutoTokenizer.from_pretrained(folder)
    assert loaded.tokenizer.chat_template == text.chat_template
    assert loaded.model.generation_config.eos_token_id == text.eos_token_id
    assert [loaded.tokenizer.convert_ids_to_tokens(n) for n in range(640)][:261] == [
        text.convert_ids_to_tokens(n) for n in range(261)
    ]


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_1"])
def test_quantised_weights_are_what_llama_cpps_package_makes_of_them(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    """The oracle is `gguf.dequantize` put into the very class, by the names that the library saves under."""
    file = write_gguf(folder, tmp_path / "m.gguf", kind)
    loaded, meant = loaded_from(file), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    quantised = gguf.GGMLQuantizationType[kind]
    with torch.no_grad():
        for parameter in meant.parameters():
            if parameter.ndim > 1:
                blocks = gguf.quantize(parameter.numpy(), quantised)
                parameter.copy_(torch.from_numpy(gguf.dequantize(blocks, quantised).copy()))
        assert torch.equal(loaded.model(IDS).logits, meant(IDS).logits)
    told = [warning.message for warning in loaded.warnings]
    assert bool(told) == (kind not in ("F16", "BF16"))
    assert all(f"{kind} " in line and "dequantised to float32" in line for line in told)


def test_the_librarys_own_reader_has_the_same_tensors_and_settings(folder: Path, tmp_path: Path) -> None:
    file = write_gguf(folder, tmp_path / "m.gguf", "Q8_0")
    loaded = loaded_from(file, "bfloat16")
    read = load_gguf_checkpoint(
        str(file), return_tensors=True, model_to_load=loaded.model, torch_dtype=torch.bfloat16
    )
    state = loaded.model.state_dict()
    assert read["tensors"] and all(torch.equal(state[name], t) for name, t in read["tensors"].items())
    config = loaded.model.config.to_dict()
    settings = {key: value for key, value in read["config"].items() if not key.startswith("_")}
    assert settings.pop("rope_theta") == config["rope_parameters"]["rope_theta"]
    assert {key: config.get(key) for key in settings} == settings


def test_a_head_of_its_own_is_read(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "m", "llama", tie_word_embeddings=False)
    loaded = loaded_from(write_gguf(folder, tmp_path / "m.gguf"))
    meant = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(loaded.model.lm_head.weight, meant.lm_head.weight)
    assert not torch.equal(loaded.model.lm_head.weight, loaded.model.model.embed_tokens.weight)


def test_a_run_of_a_file_from_start_to_audit(llama: Path, tmp_path: Path, capsys: Any) -> None:
    file = write_gguf(llama, tmp_path / "m.gguf", "Q8_0")
    phase = tmp_path / "small.yaml"
    phase.write_text(PHASE.replace("MODEL", str(file)))
    options = ["--device", "cpu", "--json", "-o", str(tmp_path / "runs")]
    settings = ["--set", "generation.max_new_tokens=8", "--set", "audit.e2=end"]
    done = introspect_here(capsys, "run", str(phase), *options, *settings)
    assert done.out, done.err
    run = Path(json.loads(done.out)["run"])
    assert done.code == 1  # random weights call no tool
    start, *events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert start["environment"]["weight_hash"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert any(event.get("code") == "dequantised" for event in events)
    assert json.loads((run / "manifest.json").read_text())["model_path"] == str(file)
    assert introspect_here(capsys, "audit", str(run), "--level", "e1").code == 0
    file.write_bytes(write_gguf(llama, tmp_path / "other.gguf").read_bytes())
    done = introspect_here(capsys, "audit", str(run), "--level", "e1")
    assert done.code == 2 and "not the weights of the record" in done.err


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"metadata": {"general.architecture": "phi3"}}, "'phi3', .* llama, qwen2"),
    "a part": ({"metadata": {"split.count": 3}}, "one of 3 parts"),
    "a rope that is scaled": ({"metadata": {"llama.rope.scaling.type": "yarn"}}, "scaling.type yarn"),
    "a factor of it": ({"metadata": {"llama.rope.scaling.factor": 4.0}}, r"scaling\.factor 4\.0, which"),
    "experts": ({"metadata": {"llama.expert_count": 8}}, "llama.expert_count 8"),
    "another width of heads": ({"metadata": {"llama.rope.dimension_count": 8}}, "heads are 16 wide"),
    "rotary factors": ({"tensors": {"rope_freqs.weight": torch.ones(8)}}, "changes its rotary factors"),
    "a bias": ({"tensors": {"blk.0.attn_q.bias": torch.ones(64)}}, r"no place for .*: blk\.0\.attn_q"),
    "a layer too many": ({"metadata": {"llama.block_count": 1}}, r"no place for .*: blk\.1\."),
    "a layer too few": ({"metadata": {"llama.block_count": 3}}, r"lack 9 tensors .*layers\.2.*missing-w"),
    "a tensor": ({"without": ("blk.1.ffn_up.weight",)}, r"lack a tensor .*layers\.1\.mlp\.up_proj"),
    "another shape": ({"metadata": {"llama.feed_forward_length": 48}}, r"has shape \(64, 96\), .*\(64, 48\)"),
    "no heads": ({"metadata": {"llama.attention.head_count": 0}}, "its header: num_attention_heads is 0"),
    "no context": ({"without": ("llama.context_length",)}, "its header lacks llama.context_length"),
    "no tokenizer": ({"without": ("tokenizer.ggml.tokens",)}, "holds no tokenizer"),
    "a tokenizer of words": ({"metadata": {"tokenizer.ggml.model": "bert"}}, "'bert' is no BPE"),
    "unigrams": ({"metadata": {"tokenizer.ggml.model": "t5"}}, "'t5' is no BPE"),
    "an unknown cut": ({"metadata": {"tokenizer.ggml.pre": "odd"}}, "cuts text as 'odd' does"),
}  # fmt: skip
"""What is odd about a Llama's file, and what is said."""


@pytest.mark.parametrize("odd", REFUSED)
def test_what_is_not_applied_is_refused(llama: Path, tmp_path: Path, capsys: Any, odd: str) -> None:
    changes, said = REFUSED[odd]
    file = write_gguf(llama, tmp_path / "m.gguf", **changes)
    with pytest.raises(ModelError, match=said) as raised:
        loaded_from(file)
    assert "\n" not in str(raised.value) and str(raised.value).count(str(file)) == 1
    row = row_of(file)
    assert row["supported"] is False and row["reasons"][0] == str(raised.value).removeprefix(f"{file}: ")
    assert introspect_here(capsys, "run", "phase1a", "--model", str(file), "-o", str(tmp_path)).code == 2


def test_a_file_that_is_cut_off_is_refused_in_one_line(llama: Path, tmp_path: Path) -> None:
    whole = write_gguf(llama, tmp_path / "m.gguf", "Q8_0").read_bytes()
    file = tmp_path / "broken.gguf"
    header = len(whole) - sum(t.n_bytes for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors)
    for end in (0, 3, 4, 23, 24, 200, header // 2, header - 1, len(whole) - 1000, len(whole) - 1):
        file.write_bytes(whole[:end])
        with pytest.raises(ModelError, match=r"not a GGUF file|a damaged GGUF file") as raised:
            loaded_from(file)
        assert "\n" not in str(raised.value), end


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


VALUES: dict[int, tuple[str, st.SearchStrategy[Any]]] = {
    0: ("B", st.integers(0, 255)),
    1: ("b", st.integers(-128, 127)),
    5: ("i", st.integers(-(2**31), 2**31 - 1)),
    7: ("?", st.booleans()),
    10: ("Q", st.integers(0, 2**64 - 1)),
    12: ("d", st.floats(allow_nan=False)),
}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, Any]:
    """A value of metadata by the letter of the format, and what it is."""
    kind = draw(st.sampled_from([*VALUES, 8]))
    count = draw(st.none() | st.integers(0, 3))
    letter, values = VALUES.get(kind, ("", texts))
    drawn = [draw(values) for _ in range(1 if count is None else count)]
    spelt = b"".join(struct.pack(f"<{letter}", value) if letter else string(value) for value in drawn)
    if count is None:
        return struct.pack("<I", kind) + spelt, drawn[0]
    return struct.pack("<IIQ", 9, kind, count) + spelt, tuple(drawn)


shapes = st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple)


def header(metadata: dict[str, tuple[bytes, Any]], tensors: dict[str, tuple[int, ...]]) -> bytes:
    """A file without contents, by the letter of the format."""
    written = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))]
    written += [string(key) + spelt for key, (spelt, _) in metadata.items()]
    for number, (name, shape) in enumerate(tensors.items()):
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        written.append(string(name) + dimensions + struct.pack("<IQ", 0, number * 32))
    return b"".join(written)


@given(st.dictionaries(texts, pairs(), max_size=4), st.dictionaries(texts, shapes, max_size=3))
def test_a_header_is_read_as_it_was_written(metadata: Any, tensors: Any) -> None:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "h.gguf"
        file.write_bytes(header(metadata, tensors))
        found = read_header(file)
    assert found.metadata == {key: value for key, (_, value) in metadata.items()}
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == tensors
    assert all(tensor.start % 32 == 0 for tensor in found.tensors.values())


@given(st.dictionaries(texts, pairs(), max_size=4), st.dictionaries(texts, shapes, max_size=3), st.data())
def test_no_change_of_a_header_raises_anything_but_a_refusal(metadata: Any, tensors: Any, data: Any) -> None:
    whole = bytearray(header(metadata, tensors))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "h.gguf"
        file.write_bytes(bytes(whole[: data.draw(st.sampled_from([len(whole), at + 1]))]))
        try:
            read_header(file)
        except ModelError as error:
            assert "GGUF file" in str(error) and "\n" not in str(error)


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""llama.cpp's expression for GPT-2; the ways in SINGLE_DIGITS have it after `\\p{N}` by itself."""
SAMPLE = (
    "It is 2026.\n\n    x = [12,  345];\t# don't\r\n  7 \u0663\u0664 \u00bd we'll  見る 12個 "
    '{"a": 1.50}   99   end  '
)


@pytest.mark.parametrize("cut", ["gpt-2", *sorted(SINGLE_DIGITS)])
def test_text_is_cut_as_llama_cpp_cuts_it(llama: Path, tmp_path: Path, cut: str) -> None:
    """Two digits, and white space before them, are merged where the cut allows it, and only there."""
    changes = {"tokenizer.ggml.pre": cut, "tokenizer.ggml.merges": ["Ġ Ġ", "1 2", "Ġ 7", "9 9"]}
    tokens = read_header(write_gguf(llama, tmp_path / "m.gguf")).texts("tokenizer.ggml.tokens")
    assert tokens is not None
    for token in ("ĠĠ", "12", "Ġ7", "99"):
        tokens[next(n for n, held in enumerate(tokens) if held.startswith("[PAD"))] = token
    file = write_gguf(llama, tmp_path / "n.gguf", metadata=changes | {"tokenizer.ggml.tokens": tokens})
    meant = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in changes["tokenizer.ggml.merges"]],
        )
    )
    expressions = [GPT2] if cut == "gpt-2" else [r"\p{N}", GPT2]
    meant.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(expression), "isolated") for expression in expressions),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    meant.decoder = decoders.ByteLevel()
    assert loaded_from(file).tokenizer.encode(SAMPLE) == meant.encode(SAMPLE).ids


def test_a_file_that_does_not_say_how_text_is_cut_is_warned_of(llama: Path, tmp_path: Path) -> None:
    file = write_gguf(llama, tmp_path / "m.gguf", without=("tokenizer.ggml.pre",))
    assert row_of(file)["model"]["codes"] == ["tokenizer-unsaid"]
    assert any("does not say how its tokenizer cuts text" in w.message for w in loaded_from(file).warnings)


def test_templates_by_name_are_read(llama: Path, tmp_path: Path) -> None:
    more = {"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template.tool_use": "{{ tools }}"}
    tokenizer = loaded_from(write_gguf(llama, tmp_path / "m.gguf", metadata=more)).tokenizer
    assert (
        tokenizer.chat_template["tool_use"] == "{{ tools }}"
        and "im_start" in tokenizer.chat_template["default"]
    )


def test_a_file_without_a_template_has_its_roles_spelt_in_text(llama: Path, tmp_path: Path) -> None:
    file = write_gguf(llama, tmp_path / "m.gguf", without=("tokenizer.chat_template",))
    assert row_of(file)["supported"] is True
    assert loaded_from(file).tokenizer.chat_template is None


def test_files_beside_a_gguf_file_are_not_read(llama: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).write_text("{")
    (tmp_path / "chat_template.jinja").write_text("{% broken")
    file = write_gguf(llama, tmp_path / "m.gguf")
    assert loaded_from(file).warnings == () and row_of(file)["supported"] is True


def test_a_directory_of_gguf_files_is_told_to_name_one(llama: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("b.gguf", "a.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    done = introspect_here(capsys, "run", "phase1a", "--model", str(tmp_path), "-o", str(tmp_path))
    assert done.code == 2
    said = done.err
    assert "it holds GGUF files (a.gguf, b.gguf)" in said and f"--model {tmp_path}/a.gguf" in said.replace(
        "\n", ""
    )


def test_another_file_is_no_model(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "model.bin").write_bytes(b"PK\3\4")
    file = str(tmp_path / "model.bin")
    done = introspect_here(capsys, "run", "phase1a", "--model", file, "-o", str(tmp_path))
    assert done.code == 2 and "model.bin: not a GGUF file" in done.err.replace("\n", "")


def test_without_its_package_the_way_to_have_it_is_told(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(llama, tmp_path / "m.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModelError, match=r"pip install 'introspect\[gguf\]'$"):
        loaded_from(file)
    assert row_of(file)["supported"] is False


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("change", ["offset + 1", "offset + 32", "offset of another", "smaller type"])
def test_a_tensor_that_stands_elsewhere_than_the_format_has_it_is_refused(
    llama: Path, tmp_path: Path, place: str, change: str
) -> None:
    """A wrong offset or type would load other weights in silence. The name stands before both fields."""
    file = write_gguf(llama, tmp_path / "model.gguf", "F16")
    header = read_header(file)
    matrices = [name for name, tensor in header.tensors.items() if len(tensor.shape) == 2]
    name = {"first": matrices[0], "middle": matrices[len(matrices) // 2], "last": list(header.tensors)[-1]}[
        place
    ]
    tensor = header.tensors[name]
    contents = bytearray(file.read_bytes())
    named = len(name).to_bytes(8, "little") + name.encode()
    kind_at = contents.index(named) + len(named) + 4 + 8 * len(tensor.shape)
    offset_at = kind_at + 4
    (offset,) = struct.unpack_from("<Q", contents, offset_at)
    other = next(t for n, t in header.tensors.items() if n != name)
    begin = tensor.start - offset
    changed = {
        "offset + 1": offset + 1,
        "offset + 32": offset + 32,
        "offset of another": other.start - begin,
        "smaller type": offset,
    }[change]
    struct.pack_into("<Q", contents, offset_at, changed)
    if change == "smaller type":
        smaller = {0: 1, 1: 8}[tensor.kind]  # F32 to F16, F16 to Q8_0
        struct.pack_into("<I", contents, kind_at, smaller)
    file.write_bytes(contents)
    with pytest.raises(ModelError, match="damaged GGUF file"):
        loaded_from(file)
