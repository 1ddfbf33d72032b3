"""Real grammars in the engine: whatever is batched, drafted and preempted, its answers are the naive loop's."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest

from edgeai.engine.config import EngineSettings
from edgeai.engine.engine import Engine
from edgeai.engine.model_runner import ModelRunner
from edgeai.engine.naive import greedy
from edgeai.engine.request import FinishReason, SamplingParams
from edgeai.grammar.spec import from_json_schema, from_regex
from edgeai.model import Model, model_shape
from tests.fixtures.grammars import schema_cases
from tests.server.float_model import float_package

SETTINGS = EngineSettings(threads=1, max_rows=4, kv_budget_bytes=1 << 22, block_tokens=16, max_context=512)
CASES = [case for case in schema_cases() if case.name.startswith("feature ")][::5]
MAX_TOKENS = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(float_package(tmp_path_factory.mktemp("tiny")), SETTINGS)


@pytest.mark.parametrize("drafts", [0, 8])
def test_answers_are_those_of_the_naive_loop(model: Model, drafts: int) -> None:
    shape = model_shape(model.manifest)
    runner = ModelRunner(model.package.graph, shape, SETTINGS, 512)
    tight = replace(SETTINGS, draft_tokens=drafts, kv_budget_bytes=640 * shape.token_bytes)
    engine = Engine(model.package.graph, shape, tight)
    grammars = {case.name: model.grammars.submit(from_json_schema(case.schema, param="")).result() for case in CASES}
    grammars["words"] = model.grammars.submit(from_regex("([a-z]{2,5} ){20}end", param="")).result()
    prompts = {name: model.encode_text(f"{name}: " * 6) for name in grammars}
    outputs: dict[str, list[int]] = {name: [] for name in grammars}
    ended: dict[str, FinishReason | None] = {}
    for name, grammar in grammars.items():
        engine.add(name, prompts[name], SamplingParams(max_tokens=MAX_TOKENS, temperature=0, grammar=grammar))
    while engine.has_work:
        for name, output in engine.step():
            outputs[name].append(output.token_id)
            ended[name] = output.finish_reason
    assert not engine.failures
    assert engine.stats().accepted_tokens if drafts else engine.stats().preemptions  # else it would be hollow
    for name, grammar in grammars.items():
        assert outputs[name] == greedy(runner, prompts[name], MAX_TOKENS, None, grammar), name
    for case in CASES:
        if ended[case.name] is FinishReason.STOP:
            text = model.tokenizer.decode(outputs[case.name])
            jsonschema.validate(json.loads(text), case.schema, jsonschema.Draft202012Validator)
    assert list(ended.values()).count(FinishReason.STOP) > len(ended) // 2
