"""Structured output with a real model: validity, time to compile, and tokens per second beside free text.

bench_structured.py PACKAGE [--every N] [--rounds N] [--part PART] [--json FILE]

Every schema is answered twice: with room, and with hardly more tokens than its shortest answer has.

An answer under a schema and free text of as many tokens to the same prompt follow each other, in turn, in the
same engine; a ratio is the median of the ratios within a round. Only steps in which every row decodes are counted, so
that time to read prompts is left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import numpy as np

from edgeai.engine.config import EngineSettings
from edgeai.engine.constraint import MaskWorker
from edgeai.engine.engine import Engine
from edgeai.engine.request import FinishReason, SamplingParams
from edgeai.grammar.compiler import GrammarCompiler
from edgeai.grammar.constraint import CompiledGrammar
from edgeai.grammar.spec import from_json_schema
from edgeai.model import Model, default_settings
from edgeai.package.package import Package

SCHEMAS = Path(__file__).parents[1] / "tests" / "data" / "json_schemas.jsonl"
MAX_TOKENS = 600
COMPARED = 8  # every eighth schema is compared with free text
COMPARED_TOKENS = 100
ROWS = 8
GROUPS = 6  # of that many rows
PARTS = ("all", "room", "tight", "speed")


class Case(NamedTuple):
    """A schema with its task, compiled."""

    name: str
    schema: dict[str, Any]
    prompt: list[int]
    grammar: CompiledGrammar


class Answer(NamedTuple):
    """What one request gave."""

    tokens: list[int]
    finish_reason: FinishReason | None


def answers(engine: Engine, jobs: Sequence[tuple[list[int], SamplingParams]]) -> tuple[list[Answer], float]:
    """All answers, and tokens per second over the steps in which every row decoded."""
    for number, (prompt, params) in enumerate(jobs):
        engine.add(str(number), prompt, params)
    tokens: list[list[int]] = [[] for _ in jobs]
    reasons: list[FinishReason | None] = [None] * len(jobs)
    counted, seconds = 0, 0.0
    while engine.has_work:
        full = all(tokens) and not any(reasons)
        started = time.perf_counter()
        outputs = engine.step()
        if full:
            seconds += time.perf_counter() - started
            counted += len(outputs)
        for number, output in outputs:
            tokens[int(number)].append(output.token_id)
            reasons[int(number)] = output.finish_reason
    if engine.failures:
        raise SystemExit(f"a grammar failed: {engine.failures}")
    return [Answer(*parts) for parts in zip(tokens, reasons, strict=True)], counted / seconds if seconds else 0.0


def compiled(model: Model, every: int) -> tuple[list[Case], list[float]]:
    """The cases, and milliseconds that each schema took; what the tokenizer takes once is left out."""
    lines = SCHEMAS.read_text(encoding="utf-8").splitlines()[::every]
    model.grammars.submit(from_json_schema({"type": "null"}, param="")).result()
    cases, times = [], []
    for line in lines:
        case = json.loads(line)
        spec = from_json_schema(case["schema"], param=case["name"])
        started = time.perf_counter()
        grammar = model.grammars.submit(spec).result()
        times.append(1000 * (time.perf_counter() - started))
        prompt = model.encode_chat([{"role": "user", "content": f"{case['prompt']} Answer in JSON."}])
        cases.append(Case(case["name"], case["schema"], prompt, grammar))
    return cases, times


def tokenizer_seconds(model: Model) -> float:
    """What the first grammar takes in addition."""
    compiler = GrammarCompiler(model.tokenizer, model.manifest.tokens.eos)
    started = time.perf_counter()
    compiler.submit(from_json_schema({"type": "null"}, param="")).result()
    return time.perf_counter() - started


def validity(model: Model, cases: Sequence[Case], *, tight: bool) -> dict[str, Any]:
    """Answers to every case with the package's own sampling parameters, and what became of them."""
    counts = {"valid": 0, "cut by max_tokens": 0, "invalid": 0}
    failed: list[str] = []
    tokens = 0
    for seed, case in enumerate(cases):
        most = tight_budget(case) if tight else MAX_TOKENS
        params = model.default_params(max_tokens=most, seed=seed, grammar=case.grammar)
        (answer,), _ = answers(model.engine, [(case.prompt, params)])
        tokens += len(answer.tokens)
        valid = is_valid(model.tokenizer.decode(answer.tokens), case.schema)
        cut = answer.finish_reason is FinishReason.LENGTH
        counts["cut by max_tokens" if cut else "valid" if valid else "invalid"] += 1
        failed += [] if valid else [case.name]
    return {"answers": len(cases), **counts, "failed": failed, "tokens": tokens}


def tight_budget(case: Case) -> int:
    """Tokens of the shortest answer, and the margin of docs/structured-output.md."""
    shortest = case.grammar.shortest()
    if shortest is None:
        raise SystemExit(f"no answer to {case.name} was found")
    return shortest + shortest // 4 + 8


def is_valid(text: str, schema: dict[str, Any]) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def speeds(engine: Engine, groups: Sequence[Sequence[Case]], rounds: int) -> tuple[float, float, float]:
    """Median tokens per second under a schema and of free text, and the median of their ratios."""
    pairs = []
    for number, group in enumerate([groups[0], *[group for _ in range(rounds) for group in groups]]):
        greedy = [
            SamplingParams(max_tokens=COMPARED_TOKENS, temperature=0, repetition_penalty=1.1, grammar=case.grammar)
            for case in group
        ]
        jobs = [(case.prompt, params) for case, params in zip(group, greedy, strict=True)]
        given, constrained = answers(engine, jobs)
        length = max(len(answer.tokens) for answer in given)
        free = replace(greedy[0], grammar=None, ignore_eos=True, max_tokens=max(length, 8))
        _, plain = answers(engine, [(case.prompt, free) for case in group])
        if number and constrained and plain:  # the first warms up
            pairs.append((constrained, plain, constrained / plain))
    constrained, plain, ratio = np.median(pairs, axis=0)
    return float(constrained), float(plain), float(ratio)


def compare(
    package: Package, settings: EngineSettings, model: Model, cases: Sequence[Case], rounds: int
) -> list[dict[str, Any]]:
    rows = []
    print("\n| decoding | under a schema, tokens/s | free text | ratio |\n|---|---|---|---|")
    for name, drafts, count, cheap in (
        ("one row, with drafts", settings.draft_tokens, 1, None),
        ("one row, without drafts", 0, 1, None),
        ("one row, without drafts, all masks by the thread", 0, 1, 0.0),
        (f"{ROWS} rows, with drafts", settings.draft_tokens, ROWS, None),
        (f"{ROWS} rows, without drafts", 0, ROWS, None),
        (f"{ROWS} rows, without drafts, all masks by the thread", 0, ROWS, 0.0),
    ):
        engine = Engine(package.graph, model.engine.shape, replace(settings, draft_tokens=drafts))
        if cheap is not None:
            engine.masks = MaskWorker(cheap)
        if count == 1:
            groups = [[case] for case in cases[::COMPARED]]
        else:
            groups = [cases[at : at + count] for at in range(0, min(len(cases), GROUPS * count) - count + 1, count)]
        constrained, free, ratio = speeds(engine, groups, rounds)
        rows.append({"what": name, "constrained": constrained, "free": free, "ratio": ratio})
        print(f"| {name} | {constrained:.0f} | {free:.0f} | {ratio:.2f}x |", flush=True)
    return rows


def report(found: dict[str, Any], *, tight: bool) -> dict[str, Any]:
    room = "of the shortest answer and the margin" if tight else f"of {MAX_TOKENS}"
    print(
        f"max_tokens {room}: {found['answers']} answers of {found['tokens']} tokens, {found['valid']} valid,"
        f" {found['invalid']} invalid, {found['cut by max_tokens']} cut {', '.join(found['failed'])}",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--part", choices=PARTS, default="all")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    package = Package.open(args.package)
    settings = default_settings(package.manifest, max_rows=ROWS, max_context=1024)
    model = Model.load(package, settings)
    once = tokenizer_seconds(model)
    cases, times = compiled(model, args.every)
    median, most = np.percentile(times, [50, 100])
    print(f"{len(cases)} schemas: compiled in {median:.1f} ms (median), {most:.1f} ms (longest); once {once:.2f} s")
    budgets = [tight for part, tight in (("room", False), ("tight", True)) if args.part in ("all", part)]
    found = [report(validity(model, cases, tight=tight), tight=tight) for tight in budgets]
    rows = compare(package, settings, model, cases, args.rounds) if args.part in ("all", "speed") else []
    if args.json:
        document = {"compile_ms": times, "once_seconds": once, "validity": found, "speeds": rows}
        args.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
