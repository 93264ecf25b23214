"""One choice of one request on its way: its tokens become text, and something ends it."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from pipeline.engine.base import StepOutput
from pipeline.engine.detokenizer import Detokenizer, detokenizer
from pipeline.engine.logprobs import chat_logprobs, completion_logprobs, prompt_logprobs
from pipeline.engine.sampler import TokenLogprobs
from pipeline.engine.stops import StopStrings
from pipeline.engine.vocabulary import Vocabulary
from pipeline.engine.work import Work
from pipeline.scheduling.sequence import Sequence
from schemas.events import FinishReason
from schemas.results import join_logprobs


@dataclass(slots=True, eq=False)
class Choice:
    """What is kept of a choice besides its sequence.

    Attributes:
        characters: Counts the text before the next token: that of its tokens, and of the prompt where it is echoed.
        scores: Of the prompt's tokens but the first, where they are wanted; the choices of a request share the list.
    """

    sequence: Sequence
    work: Work
    vocabulary: Vocabulary | None
    detokenizer: Detokenizer
    stops: StopStrings
    scores: list[TokenLogprobs]
    characters: int = 0

    @property
    def alternatives(self) -> int:
        """Likeliest tokens that are wanted beside each of the prompt's own."""
        return self.work.sampling.logprobs or 0

    def take_scores(self, scores: Seq[TokenLogprobs]) -> None:
        """Takes the log-probabilities of the prompt's next tokens, for all choices of the request."""
        self.scores += scores
        if self.sequence.group is not None:
            self.sequence.group.scored_tokens = len(self.scores)

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> StepOutput:
        """Takes the token that was sampled and tells what may be shown and whether the choice is over.

        With the first token comes the prompt, where it is echoed; stop strings are not looked for in it.
        An ending token has no text. A stop string cuts the text before it; it is looked for once `min_tokens` are out.
        """
        sequence, work = self.sequence, self.work
        sequence.output_ids.append(token_id)
        tokens = len(sequence.output_ids)
        opening = work.echo if tokens == 1 else None
        self.characters += len(opening or "")
        ends = token_id in work.end_ids and tokens > work.min_tokens
        decoded = self.detokenizer.flush() if ends else self.detokenizer.feed(token_id)
        report = None if logprobs is None else self._report(token_id, logprobs)
        if opening is not None and report is not None:
            report = join_logprobs(self._echoed(), report)
        self.characters += len(decoded)
        text = self.stops.feed(decoded) if tokens > work.min_tokens else decoded
        reason = FinishReason.STOP if ends or self.stops.matched else FinishReason.LENGTH if tokens >= work.max_tokens else None
        if reason and not self.stops.matched:
            text += self.stops.feed(self.detokenizer.flush()) + self.stops.flush()
        return StepOutput(
            key=sequence.key, index=sequence.index, token_ids=(token_id,), text=(opening or "") + text, logprobs=report, finish_reason=reason
        )

    def _report(self, token_id: int, logprobs: TokenLogprobs) -> dict[str, Any]:
        if self.work.is_chat:
            return chat_logprobs(token_id, logprobs, self.vocabulary)
        return completion_logprobs(token_id, logprobs, self.vocabulary, self.characters)

    def _echoed(self) -> dict[str, Any]:
        """Reports on the prompt. The text of its tokens is decoded as that of the output is, which tells where each begins."""
        prompt_ids, decoder = self.work.prompt_ids, detokenizer(self.vocabulary)
        offsets = [0, *accumulate(len(decoder.feed(token_id)) for token_id in prompt_ids)]
        return prompt_logprobs(prompt_ids, self.scores, [min(offset, self.characters) for offset in offsets[:-1]], self.vocabulary)
