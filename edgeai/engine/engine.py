"""The engine: requests in, tokens out, one step at a time. Not thread-safe; `async_engine` gives it an owner."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgeai.engine.adapters import Adapter
from edgeai.engine.admission import Admission
from edgeai.engine.config import EngineSettings, ModelShape
from edgeai.engine.constraint import Mask, MaskWorker, RowMasks
from edgeai.engine.governor import Governor
from edgeai.engine.kv_cache import GRANULE
from edgeai.engine.load_runner import load_runner
from edgeai.engine.memory import MemoryControl
from edgeai.engine.prefix_cache import PrefixCache
from edgeai.engine.prompt_reader import PromptGraph, reads_prompts
from edgeai.engine.request import EngineStats, FinishReason, SamplingParams, TokenOutput
from edgeai.engine.restore import BlockStore
from edgeai.engine.runner import Logits
from edgeai.engine.sampler import logprobs, sample
from edgeai.engine.scheduler import Plan, Scheduler
from edgeai.engine.scores import with_scores_that_fit
from edgeai.engine.sequence import Sequence
from edgeai.engine.speculative import Draft, DraftPlanner, DraftRow
from edgeai.engine.terms import DEFAULT_TERMS, Terms
from edgeai.engine.validation import check_params, check_prompt
from edgeai.engine.warm_up import settle
from edgeai.engine.wind_down import choose
from edgeai.errors import EdgeaiError, InvalidInput, OutOfMemory
from edgeai.onnx_session import Interrupted

RESTORE_POLL_SECONDS = 0.02  # how long cancellations and new requests may wait for blocks that are being restored

NO_DRAFT = Draft([], 0.0)

Outputs = list[tuple[str, TokenOutput]]  # request id and its new token


@dataclass(frozen=True, slots=True)
class _Due:
    """A sequence that is due a token, its logits [1 + draft, vocab_size], the draft that they verify, and its masks."""

    sequence: Sequence
    logits: Logits
    draft: Draft
    masks: RowMasks


class Engine:
    """Serves any number of requests from one graph.

    Raises `PackageError` when the graph cannot be loaded, `OutOfMemory` when the budget holds no context at all.
    """

    def __init__(
        self,
        graph: Path,
        shape: ModelShape,
        settings: EngineSettings | None = None,
        *,
        adapter_graph: Path | None = None,
        prompt_graph: PromptGraph | None = None,
        store: BlockStore | None = None,
        governor: Governor | None = None,
    ) -> None:
        self.settings = settings or EngineSettings()
        self.shape = shape
        self.context_length = effective_context(shape, self.settings)
        own_prompts = prompt_graph is not None and reads_prompts(self.settings)
        self.settings = with_scores_that_fit(self.settings, shape, self.context_length, own_prompts=own_prompts)
        parts = (self.settings, self.context_length, adapter_graph, prompt_graph)
        self.runner = load_runner(graph, shape, *parts)
        if self.settings.tight:
            self.settings = settle(self.runner, self.settings, self.context_length)
            self.context_length = min(self.context_length, effective_context(shape, self.settings))
        block = self.settings.block_tokens
        self.cache = PrefixCache(block, block * shape.token_bytes)
        self.scheduler = Scheduler(self.settings, self.runner.arena, self.cache, shape, store)
        self.admission = Admission(self.scheduler)
        self.memory = MemoryControl(governor, self.scheduler, self.runner, self.context_length)
        self.drafts = DraftPlanner(self.settings.draft_tokens)
        self.masks = MaskWorker()
        self.failures: dict[str, EdgeaiError] = {}  # requests that ended without a last token; whoever steps takes them
        self._sequences: dict[str, Sequence] = {}
        self._prompt_tokens = self._generated_tokens = self._hit_tokens = 0
        self._drafted_tokens = self._accepted_tokens = 0

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    def check(self, prompt: Tokens[int], params: SamplingParams) -> None:
        """Raise `InvalidInput` or `ContextLengthExceeded` for a request that can never be served."""
        check_params(params, self.shape.vocab_size)
        check_prompt(prompt, self.shape.vocab_size, self.context_length)

    def add(
        self,
        request_id: str,
        prompt: Tokens[int],
        params: SamplingParams,
        adapter: Adapter | None = None,
        terms: Terms = DEFAULT_TERMS,
    ) -> None:
        """Queue a request. Raises as `check` and `Admission.check` do, `Overloaded` when memory is scarce, ValueError
        for an id in use.

        The first one with an adapter loads the graph for them, and raises as `Runner.enable_adapters` does.
        """
        self.check(prompt, params)
        self.memory.check(len(prompt))
        if request_id in self._sequences:
            raise ValueError(f"request {request_id!r} is running already")
        sequence = Sequence.start(request_id, prompt, params, adapter, terms)
        self.admission.check(sequence)
        if adapter is not None:
            self.runner.enable_adapters()
        self._sequences[request_id] = sequence
        self.scheduler.add(sequence)

    def cancel(self, request_id: str) -> None:
        """Forget a request, wherever it is; unknown and finished ones are ignored."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self.scheduler.remove(sequence)

    def step(self) -> Outputs:
        """Schedule, execute, sample, update. Returns the new tokens; a failed step leaves the books as they were."""
        began = time.perf_counter()
        self.memory.update()
        self._expire()
        plan = self.scheduler.schedule()
        if not plan:
            self.scheduler.wait(RESTORE_POLL_SECONDS)
            return []
        try:
            with self.memory.guard():
                due = self._decode(plan, began) if plan.decode else []
                plan = self.scheduler.fit(plan, time.perf_counter() - began)
                due += self._prefill(plan)
        except Interrupted:
            self.memory.update(now=True)
            return []
        self.memory.ran()
        computed = time.perf_counter()
        chosen = [(job.sequence, self._sample(job)) for job in due]
        self.scheduler.computed(plan, [len(outputs) for _, outputs in chosen[: len(plan.decode)]])
        for job, (_, outputs) in zip(due, chosen, strict=True):
            self._verified(job, len(outputs) - 1)
        self._fail(due)
        news = [(seq.request_id, self._update(seq, output)) for seq, outputs in chosen for output in outputs]
        self.scheduler.chunks.ended(time.perf_counter() - computed)
        return news

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting),
            kv_used_bytes=self.scheduler.used_bytes,
            kv_budget_bytes=self.scheduler.budget.limit,
            prefix_cache_hit_tokens=self._hit_tokens,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            preemptions=self.scheduler.preemptions,
            drafted_tokens=self._drafted_tokens,
            accepted_tokens=self._accepted_tokens,
            memory=self.memory.state,
            expired=self.admission.expired,
            kv_written_bytes=self.scheduler.committed_bytes,
            rows=self.scheduler.rows_for_memory,
            queued={priority.label: count for priority, count in self.scheduler.waiting.lengths().items()},
        )

    def _prefill(self, plan: Plan) -> list[_Due]:
        """Logits at the end of a prompt. A run of its own: one with the decoding rows would pad them to the chunk."""
        prefill = plan.prefill
        if prefill is None or prefill.slot is None:
            return []
        stop = prefill.computed + plan.chunk
        ends = stop == len(prefill.tokens)
        with self.masks.beside([(prefill.constraint, ())] if ends else [], long=True) as masks:
            started = time.perf_counter()
            chunk = prefill.tokens[prefill.computed : stop]
            logits = None
            if ends:
                logits = self.runner.prefill(prefill.slot, chunk, prefill.computed, prefill.adapter)
            else:
                self.runner.fill(prefill.slot, chunk, prefill.computed, prefill.adapter)
            self.scheduler.chunks.measured(plan.chunk, prefill.computed, time.perf_counter() - started)
        return [] if logits is None else [_Due(prefill, logits[None], NO_DRAFT, *masks.rows)]

    def _decode(self, plan: Plan, began: float) -> list[_Due]:
        """Logits of every decoding sequence: one run over the newest token of each, and over drafts where they pay.

        `began` is when the step did, by `time.perf_counter`.
        """
        sequences, within = plan.decode, math.inf
        if plan.prefill is not None:
            within = self.scheduler.chunks.left_for_drafts(plan.prefill.computed) - (time.perf_counter() - began)
        drafts = self._draft(sequences, within)
        constrained = [(seq.constraint, draft.tokens) for seq, draft in zip(sequences, drafts, strict=True)]
        with self.masks.beside(constrained) as masks:
            logits = self._decode_rows(sequences, drafts)
        return [_Due(*parts) for parts in zip(sequences, logits, drafts, masks.rows, strict=True)]

    def _decode_rows(self, sequences: Tokens[Sequence], drafts: Tokens[Draft]) -> list[Logits]:
        """Logits [1 + draft, vocab_size] of each row."""
        lengths = [sequence.computed for sequence in sequences]
        adapters = [sequence.adapter for sequence in sequences]
        started = time.perf_counter()
        if any(draft.tokens for draft in drafts):
            rows = [[sequence.tokens[-1], *draft.tokens] for sequence, draft in zip(sequences, drafts, strict=True)]
            logits = self.runner.verify(rows, lengths, adapters)
        else:
            newest = [sequence.tokens[-1] for sequence in sequences]
            logits = [row[None] for row in self.runner.decode(newest, lengths, adapters)]
        positions = len(sequences) * max(len(row) for row in logits)
        self.drafts.costs.measured(positions, time.perf_counter() - started)
        return logits

    def _draft(self, sequences: Tokens[Sequence], within: float) -> list[Draft]:
        if not self.drafts.most:
            return [NO_DRAFT for _ in sequences]
        rows = [DraftRow(each.tokens, each.drafter, self._left(each) - 1, each.constraint) for each in sequences]
        drafts = zip(sequences, self.drafts.plan(rows, within), strict=True)
        reserve = self.scheduler.reserve_draft
        return [draft.cut(reserve(sequence, len(draft.tokens))) for sequence, draft in drafts]

    def _left(self, sequence: Sequence) -> int:
        """Tokens that may yet be said."""
        said = len(sequence.tokens) - sequence.prompt_tokens
        return min(sequence.params.max_tokens - said, self.context_length - len(sequence.tokens))

    def _sample(self, due: _Due) -> list[TokenOutput]:
        """The next token, and those behind it for as long as the draft is right: each as if it were sampled alone."""
        if isinstance(due.masks, EdgeaiError):
            return []
        tokens, before = due.sequence.tokens, len(due.sequence.tokens)
        masks: Tokens[Mask | None] = due.masks or [None] * len(due.logits)
        outputs: list[TokenOutput] = []
        try:
            for logits, mask, drafted in zip(due.logits, masks, [*due.draft.tokens, None], strict=True):
                outputs.append(self._sample_one(logits, due.sequence, mask, tokens[before:]))
                if outputs[-1].finish_reason is not None or outputs[-1].token_id != drafted:
                    break
                tokens.append(drafted)
        finally:
            del tokens[before:]
        return outputs

    def _verified(self, due: _Due, accepted: int) -> None:
        if not due.draft.tokens or accepted < 0:
            return
        if not due.draft.forced:
            due.sequence.drafter.verified(len(due.draft.tokens), accepted)
        self._drafted_tokens += len(due.draft.tokens)
        self._accepted_tokens += accepted

    def _expire(self) -> None:
        """End the requests that cannot have a first token by their deadline any more."""
        for sequence, error in self.admission.overdue():
            self.failures[sequence.request_id] = error
            self.cancel(sequence.request_id)

    def _fail(self, due: Iterable[_Due]) -> None:
        """End the sequences whose masks could not be computed."""
        for job in due:
            if isinstance(job.masks, EdgeaiError):
                self.failures[job.sequence.request_id] = job.masks
                self.cancel(job.sequence.request_id)

    def _sample_one(self, logits: Logits, sequence: Sequence, mask: Mask | None, said: Tokens[int]) -> TokenOutput:
        """The token behind `said`, which is not committed yet."""
        constraint, over = sequence.constraint, False
        if constraint is None or mask is None:
            token = sample(logits, sequence)
        else:
            token = choose(partial(sample, logits, sequence), mask, constraint, said, self._left(sequence))
            over = token not in self.shape.eos_token_ids and constraint.over([*said, token])
        reason = FinishReason.STOP if over else self._finish(token, sequence)
        output = TokenOutput(token, None, (), reason, sequence.cached_tokens, over)
        if sequence.params.logprobs is None:
            return output
        own, top = logprobs(logits, token, sequence.params.logprobs)
        return replace(output, logprob=own, top_logprobs=top)

    def _finish(self, token: int, sequence: Sequence) -> FinishReason | None:
        params = sequence.params
        ignored = params.ignore_eos and params.grammar is None  # where a grammar allows the end, it is the end
        if token in params.stop_token_ids or (token in self.shape.eos_token_ids and not ignored):
            return FinishReason.STOP
        if self._left(sequence) <= 1 or self.admission.must_end(sequence):
            return FinishReason.LENGTH
        return None

    def _update(self, sequence: Sequence, output: TokenOutput) -> TokenOutput:
        if len(sequence.tokens) == sequence.prompt_tokens:
            self._prompt_tokens += sequence.prompt_tokens
            self._hit_tokens += sequence.cached_tokens
        self._generated_tokens += 1
        sequence.tokens.append(output.token_id)
        if sequence.constraint is not None:
            sequence.constraint.commit(output.token_id)
        if output.finish_reason is not None:
            del self._sequences[sequence.request_id]
            self.scheduler.remove(sequence)
            self.admission.finished(sequence, output.finish_reason)
        return output


def effective_context(shape: ModelShape, settings: EngineSettings) -> int:
    """Tokens one request may have: what the model allows, the settings allow, and the budget can hold."""
    affordable = settings.kv_budget_bytes // shape.token_bytes // GRANULE * GRANULE
    if affordable < GRANULE:
        raise OutOfMemory(
            f"a KV budget of {settings.kv_budget_bytes} bytes holds no context: {GRANULE} tokens take"
            f" {GRANULE * shape.token_bytes} bytes",
            "raise the KV budget",
        )
    wanted = shape.context_length if settings.max_context is None else settings.max_context
    if wanted > shape.context_length:
        raise InvalidInput(f"a context of {wanted} tokens was asked for; the model has {shape.context_length}")
    if settings.max_context is not None and wanted > affordable:
        raise OutOfMemory(
            f"a context of {wanted} tokens takes {wanted * shape.token_bytes / 2**20:.0f} MiB; the KV budget of"
            f" {settings.kv_budget_bytes / 2**20:.0f} MiB holds {affordable}",
            "raise the KV budget or ask for a shorter context",
        )
    return min(wanted, affordable)
