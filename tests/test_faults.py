"""Planted faults: every one is found and named, sound state stays sound, and detectors know no planter."""

from __future__ import annotations

import ast
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_matrix import MODELS, a_conversation, a_schedule, filled, main
from fault_page import KEPT
from small_models import small_model
from support.amounts import full

import introspect.cache_check
from introspect.cache_check.naming import CONTENT, DAMAGE, MEANINGS, UNDECIDED
from introspect.faults.catalogue import FAULTS, Fault
from introspect.faults.scene import DEPTHS, PLACES, Conversation, Scene, fed, own_copy
from introspect.model.cache_audit import check_cache, examine_cache

CODES = set(MEANINGS) - {"tail-missing", UNDECIDED}
DTYPES = [torch.float32, torch.bfloat16]
CONVERSATION = a_conversation(random.Random(11))
STAGES: dict[torch.dtype, tuple[Any, Any]] = {}


def scene(dtype: torch.dtype, place: Any = "first-kept", depth: Any = "first") -> Scene:
    """A scene in a small model; model and clean cache are made once for each dtype."""
    if dtype not in STAGES:
        model = small_model(dtype=dtype)
        STAGES[dtype] = model, filled(model, list(CONVERSATION.ids), [30, len(CONVERSATION.ids) - 30])
    model, clean = STAGES[dtype]
    return Scene(
        model=model,
        clean=clean,
        conversation=CONVERSATION,
        place=place,
        depth=depth,
        generator=torch.Generator().manual_seed(4),
    )


def cells_of(fault: Fault) -> list[tuple[str, str, str, torch.dtype]]:
    """Every place, depth and dtype together; daily each place and each depth, in a dtype by turns.

    A third of the daily cells are bf16, whose search for the pass that rounded so is the longest.
    """
    if full():
        return [(fault.name, *cell) for cell in itertools.product(fault.places, fault.depths, DTYPES)]
    places, depths = itertools.cycle(fault.places), itertools.cycle(fault.depths)
    count = max(len(fault.places), len(fault.depths), len(DTYPES))
    offset = sorted(FAULTS).index(fault.name) % 3
    dtypes = (torch.bfloat16 if (i + offset) % 3 == 0 else torch.float32 for i in itertools.count())
    drawn = zip(places, depths, dtypes, strict=False)
    return [(fault.name, *cell) for cell in itertools.islice(drawn, count)]


CELLS = [cell for fault in FAULTS.values() for cell in cells_of(fault)]


@pytest.mark.parametrize(("name", "place", "depth", "dtype"), CELLS, ids=str)
def test_every_fault_is_found_and_named(name: str, place: str, depth: str, dtype: torch.dtype) -> None:
    here = scene(dtype, place, depth)
    damaged = FAULTS[name].planted(here)
    codes = check_cache(here.model, damaged.cache, damaged.intended)
    assert set(codes) & set(FAULTS[name].codes), codes
    assert len(codes) <= 2


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_damage_stays_when_the_cache_grows(fault: Fault) -> None:
    """What is measured of a fault is measured of the damage, not of a buffer that lies behind it."""
    damaged = fault.planted(scene(torch.float32))
    grown = damaged.cache.fork()
    for layer in grown.layers:
        one = layer.keys[:, :, :1].float() * 2
        layer.update(one, one)
    for before, after in zip(damaged.cache.layers, grown.layers, strict=True):
        length = before.get_seq_length()
        for name in ("keys", "values"):
            held, kept = getattr(before, name), getattr(after, name)[:, :, :length]
            assert torch.equal(held.double().nan_to_num(7.0), kept.double().nan_to_num(7.0))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_planting_leaves_the_clean_cache_alone(fault: Fault) -> None:
    here = scene(torch.float32)
    before = here.clean.content_digest()
    damaged = fault.planted(here)
    assert here.clean.content_digest() == before
    assert here.clean.token_ids == list(CONVERSATION.ids)
    assert damaged.intended == CONVERSATION.ids


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_clean_cache_is_sound(dtype: torch.dtype) -> None:
    here = scene(dtype)
    assert check_cache(here.model, here.clean, CONVERSATION.ids) == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_the_same_generator_plants_the_same_fault(fault: Fault) -> None:
    states = [fault.planted(scene(torch.float32)).cache.layers[1].values for _ in range(2)]
    assert torch.equal(states[0].nan_to_num(7.0), states[1].nan_to_num(7.0))


def test_a_pass_that_ended_with_the_cache_is_thought_of() -> None:
    """The 5223rd sound cache of the fault matrix, the last one that was blamed for an element."""
    rng = random.Random(2)
    for _ in range(5223):
        ids = rng.choices(range(640), k=rng.randint(1, 90))
        chunks = a_schedule(rng, len(ids))
    assert (len(ids), chunks) == (72, [47, 25])
    model = small_model(**MODELS["qwen2, K bias 100, channel x50"])
    assert check_cache(model, filled(model, ids, chunks), ids) == []


@pytest.mark.parametrize("seed", range(30) if full() else [1, 8], ids=str)
def test_damage_of_the_first_slot_that_all_others_read_is_found(seed: int) -> None:
    """Some slots behind it differ in as few elements: they are healed like it, and must not be read so."""
    rng = random.Random(seed)
    model, talk = small_model(family="llama", dtype=torch.bfloat16), a_conversation(rng)
    clean = filled(model, list(talk.ids), [len(talk.ids) - 10, *[1] * 10])
    generator = torch.Generator().manual_seed(seed)
    here = Scene(
        model=model,
        clean=clean,
        conversation=talk,
        place="first-prefix",
        depth="first",
        generator=generator,
    )
    damaged = FAULTS["element-corrupted"].planted(here)
    assert check_cache(model, damaged.cache, damaged.intended) == ["element-corrupted"]


def test_faults_of_ids_are_faithful_memos_of_other_ids() -> None:
    here, talk = scene(torch.float32), CONVERSATION
    again = FAULTS["history-duplicated"].planted(here).cache
    assert check_cache(here.model, again, [*talk.ids, *talk.ids[talk.prefix :]]) == []
    stale = FAULTS["stale-tokens"].planted(here).cache
    assert (
        check_cache(here.model, stale, [*talk.ids[: talk.prefix], *talk.dropped, *talk.ids[talk.prefix :]])
        == []
    )
    assert sum(fault.by_ids for fault in FAULTS.values()) >= 6


def test_what_is_fed_next_tells_the_original_defect() -> None:
    damaged = FAULTS["prefix-aliased"].planted(scene(torch.float32))
    assert damaged.mask_width == damaged.next_position == len(CONVERSATION.ids)
    assert damaged.cache.num_cached_tokens == len(CONVERSATION.ids) + len(CONVERSATION.dropped)


def test_every_code_has_a_fault_a_meaning_and_a_row() -> None:
    assert len(FAULTS) >= 24
    assert {fault.code for fault in FAULTS.values()} >= CODES
    assert set(FAULTS) >= CODES and set(MEANINGS) >= CODES
    rows = {code for row in (*CONTENT, *DAMAGE) for code in row.codes}
    assert rows <= set(MEANINGS)
    assert CODES - rows == {"non-finite", "ragged-layers", "unknown"}
    for fault in FAULTS.values():
        assert fault.meaning and "\n" not in fault.meaning
        assert set(fault.places) <= set(PLACES) and set(fault.depths) <= set(DEPTHS)


def test_detectors_know_no_planter() -> None:
    package = Path(introspect.cache_check.__path__[0]).parent
    detectors = [
        path
        for room in ("cache_check", "audits", "model", "engine")
        for path in (package / room).glob("*.py")
    ]
    for path in detectors:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert "fault" not in (node.module or ""), path
            if isinstance(node, ast.Import):
                assert not any("fault" in alias.name for alias in node.names), path


def test_places_and_copies() -> None:
    talk = Conversation((1, 2, 3, 4, 5), 2, (9,))
    assert [talk.slot(place) for place in PLACES] == [0, 1, 2, 4]
    here = scene(torch.float32)
    copy = own_copy(here.clean, 7)
    assert copy.lengths() == [7, 7, 7] and copy.token_ids == list(CONVERSATION.ids[:7])
    assert copy.layers[0].keys.data_ptr() != here.clean.layers[0].keys.data_ptr()
    assert fed(here.model, [5, 6]).token_ids == [5, 6]


def test_the_matrix_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fault_matrix.MODELS", {"qwen2": {"family": "qwen2", "layers": 2}})
    monkeypatch.setattr("fault_matrix.FAULTS", {"non-finite": FAULTS["non-finite"]})
    page = tmp_path / "matrix.md"
    assert main(["--clean", "4", "--rounds", "1", "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "**24 of 24 detected (100.00%), 24 named (100.00%); 0 false alarms in 4 checks" in text
    assert "| non-finite | bfloat16 | last | middle | 1 | 0 | 1 | 1 |  |" in text
    for only, runs in (("check", 1), ("check", 1), ("audit", 2)):
        assert (
            main(["--clean", str(4 * runs), "--rounds", str(runs), "--only", only, "--out", str(page)]) == 0
        )
        halves = page.read_text(encoding="utf-8").split("\n## ")
        assert [half.splitlines()[0] for half in halves[1:3]] == ["The audit of a run", "`check_cache`"]
        for half, name in zip(halves[1:3], ("audit", "check"), strict=True):
            assert half.count(KEPT) == (name != only)
            count = 24 * runs if name == only else 24
            assert f"**{count} of {count} detected (100.00%)" in half and half.count("\n\n\n") == 0


@pytest.mark.parametrize("share", [20, 48, 56])
@pytest.mark.parametrize("name", ["prefix-scaled", "prefix-mutated", "foreign-cache"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma", "qwen3"])
def test_a_prefix_that_is_most_of_a_cache_is_named_as_a_short_one_is(
    family: str, name: str, share: int
) -> None:
    """A system prompt often takes four fifths of what is cached, all of which is then unreadable."""
    model = small_model(family=family, dtype=torch.float32)
    draw = random.Random(1)
    ids = tuple(draw.randrange(5, 600) for _ in range(60))
    scene = Scene(
        model=model,
        clean=fed(model, ids),
        conversation=Conversation(ids, share, (7, 8, 9)),
        place="first-prefix",
        depth="first",
        generator=torch.Generator().manual_seed(3),
    )
    damaged = FAULTS[name].planted(scene)
    found = examine_cache(model, damaged.cache.fork(), damaged.intended)
    assert {finding.code for finding in found} & set(FAULTS[name].codes)
