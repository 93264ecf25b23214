"""Settings: where they come from, and what refuses to start."""

import pytest

from pipeline.cli.effective import effective
from pipeline.settings import SHIPPED, BadConfiguration, TransportKind, load
from schemas.limits import Limits


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch):
    """The machine's own environment has no say."""
    import os

    for name in list(os.environ):
        if name.startswith("PENSTOCK_"):
            monkeypatch.delenv(name)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    """The order of precedence, group by group, name by name."""
    file = tmp_path / "penstock.toml"
    file.write_text('[kafka]\ngroup_id = "file"\ntopic_prefix = "file"\nbootstrap_servers = "file:1"\n[http]\nport = 1\n')
    monkeypatch.setenv("PENSTOCK_KAFKA__GROUP_ID", "environment")
    monkeypatch.setenv("PENSTOCK_KAFKA__TOPIC_PREFIX", "environment")
    settings = load({"kafka": {"topic_prefix": "flag", "bootstrap_servers": None}, "http": None}, file)
    assert settings.kafka.topic_prefix == "flag"
    assert settings.kafka.group_id == "environment"
    assert settings.kafka.bootstrap_servers == "file:1"
    assert settings.http.port == 1
    assert settings.transport is TransportKind.KAFKA


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PENSTOCK_KAFKA__SESSION_TIMEOUT_MS", "soon"),
        ("PENSTOCK_KAFKA__TOPIC_PREFIX", "no spaces"),
        ("PENSTOCK_ENGINE__MAX_SEQUENCES", "0"),
        ("PENSTOCK_TRANSPORT", "carrier-pigeon"),
        ("PENSTOCK_KAFKA__BOGUS", "1"),
        ("PENSTOCK_BOGUS", "1"),
        ("PENSTOCK_KAFKA__SASL_MECHANISM", "PLAIN"),
        ("PENSTOCK_RATE_LIMITS__REQUESTS_PER_MINUTE", "0"),
        ("PENSTOCK_RATE_LIMITS__REDIS_URL", "http://somewhere"),
        ("PENSTOCK_ADMISSION__OVERFLOW", "hope"),
        ("PENSTOCK_RESPONSE_CACHE__MAX_MIB", "-1"),
        ("PENSTOCK_KAFKA__SECURITY_PROTOCOL", "SASL_SSL"),
        ("PENSTOCK_KAFKA__SSL_CERTFILE", "/tmp/cert.pem"),
    ],
)
def test_a_wrong_setting_refuses_to_start_and_is_named(monkeypatch, name, value):
    """A wrong value, an unknown name or half of a pair: the message says which setting it is."""
    monkeypatch.setenv(name, value)
    with pytest.raises(BadConfiguration, match=name.split("__")[0].removeprefix("PENSTOCK_")) as caught:
        load()
    assert name.rpartition("__")[2].removeprefix("PENSTOCK_").lower() in str(caught.value).lower()


@pytest.mark.parametrize("text", ["not toml at all [", "[kafka]\nunknown = 1\n"])
def test_a_bad_file_refuses_to_start(tmp_path, text):
    """A file that is not TOML, or names what does not exist, is refused."""
    file = tmp_path / "penstock.toml"
    file.write_text(text)
    with pytest.raises(BadConfiguration, match=r"TOML|unknown"):
        load(config=file)


def test_a_missing_file_refuses_to_start(tmp_path):
    """A file that was asked for has to be there."""
    with pytest.raises(BadConfiguration, match=r"absent\.toml"):
        load(config=tmp_path / "absent.toml")


def test_two_models_of_one_name_are_refused():
    """A request could not say which it means."""
    with pytest.raises(BadConfiguration, match="share the name a"):
        load({"models": [{"name": "a", "source": "x"}, {"name": "a", "source": "y"}]})


def test_secrets_do_not_show():
    """A password is masked wherever the settings are printed."""
    settings = load({"kafka": {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "hunter2"}})
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()


def test_rates_come_by_tenant_and_the_stores_password_is_not_shown(monkeypatch):
    """A tenant's own entry stands beside the default's, from the environment too."""
    monkeypatch.setenv("PENSTOCK_RATE_LIMITS__REQUESTS_PER_MINUTE", "100")
    monkeypatch.setenv("PENSTOCK_RATE_LIMITS__TENANTS", '{"a": {"tokens_per_minute": 5000}}')
    monkeypatch.setenv("PENSTOCK_RATE_LIMITS__REDIS_URL", "redis://:hunter2@redis:6379/0")
    limits = load().rate_limits
    assert (limits.requests_per_minute, limits.tenants["a"].tokens_per_minute, limits.tenants["a"].requests_per_minute) == (100, 5000, None)
    assert "hunter2" not in repr(limits)


def test_without_models_the_shipped_one_is_served():
    """Whoever names models gets these alone."""
    assert load().served_models == (SHIPPED,)
    assert [model.name for model in load({"models": [{"name": "a", "source": "x"}]}).served_models] == ["a"]


def test_the_bounds_on_records_are_the_wires_own_unless_set():
    """One default, wherever a record is read."""
    assert load().limits.records == Limits()
    assert load({"limits": {"record_headers": 5}}).limits.records == Limits(headers=5)


def test_every_setting_says_what_it_is():
    """`penstock config show` has nothing else to tell it by."""
    assert [setting.path for setting in effective(load(), {}, None) if not setting.about] == []
