"""One choice of one request on its way: its tokens become text, and something ends it."""

from dataclasses import dataclass
from typing import Any

from pipeline.engine.base import StepOutput
from pipeline.engine.detokenizer import Detokenizer
from pipeline.engine.logprobs import chat_logprobs, completion_logprobs
from pipeline.engine.sampler import TokenLogprobs
from pipeline.engine.stops import StopStrings
from pipeline.engine.vocabulary import Vocabulary
from pipeline.engine.work import Work
from pipeline.scheduling.sequence import Sequence
from schemas.events import FinishReason


@dataclass(slots=True, eq=False)
class Choice:
    """What is kept of a choice besides its sequence. `characters` counts the text that its tokens stand for."""

    sequence: Sequence
    work: Work
    vocabulary: Vocabulary | None
    detokenizer: Detokenizer
    stops: StopStrings
    characters: int = 0

    def accept(self, token_id: int, logprobs: TokenLogprobs | None) -> StepOutput:
        """Takes the token that was sampled and tells what may be shown and whether the choice is over.

        An ending token has no text. A stop string cuts the text before it; it is looked for once `min_tokens` are out.
        """
        sequence, work = self.sequence, self.work
        sequence.output_ids.append(token_id)
        tokens = len(sequence.output_ids)
        ends = token_id in work.end_ids and tokens > work.min_tokens
        decoded = self.detokenizer.flush() if ends else self.detokenizer.feed(token_id)
        report = None if logprobs is None else self._report(token_id, logprobs)
        self.characters += len(decoded)
        text = self.stops.feed(decoded) if tokens > work.min_tokens else decoded
        reason = FinishReason.STOP if ends or self.stops.matched else FinishReason.LENGTH if tokens >= work.max_tokens else None
        if reason and not self.stops.matched:
            text += self.stops.feed(self.detokenizer.flush()) + self.stops.flush()
        return StepOutput(key=sequence.key, index=sequence.index, token_ids=(token_id,), text=text, logprobs=report, finish_reason=reason)

    def _report(self, token_id: int, logprobs: TokenLogprobs) -> dict[str, Any]:
        if self.work.is_chat:
            return chat_logprobs(token_id, logprobs, self.vocabulary)
        return completion_logprobs(token_id, logprobs, self.vocabulary, self.characters)
