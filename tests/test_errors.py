import pytest

from socksd.codes import ReplyCode
from socksd.errors import (
    AddressError,
    ConfigError,
    LoginFailed,
    Problem,
    ProtocolError,
    Refused,
    SocksdError,
    did_you_mean,
)


def test_a_config_error_tells_every_problem_on_a_line() -> None:
    error = ConfigError([Problem("rule[3].to[1]", "is empty"), Problem("", "no such file")])
    assert str(error) == "rule[3].to[1]: is empty\nno such file"
    assert [problem.path for problem in error.problems] == ["rule[3].to[1]", ""]


def test_a_refusal_keeps_what_the_client_is_told_from_what_the_log_is_told() -> None:
    error = Refused(ReplyCode.HOST_UNREACHABLE, "no such name")
    assert (error.reply, error.reason) == (ReplyCode.HOST_UNREACHABLE, "no such name")
    assert str(error) == "HOST_UNREACHABLE: no such name"


def test_a_protocol_error_has_no_answer_unless_given() -> None:
    error = ProtocolError("VER is 4")
    assert (str(error), error.reply, error.answer) == ("VER is 4", None, b"")


def test_a_failed_login_has_its_reason() -> None:
    assert LoginFailed("unknown user").reason == "unknown user"


@pytest.mark.parametrize("kind", [AddressError, ConfigError, LoginFailed, ProtocolError, Refused])
def test_all_that_is_raised_on_purpose_is_of_one_kind(kind: type[Exception]) -> None:
    assert issubclass(kind, SocksdError)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        pytest.param("conect", "; did you mean 'connect'?", id="near"),
        pytest.param("xyzzy", "", id="nothing like it"),
    ],
)
def test_the_nearest_known_word_is_suggested(word: str, hint: str) -> None:
    assert did_you_mean(word, {"connect", "bind"}) == hint
