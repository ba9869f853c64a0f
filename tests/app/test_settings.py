"""Settings: where values come from, and that nothing wrong is taken silently."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.app import settings as settings_module
from astcredit.app.setting_kinds import HostPort, has_secret, hide_secrets
from astcredit.app.settings import SETTINGS, Settings, SettingsError, describe, load
from astcredit.app.settings_page import settings_page
from astcredit.service.errors import RefusedError
from support.project import ROOT

SECRET = "hush-hush"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The two places where a file is looked for, in a folder of the test's own."""
    found = (tmp_path / "here.toml", tmp_path / "etc.toml")
    monkeypatch.setattr(settings_module, "CONFIG_PLACES", found)
    return found


def write(path: Path, text: str, mode: int = 0o640) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(text: str, tmp_path: Path, mode: int = 0o640) -> str:
    """The error for a file with this text, without the file's own name."""
    path = write(tmp_path / "x.toml", text, mode)
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert isinstance(caught.value, RefusedError)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


class TestWhereValuesComeFrom:
    def test_nothing_configured_gives_the_defaults(self) -> None:
        loaded = load()
        assert loaded == Settings()
        assert loaded.config_path is None
        assert loaded.fastagi.listen == HostPort("127.0.0.1", 4573)
        assert loaded.fastagi.allow == (ip_network("127.0.0.0/8"), ip_network("::1"))
        assert loaded.metrics.listen == HostPort("127.0.0.1", 9573)
        assert loaded.ami.nodes == ()
        assert loaded.call.max_seconds == 3600
        assert loaded.call.denied_cdr is True

    def test_command_line_before_environment_before_file_before_default(
        self, tmp_path: Path
    ) -> None:
        path = write(tmp_path / "a.toml", '[database]\nurl = "sqlite:///file"\n')
        environ = {"ASTCREDIT_DATABASE_URL": "sqlite:///environment"}
        overrides = {"database.url": "sqlite:///line"}
        assert load(path).database.url == "sqlite:///file"
        assert load(path, environ).database.url == "sqlite:///environment"
        assert load(path, environ, overrides).database.url == "sqlite:///line"
        assert load(path, {}, overrides).database.url == "sqlite:///line"

    def test_settings_of_one_section_may_come_from_different_places(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.toml", "[call]\nmax_seconds = 10\nwarn_seconds = 20\n")
        call = load(path, {"ASTCREDIT_CALL_WARN_SECONDS": "5"}).call
        assert (call.max_seconds, call.warn_seconds, call.warn_repeat_seconds) == (10, 5, 30)

    def test_first_named_then_variable_then_here_then_etc(
        self, tmp_path: Path, places: tuple[Path, Path]
    ) -> None:
        named, variable = tmp_path / "named.toml", tmp_path / "variable.toml"
        for path in (named, variable, *places):
            write(path, "")
        environ = {"ASTCREDIT_CONFIG": str(variable)}
        assert load(named, environ).config_path == named
        assert load(None, environ).config_path == variable
        assert load(None, {"ASTCREDIT_CONFIG": ""}).config_path == places[0]
        places[0].unlink()
        assert load().config_path == places[1]

    def test_the_real_places(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        assert [str(place) for place in settings_module.CONFIG_PLACES] == [
            "astcredit.toml",
            "/etc/astcredit/astcredit.toml",
        ]

    @pytest.mark.parametrize("how", ["argument", "variable"])
    def test_a_file_that_somebody_named_must_be_there(
        self, how: str, tmp_path: Path, places: tuple[Path, Path]
    ) -> None:
        write(places[0], "")
        missing = tmp_path / "missing.toml"
        argument = missing if how == "argument" else None
        environ = {"ASTCREDIT_CONFIG": str(missing)} if how == "variable" else {}
        with pytest.raises(SettingsError, match=r"missing\.toml: there is no such"):
            load(argument, environ)

    def test_a_file_found_that_cannot_be_read_is_an_error(self, places: tuple[Path, Path]) -> None:
        places[0].mkdir()
        with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
            load()


class TestValues:
    @pytest.mark.parametrize(
        ("name", "toml", "text", "value"),
        [
            ("call.max_seconds", "7200", "7200", 7200),
            ("call.denied_cdr", "false", "no", False),
            ("call.emergency_numbers", '["112", "999"]', "112, 999", ("112", "999")),
            ("call.emergency_numbers", "[]", "", ()),
            ("numbers.trunk_prefix", '""', "", ""),
            ("numbers.country_code", '"44"', "44", "44"),
            ("metrics.listen", '""', "", None),
            ("metrics.listen", '"[::1]:1"', "[::1]:1", HostPort("::1", 1)),
            ("fastagi.listen", '"0.0.0.0:0"', "0.0.0.0:0", HostPort("0.0.0.0", 0)),
            ("fastagi.allow", '["10.0.0.0/8"]', "10.0.0.0/8", (ip_network("10.0.0.0/8"),)),
            ("log.level", '"DEBUG"', "DEBUG", "debug"),
            ("ami.nodes", '["ami://a:b@c:1/d"]', "ami://a:b@c:1/d", ("ami://a:b@c:1/d",)),
        ],
    )
    def test_file_and_environment_say_the_same(
        self, name: str, toml: str, text: str, value: object, tmp_path: Path
    ) -> None:
        section, key = name.split(".")
        path = write(tmp_path / "a.toml", f"[{section}]\n{key} = {toml}\n")
        variable = f"ASTCREDIT_{section}_{key}".upper()
        for loaded in (load(path), load(None, {variable: text}), load(None, {}, {name: text})):
            assert getattr(getattr(loaded, section), key) == value

    @pytest.mark.parametrize(
        ("name", "bad"),
        [
            ("call.max_seconds", ["", "0", "-1", "1.5", "1e3", "86401", "٣", "60s", "0x10"]),
            ("call.denied_cdr", ["", "maybe", "2"]),
            ("call.emergency_numbers", ["112;911", "+112", "1" * 16]),
            ("numbers.country_code", ["+44", "1234"]),
            ("fastagi.listen", ["", "4573", "127.0.0.1", "h:65536", "::1:4573", "h:1 h:2"]),
            ("fastagi.allow", ["10.0.0.1/8", "localhost", "10.0.0.0/33"]),
            ("ami.nodes", ["127.0.0.1:5038", "http://a:b@c/d"]),
            ("database.url", ["", "sqlite://", "sqlite:///", "mysql://host", "postgres://h/n"]),
            ("log.format", ["xml"]),
        ],
    )
    def test_a_bad_value_is_refused_by_name_and_expectation(
        self, name: str, bad: list[str]
    ) -> None:
        setting = next(setting for setting in SETTINGS if setting.name == name)
        for text in bad:
            with pytest.raises(SettingsError) as caught:
                load(None, {setting.variable: text})
            said = str(caught.value)
            assert said.startswith(f"{name} from the environment ({setting.variable}): ")
            assert f"expected {setting.kind.expects}" in said

    @pytest.mark.parametrize(
        ("toml", "said"),
        [
            (
                "[call]\nmax_seconds = true\n",
                "call.max_seconds from FILE: 'True': expected a whole",
            ),
            ('[call]\nmax_seconds = "x\\u001b[2J"\n', r"from FILE: 'x\x1b[2J': expected a whole"),
            ("[call]\nmax_seconds = 1.5\n", "(s)"),
            ("[call]\nemergency_numbers = [112]\n", "'[112]': expected numbers of 1 to 15 digits"),
            ("[numbers]\ntrunk_prefix = 0\n", "'0': expected up to 8 digits in quotes"),
            ("[log]\nlevel = 1979-05-27\n", "expected one of debug, info, warning, error"),
            (
                "[call]\nmax_second = 1\n",
                "'call.max_second': there is no such setting; the nearest",
            ),
            (
                "[calls]\nmax_seconds = 1\n",
                "'calls': there is no such section; the nearest is call",
            ),
            ("max_seconds = 1\n", "'max_seconds': there is no such section"),
            ("call = 1\n", "FILE: call: expected a table, [call]"),
            ("[call\n", "FILE: not TOML: "),
        ],
    )
    def test_errors_of_a_file_name_it(self, toml: str, said: str, tmp_path: Path) -> None:
        assert said in refused(toml, tmp_path)

    def test_a_file_that_is_not_text(self, tmp_path: Path) -> None:
        path = tmp_path / "x.toml"
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(SettingsError, match="not UTF-8"):
            load(path)

    def test_a_misspelt_variable_is_refused_and_the_nearest_named(self) -> None:
        with pytest.raises(SettingsError) as caught:
            load(None, {"ASTCREDIT_CALL_MAXSECONDS": "5"})
        assert str(caught.value).endswith(
            "no such setting; the nearest is ASTCREDIT_CALL_MAX_SECONDS"
        )

    def test_other_variables_are_nobodys_business(self) -> None:
        environ = {"PATH": "/bin", "_ASTCREDIT_COMPLETE": "bash_source", "ASTCREDIT_LAB_DIR": "/x"}
        assert load(None, environ) == Settings()


class TestSecrets:
    URL = f"mysql://u:{SECRET}@h:3306/n"
    AMI = f"ami://u:{SECRET}@h:5038/n"

    def test_secrets_are_in_the_value_and_nowhere_else(self) -> None:
        loaded = load(
            None,
            {"ASTCREDIT_DATABASE_URL": self.URL, "ASTCREDIT_AMI_NODES": f"{self.AMI},{self.AMI}"},
        )
        assert loaded.database.url == self.URL
        assert loaded.ami.nodes == (self.AMI, self.AMI)
        assert SECRET not in repr(loaded) + str(loaded) + repr(describe(loaded))
        rows = {row.name: row for row in describe(loaded)}
        assert rows["database.url"].value == "mysql://u:***@h:3306/n"
        assert rows["ami.nodes"].value == "ami://u:***@h:5038/n,ami://u:***@h:5038/n"
        assert rows["ami.nodes"].origin == "the environment (ASTCREDIT_AMI_NODES)"

    @pytest.mark.parametrize("variable", ["ASTCREDIT_DATABASE_URL", "ASTCREDIT_AMI_NODES"])
    def test_an_error_does_not_show_them(self, variable: str) -> None:
        with pytest.raises(SettingsError) as caught:
            load(None, {variable: f"htp://u:{SECRET}@h"})
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None

    @pytest.mark.parametrize("mode", [0o644, 0o604, 0o642, 0o666])
    @pytest.mark.parametrize(
        "text", [f'[database]\nurl = "{URL}"\n', f'[ami]\nnodes = ["{AMI}"]\n']
    )
    def test_a_file_with_secrets_is_not_for_everybody(
        self, text: str, mode: int, tmp_path: Path
    ) -> None:
        said = refused(text, tmp_path, mode)
        assert said.endswith("chmod 640 FILE")
        assert SECRET not in said

    @pytest.mark.parametrize("mode", [0o640, 0o600, 0o400, 0o660])
    def test_owner_and_group_may_read_it(self, mode: int, tmp_path: Path) -> None:
        path = write(tmp_path / "x.toml", f'[database]\nurl = "{self.URL}"\n', mode)
        assert load(path).database.url == self.URL

    @pytest.mark.parametrize(
        "text", ["[call]\nmax_seconds = 5\n", '[database]\nurl = "mysql://u@h/n"\n']
    )
    def test_a_file_without_secrets_may_be_public(self, text: str, tmp_path: Path) -> None:
        assert load(write(tmp_path / "x.toml", text, 0o644)).config_path is not None

    @given(password=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
    def test_any_password_is_hidden_whole(self, password: str) -> None:
        url = f"mysql://user:{password}@host:1/name"
        assert hide_secrets(url) == "mysql://user:***@host:1/name"
        assert has_secret(url) is (password != "***")

    @pytest.mark.parametrize("url", ["sqlite:///a@b", "mysql://h:3306/n", "mysql://u@h/n", ""])
    def test_a_url_without_a_password_stays(self, url: str) -> None:
        assert hide_secrets(url) == url


class TestTheList:
    def test_each_default_is_what_its_text_says(self) -> None:
        defaults = Settings()
        for setting in SETTINGS:
            value = getattr(getattr(defaults, setting.section), setting.key)
            assert setting.kind.parse(setting.default) == value
            assert setting.help
            assert load(None, {setting.variable: setting.shown(value)}) == defaults

    def test_every_field_is_in_the_list_once(self) -> None:
        defaults = Settings()
        in_classes = [
            f"{section.name}.{item.name}"
            for section in dataclasses.fields(defaults)
            if dataclasses.is_dataclass(part := getattr(defaults, section.name))
            for item in dataclasses.fields(part)
        ]
        assert [setting.name for setting in SETTINGS] == in_classes
        assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)

    def test_the_contract_s_variables_are_there(self) -> None:
        names = (
            "DATABASE_URL FASTAGI_LISTEN FASTAGI_ALLOW AMI_NODES METRICS_LISTEN CALL_MAX_SECONDS"
        )
        wanted = {f"ASTCREDIT_{name}" for name in names.split()}
        assert wanted <= {setting.variable for setting in SETTINGS}

    def test_the_manual_s_page_is_current(self) -> None:
        assert (ROOT / "docs" / "SETTINGS.md").read_text() == settings_page(), (
            'make it anew: python -c "from pathlib import Path; '
            "from astcredit.app.settings_page import settings_page; "
            "Path('docs/SETTINGS.md').write_text(settings_page())\""
        )
