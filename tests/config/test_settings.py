from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from handrail.config.settings import AgentCeilings, Ceilings, PriceOverride, Settings, WorkerSettings
from handrail.config.sources import load_settings
from handrail.kernel.errors import BadSettings


def load(folder: Path, toml: str | bytes = "", env: dict[str, str] | None = None, **arguments: Any) -> Settings:
    (folder / "handrail.toml").write_bytes(toml.encode() if isinstance(toml, str) else toml)
    return load_settings(folder, env or {}, **arguments)


def refusal(folder: Path, toml: str | bytes = "", env: dict[str, str] | None = None, **arguments: Any) -> str:
    with pytest.raises(BadSettings) as caught:
        load(folder, toml, env, **arguments)
    return str(caught.value)


def test_defaults(tmp_path: Path) -> None:
    """Without a file and variables the defaults apply, and paths are relative to the current folder."""
    assert load_settings(tmp_path, {}) == Settings(base=tmp_path)


def test_sources_in_order(tmp_path: Path) -> None:
    """An argument comes before a variable, a variable before the file."""
    toml = 'store = "file.db"\nmodel = "file"\ncache = "/cache"'
    settings = load(tmp_path, toml, {"HANDRAIL_STORE": "env.db", "HANDRAIL_MODEL": "env"}, store="argument.db")
    assert (settings.store, settings.model, settings.cache) == ("argument.db", "env", Path("/cache"))


def test_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no environment and directory given, those of the process are used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HANDRAIL_MODEL", "env")
    assert load_settings().model == "env"
    assert load_settings().base == tmp_path


def test_variables_set_entries_of_tables(tmp_path: Path) -> None:
    """A variable with two underscores changes one entry of a table and leaves the others."""
    toml = '[agents]\na = "m:a"\n[prices.big]\ninput = 3.10\noutput = 15\n'
    settings = load(tmp_path, toml, {"HANDRAIL_AGENTS__B": "m:b", "HANDRAIL_PRICES__BIG__OUTPUT": "16.5"})
    assert settings.agents == {"a": "m:a", "b": "m:b"}
    assert settings.prices == {"big": PriceOverride(input=Decimal("3.10"), output=Decimal("16.5"))}


def test_an_empty_variable_is_ignored(tmp_path: Path) -> None:
    """An empty variable counts as unset."""
    assert load(tmp_path, 'model = "file"', {"HANDRAIL_MODEL": ""}).model == "file"


def test_config_variable_names_the_file(tmp_path: Path) -> None:
    """HANDRAIL_CONFIG is relative to the current folder, and the file's own folder becomes the base."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "shop.toml").write_text('weights = "m.gguf"')
    settings = load_settings(tmp_path, {"HANDRAIL_CONFIG": "etc/shop.toml"})
    assert settings.base == tmp_path / "etc"
    assert settings.weights == tmp_path / "etc" / "m.gguf"


def test_config_variable_that_names_a_missing_file(tmp_path: Path) -> None:
    """A missing file that HANDRAIL_CONFIG names is an error, not the defaults."""
    with pytest.raises(BadSettings, match=r"HANDRAIL_CONFIG names .*none\.toml"):
        load_settings(tmp_path, {"HANDRAIL_CONFIG": "none.toml"})


def test_home_is_expanded(tmp_path: Path) -> None:
    """A tilde at the start of a path becomes the user's home."""
    assert load(tmp_path, 'cache = "~/c"').cache == Path.home() / "c"


def test_unknown_key(tmp_path: Path) -> None:
    """An unknown key is named with its file and its nearest match."""
    message = refusal(tmp_path, 'stor = "x.db"')
    assert message == f"{tmp_path / 'handrail.toml'}: stor is not a setting; did you mean store?"


def test_unknown_key_of_a_price(tmp_path: Path) -> None:
    """An unknown key inside a table is named with its whole path."""
    message = refusal(tmp_path, "[prices.big]\ninput = 1\noutput = 2\ncash_read = 3")
    assert message.endswith("handrail.toml: prices.big.cash_read: unknown; did you mean cache_read?")


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("HANDRAIL_STOER", "did you mean HANDRAIL_STORE?"),
        ("HANDRAIL_STORE__PATH", "did you mean HANDRAIL_STORE?"),
        ("HANDRAIL_QQQ", "there are HANDRAIL_AGENTS, HANDRAIL_CACHE,"),
        ("HANDRAIL_BASE", "is not a setting"),
    ],
)
def test_unknown_variable(tmp_path: Path, variable: str, advice: str) -> None:
    """An unknown HANDRAIL_ variable is an error with its nearest match."""
    message = refusal(tmp_path, env={variable: "x"})
    assert variable in message
    assert advice in message


@pytest.mark.parametrize(
    ("toml", "place"),
    [
        ('model = "a"\nstore = \n', "line 2, column 9"),
        ('model = """a\nb', "line 2, column 2"),
        (b'model = "a"\nstore = "\xff"', "line 2, column 10"),
    ],
)
def test_malformed_file(tmp_path: Path, toml: str | bytes, place: str) -> None:
    """A file that is not TOML, or not UTF-8, is refused with its name, line and column."""
    message = refusal(tmp_path, toml)
    assert str(tmp_path / "handrail.toml") in message
    assert place in message


def test_a_directory_in_place_of_the_file(tmp_path: Path) -> None:
    """A handrail.toml that cannot be read is an error, not the defaults."""
    (tmp_path / "handrail.toml").mkdir()
    with pytest.raises(BadSettings, match="cannot be read"):
        load_settings(tmp_path, {})


def test_byte_order_mark(tmp_path: Path) -> None:
    """A file that starts with a byte order mark is read like any other."""
    assert load(tmp_path, b'\xef\xbb\xbfmodel = "a"').model == "a"


def test_every_problem_in_one_message(tmp_path: Path) -> None:
    """All problems are reported at once, each with the name that its author wrote."""
    toml = 'modl = "a"\nstore = 5\n[prices.big]\ninput = -1'
    lines = refusal(tmp_path, toml, {"HANDRAIL_AGENTS__T": "shop", "HANDRAIL_WEIGTHS": "1"}, cache=5).splitlines()
    file = tmp_path / "handrail.toml"
    assert sorted(lines) == sorted(
        [
            f"{file}: modl is not a setting; did you mean model?",
            "HANDRAIL_WEIGTHS is not a setting; did you mean HANDRAIL_WEIGHTS?",
            f"{file}: store: expected a valid string",
            f"{file}: prices.big.input: expected greater than or equal to 0",
            f"{file}: prices.big.output: this key is required",
            "HANDRAIL_AGENTS__T: expected module:attribute, such as shop.agents:support",
            "argument cache: expected a path",
        ]
    )


@pytest.mark.parametrize("target", ["shop", "shop:", ":agent", "shop.agents:a-b", "shop/agents:a", "a:b:c", "1a:b", ""])
def test_shape_of_an_agent(tmp_path: Path, target: str) -> None:
    """An agent is named as module:attribute and nothing else."""
    assert "agents.t: expected module:attribute" in refusal(tmp_path, f'[agents]\nt = "{target}"')


@pytest.mark.parametrize("price", ["nan", "inf", "-0.1"])
def test_price_is_a_number(tmp_path: Path, price: str) -> None:
    """A price is finite and not negative."""
    assert "prices.m.input" in refusal(tmp_path, f"[prices.m]\ninput = {price}\noutput = 1")


def test_variable_that_is_not_json(tmp_path: Path) -> None:
    """A variable that sets a whole table has to be JSON, and the error names the table."""
    assert load(tmp_path, env={"HANDRAIL_AGENTS": '{"a": "m:a"}'}).agents == {"a": "m:a"}
    message = refusal(tmp_path, env={"HANDRAIL_AGENTS": "{secret"})
    assert "agents" in message
    assert "secret" not in message


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    """The store's password is in neither the repr nor an error."""
    store = "postgresql://u:hunter2@db/handrail"
    settings = load(tmp_path, f'store = "{store}"')
    assert settings.store == store
    assert "hunter2" not in repr(settings) + str(settings)
    assert "hunter2" not in refusal(tmp_path, f'store = ["{store}"]', {"HANDRAIL_MODE": "hunter2"})


def test_settings_are_frozen(tmp_path: Path) -> None:
    """Loaded settings cannot be changed."""
    settings = load(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.store = "other.db"  # type: ignore[misc]


def test_ceilings_and_roles_are_tables(tmp_path: Path) -> None:
    """Ceilings come from the file and the environment, each key separately; roles list names."""
    toml = '[ceilings]\nuser_day = 2.50\ntime_zone = "Europe/Berlin"\n[roles]\nsupport-lead = ["mia", "tom"]\n'
    settings = load(tmp_path, toml, {"HANDRAIL_CEILINGS__TENANT_MONTH": "300"})
    assert settings.ceilings == Ceilings(user_day=Decimal("2.50"), tenant_month=Decimal(300), time_zone="Europe/Berlin")
    assert settings.roles == {"support-lead": ("mia", "tom")}


def test_ceilings_of_single_agents(tmp_path: Path) -> None:
    """What cannot be bounded is allowed for agents by name, in the file or the environment, and refused for others."""
    toml = '[ceilings.agents.support]\nunbounded = "allow"\n'
    ceilings = load(tmp_path, toml, {"HANDRAIL_CEILINGS__AGENTS__SEARCH__UNBOUNDED": "allow"}).ceilings
    assert ceilings.agents == {"support": AgentCeilings(unbounded="allow"), "search": AgentCeilings(unbounded="allow")}
    assert AgentCeilings().unbounded == "refuse"


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ('[ceilings.agents.a]\nunbounded = "yes"', "ceilings.agents.a.unbounded: expected 'refuse' or 'allow'"),
        ("[ceilings.agents.a]\nunbound = true", "ceilings.agents.a.unbound: unknown; did you mean unbounded?"),
        ("[ceilings.agents.a]\nqqq = true", "ceilings.agents.a.qqq: unknown; there are unbounded"),
        ('[ceilings.agents]\na = "allow"', "ceilings.agents.a: expected a valid"),
        ('[export]\nendpont = "x"', "export.endpont: unknown; did you mean endpoint?"),
    ],
)
def test_an_invalid_ceiling_of_an_agent_is_named(tmp_path: Path, toml: str, problem: str) -> None:
    """A wrong value or key in a table within a table is named with its whole path and what would be valid."""
    assert problem in refusal(tmp_path, toml)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('time_zone = "Mars/Olympus"', "time zone of the IANA database"),
        ("user_day = -1", "greater than or equal to 0"),
        ("run_input_tokens = 0", "greater than 0"),
        ("user_days = 2", "did you mean user_day"),
    ],
)
def test_an_invalid_ceiling_is_named(tmp_path: Path, line: str, problem: str) -> None:
    """An invalid ceiling is refused with its key and what would be valid."""
    message = refusal(tmp_path, f"[ceilings]\n{line}\n")
    assert "ceilings." in message
    assert problem in message


def test_the_worker_is_a_table(tmp_path: Path) -> None:
    """What `[worker]` leaves out keeps its default; a variable changes one entry."""
    settings = load(tmp_path, "[worker]\nconcurrency = 3", {"HANDRAIL_WORKER__GRACE_SECONDS": "0"})
    assert settings.worker == WorkerSettings(concurrency=3, grace_seconds=0, job_seconds=3_600)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("concurrency = 0", "worker.concurrency: expected greater than 0"),
        ("concurrency = 1.5", "worker.concurrency: expected a valid integer"),
        ("grace_seconds = -1", "worker.grace_seconds: expected greater than or equal to 0"),
        ("grace_seconds = inf", "worker.grace_seconds: expected a finite number"),
        ("job_seconds = 0", "worker.job_seconds: expected greater than 0"),
        ("job_second = 1", "worker.job_second: unknown; did you mean job_seconds or"),
    ],
)
def test_an_invalid_worker_setting_is_named(tmp_path: Path, line: str, problem: str) -> None:
    """A setting of the worker that is not valid is named with what is expected."""
    assert problem in refusal(tmp_path, f"[worker]\n{line}")
