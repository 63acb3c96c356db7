"""The local answerer on a tiny checkpoint of every family's real architecture: answers are those of ``generate``."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from blindspot.evaluation.adapters import Adapter, adapter_of
from blindspot.evaluation.models.local import LocalAnswerer
from blindspot.model.load import load

from .local_toy import one_by_one, questions
from .tiny_families import BUILDERS, checkpoint

SHARING = sorted(set(BUILDERS) - {"molmo", "paligemma"})
FEW_TOKENS = {"bounds": {"size": {"shortest_edge": 112**2, "longest_edge": 224**2}}}
WORDS = ["what", "is", "left", "of", "the", "dog"]
OPTIONS = {"A": "yes", "B": "A", "C": "no, not"}

Loaded = tuple[Any, Any, Adapter]


@pytest.fixture(scope="module", autouse=True)
def remote_code(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[None]:
    """Let a checkpoint's own code be copied into the tests' folder, not into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Model, processor and family of the checkpoint that the test asks for by name."""
    folder = checkpoint(request.param, tmp_path_factory.mktemp("local") / request.param)
    model, processor = load(folder, trust_remote_code=request.param == "molmo")
    family = adapter_of(model.config.model_type)
    return model.float(), processor, replace(family, **FEW_TOKENS) if request.param == "qwen2_5_vl" else family


def families(names: list[str]) -> Any:
    return pytest.mark.parametrize("loaded", names, indirect=True, scope="module")


@families(sorted(BUILDERS))
def test_answers_are_those_of_generate(loaded: Loaded) -> None:
    model, processor, family = loaded
    asked = questions(longest=4, words=WORDS)
    answerer = LocalAnswerer(model, processor, family, batch=3)
    assert (answerer.identity["pictures"] == "once for their questions") == (family.name in SHARING)
    replies = {reply.id: reply.raw for reply in answerer.answer(asked)}
    if family.generate is None:
        assert replies == {name: raw for name, (raw, _) in one_by_one(model, processor, asked, family).items()}
    alone = {reply.id: reply.raw for reply in answerer.one_by_one().answer(asked)}
    assert replies == alone
    assert len(set(replies.values())) > 1 or family.name in ("molmo", "gemma3")


@families(sorted(set(BUILDERS) - {"molmo"}))
def test_likelihoods_are_those_of_generate(loaded: Loaded) -> None:
    model, processor, family = loaded
    asked = questions((2, 1), words=WORDS, options=OPTIONS)
    answerer = LocalAnswerer(model, processor, family)
    shared = {reply.id: reply.likelihood for reply in answerer.answer(asked)}
    alone = {reply.id: reply.likelihood for reply in answerer.one_by_one().answer(asked)}
    assert shared.keys() == alone.keys()
    for name, values in shared.items():
        assert values == pytest.approx(alone[name], abs=1e-3)


@families(["paligemma"])
def test_a_picture_that_sees_the_question_is_found_out_by_trying(loaded: Loaded) -> None:
    model, processor, family = loaded
    answerer = LocalAnswerer(model, processor, replace(family, no_prefix=None))
    assert "logits differ by" in answerer.identity["pictures"]
