"""Options: who wins, what is refused and how it is said, and documents that follow the table."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.config import Config
from engine.config_load import load_config
from engine.errors import ConfigInvalid
from engine.option_docs import add_arguments, example_toml, option_rows, readme_table
from engine.option_words import env_of, flag_of

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No config.toml and no folders of the developer's take part."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)


def _toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "options.toml"
    path.write_text(text)
    return path


def _refused(cli=None, env=None, toml=None) -> str:
    with pytest.raises(ConfigInvalid) as error:
        load_config(cli, env or {}, toml)
    return error.value.message


def test_flag_beats_environment_beats_file_beats_default(tmp_path):
    file = _toml(tmp_path, "port = 1\nvoice_rate = 100\nmax_queue = 2\n")
    config = load_config({"port": 3, "host": None}, {"VISAVIS_PORT": "2", "VISAVIS_VOICE_RATE": "90"}, file)
    assert (config.port, config.voice_rate, config.max_queue, config.host) == (3, 90, 2, "127.0.0.1")


def test_the_file_is_found_by_flag_environment_or_in_the_working_directory(tmp_path):
    _toml(tmp_path, "port = 11\n")
    assert load_config({"config": "options.toml"}, {}).port == 11
    assert load_config({}, {"VISAVIS_CONFIG": "options.toml"}).port == 11
    assert load_config({}, {}).port == 8080
    (tmp_path / "config.toml").write_text("port = 12\n")
    assert load_config({}, {}).port == 12


def test_defaults_serve_this_machine_only_and_need_nothing_else():
    config = load_config({}, {})
    assert config.host == "127.0.0.1" and config.ice_servers == () and config.allowed_origins == ()
    assert config.avatars_dir == REPOSITORY / "avatars"
    assert config.render_threads >= 1 and config.max_sessions == 0


def test_a_config_never_changes():
    with pytest.raises(ValidationError):
        load_config({}, {}).port = 1


@pytest.mark.parametrize(
    "cli,env,toml,expected",
    [
        ({"port": "no"}, {}, "", "flag --port: 'no' cannot be used; allowed: a whole number from 1 to 65535."),
        ({}, {"VISAVIS_PORT": "70000"}, "", "environment variable VISAVIS_PORT: '70000' cannot be used"),
        ({}, {}, "port = 0", "options.toml: port: 0 cannot be used"),
        ({}, {}, "port = true", "options.toml: port: True cannot be used"),
        ({}, {}, "host = 5", "options.toml: host: 5 cannot be used"),
        ({}, {}, "max_session_s = nan", "max_session_s: nan cannot be used"),
        ({}, {"VISAVIS_MAX_SESSION_S": "inf"}, "", "'inf' cannot be used; allowed: a number from 10 to 604800."),
        ({"video_codec": "av1"}, {}, "", "one of auto, h264, vp8"),
        ({"render_threads": "0"}, {}, "", "auto or a whole number from 1 to 256"),
        ({"avatar": "../secret"}, {}, "", "a name of small letters"),
        ({"allowed_origins": "https://a.org/path"}, {}, "", "a list of origins"),
        ({"ice_servers": "http://x"}, {}, "", "a list of stun: and turn: URLs"),
        ({"weights_mirrors": "ftp://x"}, {}, "", "a list of http: and https: URLs"),
        ({"quality": "6"}, {}, "", "one of auto, 0, 1, 2, 3, 4, 5"),
        ({}, {}, "quality = true", "one of auto, 0, 1, 2, 3, 4, 5"),
        ({"precision": "f16"}, {}, "", "one of auto, f32, bf16, int8"),
        ({"ice_servers": '[{"urls": '}, {}, "", "a list of stun: and turn: URLs"),
        ({"publish": "ftp://x"}, {}, "", "NAME=URL, with URLs of WHIP or RTMP"),
        ({"publish": "a=rtmp://x:99999/live/k"}, {}, "", "NAME=URL"),
        ({"publish": "a=rtmp://x/live/k,a=http://x"}, {}, "", "NAME=URL"),
    ],
)
def test_a_bad_value_is_named_with_its_source_and_what_is_allowed(tmp_path, cli, env, toml, expected):
    assert expected in _refused(cli, env, _toml(tmp_path, toml))


def test_all_bad_values_are_told_at_once():
    message = _refused({"port": "x"}, {"VISAVIS_MAX_QUEUE": "0", "VISAVIS_LOG_LEVEL": "loud"})
    assert len(message.splitlines()) == 3


def test_a_password_is_never_repeated():
    server = '[{"urls": "turn:x", "username": "me", "credential": "hush", "oops": 1}]'
    assert "hush" not in _refused({"ice_servers": server})
    good = load_config({"ice_servers": server.replace(', "oops": 1', "")}, {})
    assert "hush" not in repr(good)
    assert good.ice_servers[0].to_dict() == {"urls": "turn:x", "username": "me", "credential": "hush"}


def test_a_target_has_a_name_and_never_shows_where_it_is():
    config = load_config({"publish": "tube=rtmp://live.example/app/hush, sfu=https://sfu.example/whip"}, {})
    assert [target.name for target in config.publish] == ["tube", "sfu"]
    table = '[{"name": "sfu", "url": "https://sfu.example/hush", "token": "quiet"}]'
    for told in (repr(config), repr(load_config({"publish": table}, {})), _refused({"publish": table[:-1]})):
        assert "hush" not in told and "quiet" not in told
    assert load_config({"publish": table}, {}).publish[0].token == "quiet"


def test_an_unknown_key_is_refused_with_a_guess(tmp_path):
    assert "prot is no option. Did you mean port?" in _refused(toml=_toml(tmp_path, "prot = 1"))


def test_an_unknown_variable_is_ignored_with_a_warning_and_a_guess():
    said: list[str] = []
    load_config({}, {"VISAVIS_PROT": "1", "VISAVIS_SHARED": "/x", "HOME": "/"}, warn=said.append)
    assert said == ["Environment variable VISAVIS_PROT is no option and is ignored. Did you mean VISAVIS_PORT?"]


def test_an_empty_variable_counts_as_unset():
    assert load_config({}, {"VISAVIS_PORT": " "}).port == 8080


@pytest.mark.parametrize("content", ["port = ", "\xff"])
def test_a_broken_file_is_an_error(tmp_path, content):
    path = tmp_path / "options.toml"
    path.write_bytes(content.encode("latin-1"))
    assert "no valid TOML" in _refused(toml=path)


def test_a_missing_file_is_an_error():
    assert "Cannot read the options in nowhere.toml: No such file" in _refused(toml="nowhere.toml")


def test_lists_come_from_text_with_commas_or_json():
    config = load_config({"allowed_origins": "https://a.org, http://b:80"}, {"VISAVIS_ICE_SERVERS": '["stun:a"]'})
    assert config.allowed_origins == ("https://a.org", "http://b:80")
    assert [server.to_dict() for server in config.ice_servers] == [{"urls": "stun:a"}]


def test_a_folder_in_a_file_counts_from_the_file(tmp_path):
    config = load_config({}, {}, _toml(tmp_path, 'avatars_dir = "mine"\nweights_dir = "w"'))
    assert (config.avatars_dir, config.weights_dir) == (tmp_path / "mine", tmp_path / "w")


def test_weights_are_where_the_desktop_specification_puts_data(tmp_path, monkeypatch):
    assert load_config({}, {}).weights_dir == Path.home() / ".local/share/visavis/weights"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load_config({}, {}).weights_dir == tmp_path / "visavis" / "weights"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert load_config({}, {}).weights_dir == Path.home() / ".local/share/visavis/weights"
    assert load_config({}, {"VISAVIS_WEIGHTS_DIR": "~/w"}).weights_dir == Path.home() / "w"


def test_quality_is_a_level_or_auto_wherever_it_comes_from(tmp_path):
    assert load_config({}, {}).quality == "auto"
    assert load_config({"quality": "4"}, {}).quality == 4
    assert load_config({}, {"VISAVIS_QUALITY": "auto"}, _toml(tmp_path, "quality = 2")).quality == "auto"
    assert load_config({}, {}, _toml(tmp_path, "quality = 2")).quality == 2


def test_auto_can_be_asked_for_by_name():
    assert load_config({"render_threads": "auto", "max_sessions": "7"}, {}).max_sessions == 7


def test_flags_reach_the_config_through_argparse():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--port", "99", "--max-audio-mb", "5"])
    config = load_config(vars(args), {})
    assert (config.port, config.max_audio_mb) == (99, 5)
    assert load_config(vars(parser.parse_args([])), {}) == load_config({}, {})
    for row in option_rows():
        assert row.flag in parser.format_help()


def test_a_command_may_take_some_options_only():
    parser = argparse.ArgumentParser()
    add_arguments(parser, ["avatars_dir"])
    assert "--avatars-dir" in parser.format_help() and "--port" not in parser.format_help()


def test_the_example_file_follows_the_table():
    assert (REPOSITORY / "config.example.toml").read_text() == example_toml(), (
        "config.example.toml is out of step: python -c 'from engine.option_docs import example_toml; "
        "print(example_toml(), end=\"\")' > config.example.toml"
    )


def test_the_example_file_uncommented_is_the_default(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    lines = [line[1:] if line.startswith("#") and not line.startswith("# ") else line
             for line in example_toml().splitlines()]
    text = "\n".join(lines)
    assert len(tomllib.loads(text)) == len(Config.model_fields)
    config = load_config({}, {}, _toml(tmp_path, text))
    assert config.model_copy(update={"avatars_dir": REPOSITORY / "avatars"}) == load_config({}, {})


def test_the_default_rate_is_that_of_the_built_in_voice():
    from engine.conversation.tts.espeak import DEFAULT_RATE_WPM

    assert load_config({}, {}).voice_rate == DEFAULT_RATE_WPM


def test_every_option_is_documented():
    for row in option_rows():
        assert row.help.endswith(".") and row.allowed and row.group
        assert row.flag == flag_of(row.name) and row.env == env_of(row.name)
        assert f"| `{row.flag}` | `{row.env}` |" in readme_table()
    assert str(REPOSITORY) not in example_toml() + readme_table()
