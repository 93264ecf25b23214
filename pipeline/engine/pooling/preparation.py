"""From a pooled request to work: everything that can be wrong with it is found here, and how its answer is made is settled."""

from collections.abc import Callable
from functools import partial

from pipeline.engine.base import Job
from pipeline.engine.pooling import answers
from pipeline.engine.pooling.answers import Activation
from pipeline.engine.pooling.texts import Texts
from pipeline.engine.pooling.work import PooledWork, Text
from schemas.errors import InvalidRequest
from schemas.pooled_results import Pooled, Rows
from schemas.request import ClassifyBody, EmbeddingsBody, Request, RerankBody, ScoreBody

MAX_ANSWER_BYTES = 15 * 1024 * 1024
"""The topic of results takes 16 MiB; an answer that cannot be sent is refused before it is computed."""

NUMBER_BYTES = {"float": 14.0, "base64": 16 / 3}
"""What a number takes in an answer: nine digits, sign, point and comma, or four bytes in base64."""


class EmbeddingPreparation:
    """Validates requests against a model that makes embeddings. Scores are the cosines of two of them."""

    def __init__(self, texts: Texts, *, model: str, width: int, is_normalised: bool):
        self._texts = texts
        self._model = model
        self._width = width
        self._is_normalised = is_normalised

    def prepare(self, request: Request) -> Job:
        """Validates and tokenises.

        Raises:
            InvalidRequest: Or one of its classes, with the field at fault.
        """
        body = request.body
        match body:
            case EmbeddingsBody():
                return self._embeddings(body)
            case ScoreBody():
                limit = self._texts.limit_tokens(body.truncate_prompt_tokens)
                firsts = self._texts.singles(body.text_1, limit, param="text_1")
                return _job(firsts + self._texts.singles(body.text_2, limit, param="text_2"), partial(answers.cosines, firsts=len(firsts)))
            case RerankBody():
                limit = self._texts.limit_tokens(body.truncate_prompt_tokens)
                query = self._texts.singles([body.query], limit, param="query")
                return _job(query + self._texts.singles(body.documents, limit, param="documents"), partial(answers.cosines, firsts=1))
        raise InvalidRequest(f"model {self._model!r} makes embeddings; it does not serve {request.endpoint}", param="url")

    def _embeddings(self, body: EmbeddingsBody) -> Job:
        if body.dimensions is not None and body.dimensions > self._width:
            raise InvalidRequest(f"the model's embeddings have {self._width} dimensions: ask for at most as many", param="dimensions")
        dimensions = body.dimensions or self._width
        if len(body.input) * dimensions * NUMBER_BYTES[body.encoding_format] > MAX_ANSWER_BYTES:
            raise InvalidRequest("the answer would be larger than a record may be: send fewer texts, or encoding_format base64", param="input")
        texts = self._texts.singles(body.input, self._texts.limit_tokens(body.truncate_prompt_tokens), param="input")
        return _job(texts, partial(answers.embeddings, dimensions=dimensions, is_normalised=self._is_normalised))


class ClassPreparation:
    """Validates requests against a model with a classification head. One of a single label scores and ranks pairs."""

    def __init__(self, texts: Texts, *, model: str, labels: tuple[str, ...], activation: Activation):
        self._texts = texts
        self._model = model
        self._labels = labels
        self._activation = activation

    def prepare(self, request: Request) -> Job:
        """Validates and tokenises.

        Raises:
            InvalidRequest: Or one of its classes, with the field at fault.
        """
        body = request.body
        match body:
            case ClassifyBody():
                texts = self._texts.singles(body.input, self._texts.limit_tokens(body.truncate_prompt_tokens), param="input")
            case ScoreBody() | RerankBody():
                texts = self._pairs(body, request.endpoint)
            case _:
                raise InvalidRequest(f"model {self._model!r} classifies text; it does not serve {request.endpoint}", param="url")
        activation = self._activation if body.use_activation else Activation.NONE
        return _job(texts, partial(answers.classes, labels=self._labels, activation=activation))

    def _pairs(self, body: ScoreBody | RerankBody, endpoint: str) -> tuple[Text, ...]:
        if len(self._labels) != 1:
            raise InvalidRequest(f"model {self._model!r} has {len(self._labels)} labels; {endpoint} takes a model with one score", param="url")
        limit = self._texts.limit_tokens(body.truncate_prompt_tokens)
        if isinstance(body, RerankBody):
            return self._texts.pairs([(body.query, document) for document in body.documents], limit, param="documents")
        return self._texts.pairs(body.pairs, limit, param="text_2")


def _job(texts: tuple[Text, ...], finish: Callable[[Rows], Pooled]) -> Job:
    return Job(prompt_tokens=sum(map(len, texts)), max_output_tokens=0, choices=1, work=PooledWork(texts, finish))
