from schemas import errors
from schemas.errors import BY_CODE, PenstockError
from schemas.record import Origin
from schemas.topics import Topics

CODES = (
    "invalid_json invalid_request unknown_url unsupported_field prompt_too_long invalid_token unknown_model unauthorized_reply_topic "
    "record_too_large rate_limited overloaded deadline_exceeded cancelled duplicate_request engine_error internal_error batch_expired"
)


def test_the_tree_has_the_contracts_codes_and_no_other():
    """One class per code, so that a code names its class."""
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, PenstockError)]
    assert sorted(BY_CODE) == sorted(CODES.split())
    assert sorted(cls.code for cls in classes) == sorted(CODES.split())
    assert all(BY_CODE[cls.code] is cls for cls in classes)


def test_types_are_openais_and_retries_fit_them():
    """The requester's faults never pass on a second try; the others may. The HTTP status says the same."""
    for cls in BY_CODE.values():
        assert cls.type in {"invalid_request_error", "rate_limit_error", "server_error"}
        assert cls.retryable is (cls.type != "invalid_request_error")
        assert (400 <= cls.status < 500) is (cls.type != "server_error")


def test_topics_stand_under_their_prefix():
    """As the contract names them, and `all` forgets none."""
    assert Topics().all == ("penstock.requests", "penstock.chunks", "penstock.results", "penstock.control", "penstock.dlq")
    assert Topics("x").requests == "x.requests"


def test_an_origin_spells_its_row_where_it_has_one():
    """The wire's spelling."""
    assert (str(Origin("t", 3, 9)), str(Origin("t", 3, 9, 0))) == ("t/3/9", "t/3/9/0")
