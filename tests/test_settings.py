"""What the configuration may say, and how what it may not is refused."""

import re
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from consumer.errors import ExitCode, SettingsError, quoted
from consumer.settings import (
    Setting,
    Settings,
    all_settings,
    bounds,
    check_names,
    describe,
    load,
    read_secret,
    redact,
    secret_of,
    trust,
)
from tests.bacalhau.servers import certificate

CONFIG = Path(__file__).parents[1] / "config/jobstate.toml"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration file."""

    def write(text: str) -> Path:
        path = tmp_path / "jobstate.toml"
        path.write_text(text)
        return path

    return write


def secret(folder: Path, text: str = "s3cret\n", mode: int = 0o600) -> Path:
    """A file that holds *text*."""
    path = folder / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_nothing_said_is_the_defaults() -> None:
    """No file and no variable: every default, and nothing to warn of."""
    settings = load()
    assert settings == Settings()
    assert settings.nats.url == "nats://127.0.0.1:4222"
    assert settings.warnings == ()


def test_the_commented_file_says_every_default() -> None:
    """config/jobstate.toml has each setting with its default, so copying it changes nothing."""
    assert load(CONFIG) == Settings()
    text = CONFIG.read_text()
    for setting in all_settings():
        if setting.secret:
            assert f"Only as {setting.variable}, never in this file." in text
        else:
            assert re.search(rf"^{setting.key} = ", text, re.MULTILINE), setting.name
        assert describe(setting) in text


def test_every_setting_is_described_and_typed() -> None:
    """Each has a sentence, each number has a bound, and no two share a variable."""
    settings = list(all_settings())
    for setting in settings:
        assert describe(setting).endswith("."), setting.name
        if isinstance(setting.default, int | float) and not isinstance(setting.default, bool):
            assert bounds(setting), setting.name
    assert len({setting.variable for setting in settings}) == len(settings)


def test_the_environment_comes_after_the_file(write: Write) -> None:
    """A variable replaces its own key and leaves the others as the file says."""
    path = write('[http]\nport = 1000\nhost = "::1"\n')
    settings = load(path, {"JOBSTATE_HTTP__PORT": "2000"})
    assert (settings.http.host, settings.http.port) == ("::1", 2000)


def test_the_four_settings_of_a_real_cluster_do(tmp_path: Path) -> None:
    """NATS, Bacalhau's NATS with its token, the orchestrator: nothing else is asked for."""
    settings = load(
        None,
        {
            "JOBSTATE_NATS__URL": "nats://ours:4222",
            "JOBSTATE_BACALHAU__URL": "nats://theirs:4222,nats://theirs-too:4222",
            "JOBSTATE_BACALHAU__TOKEN_FILE": str(secret(tmp_path)),
            "JOBSTATE_ORCHESTRATOR__URL": "http://theirs:1234",
            "JOBSTATE_LOG__LEVEL": "debug",
            "PATH": "/bin",
        },
    )
    assert settings.bacalhau.url == "nats://theirs:4222,nats://theirs-too:4222"
    assert settings.orchestrator.url == "http://theirs:1234"
    assert settings.log.level == "debug"
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("JOBSTATE_BACALHAU__TLS_FIRST", "true", True),
        ("JOBSTATE_SCAN__RATE", "2.5", 2.5),
        ("JOBSTATE_SCAN__LIST", "16", 16.0),
        ("JOBSTATE_SCAN__LIST", "auto", "auto"),
        ("JOBSTATE_SCAN__BACKFILL", "7d", "7d"),
        ("JOBSTATE_CLUSTER", "12", "12"),
        ("JOBSTATE_STREAMS__LOG_MAX_BYTES", "0", 0),
        ("JOBSTATE_NATS__URL", "127.0.0.1:4222", "127.0.0.1:4222"),
    ],
)
def test_a_variable_is_read_as_its_kind(variable: str, text: str, value: object) -> None:
    """Text of a variable becomes the number, word or switch that the setting is."""
    settings = load(None, {variable: text})
    section, _, key = variable.removeprefix("JOBSTATE_").lower().partition("__")
    found = getattr(getattr(settings, section), key) if key else getattr(settings, section)
    assert found == value
    assert type(found) is type(value)


def test_variables_of_a_service_of_our_name_are_not_ours() -> None:
    """Kubernetes sets these for a service called jobstate; a daemon must start beside one."""
    environ = {"JOBSTATE_SERVICE_HOST": "10.0.0.1", "JOBSTATE_PORT_9090_TCP": "tcp://10.0.0.1:9090"}
    assert load(None, environ) == Settings()


@pytest.mark.parametrize(
    ("backfill", "seconds"),
    [("none", 0), ("all", float("inf")), ("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604_800)],
)
def test_backfill_is_an_age(backfill: str, seconds: float) -> None:
    """`backfill` says how far back, in units that a person writes."""
    assert load(None, {"JOBSTATE_SCAN__BACKFILL": backfill}).scan.backfill_s == seconds


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"JOBSTATE_NATS__ULR": "x"}, "environment: JOBSTATE_NATS__ULR: unknown; did you mean JOBSTATE_NATS__URL?"),
        ({"JOBSTATE_NAST__ULR": "x"}, "environment: JOBSTATE_NAST__ULR: unknown; did you mean JOBSTATE_NATS__URL?"),
        ({"JOBSTATE_NATS_URL": "x"}, "did you mean JOBSTATE_NATS__URL (two underscores)?"),
        ({"JOBSTATE_HTTP__PORT": "70000"}, "environment: JOBSTATE_HTTP__PORT: http.port: expected `int` <= 65535"),
        ({"JOBSTATE_HTTP__PORT": "-1"}, "http.port: expected `int` >= 0"),
        ({"JOBSTATE_HTTP__PORT": "any"}, "http.port: expected `int`, got `str`"),
        ({"JOBSTATE_SCAN__RATE": "nan"}, "scan.rate: "),
        ({"JOBSTATE_ORCHESTRATOR__MAX_RATE": "inf"}, "orchestrator.max_rate: "),
        ({"JOBSTATE_LOG__LEVEL": "loud"}, "log.level: is not what it must be: debug, info, warning, error"),
        ({"JOBSTATE_SCAN__LIST": "often"}, "scan.list: is not what it must be: auto, at least 1"),
        ({"JOBSTATE_SCAN__BACKFILL": "7 days"}, "scan.backfill: is not what it must be: Jobs that ended before"),
        ({"JOBSTATE_NATS__URL": "http://x:1"}, "nats.url: is not what it must be: Servers that hold"),
        ({"JOBSTATE_NATS__URL": ""}, "nats.url: expected `str` of length >= 1"),
        ({"JOBSTATE_ORCHESTRATOR__URL": "x:1234"}, "orchestrator.url: is not what it must be: Address of the API"),
        ({"JOBSTATE_CLUSTER": "a.b"}, "cluster: is not what it must be: Name of the Bacalhau cluster"),
        (
            {"JOBSTATE_STREAMS__REPLICAS": "2"},
            "environment: JOBSTATE_STREAMS__REPLICAS: streams.replicas: is 1, 3 or 5: an even number of servers has",
        ),
        (
            {"JOBSTATE_ORCHESTRATOR__USER": "me"},
            "environment: JOBSTATE_ORCHESTRATOR__USER: orchestrator.user: needs a password: give orchestrator.password",
        ),
        (
            {"JOBSTATE_ORCHESTRATOR__PASSWORD": "me"},
            "environment: JOBSTATE_ORCHESTRATOR__PASSWORD: orchestrator.password: needs a user: give orchestrator.user",
        ),
        (
            {"JOBSTATE_NATS__TOKEN_FILE": "/nowhere/token"},
            "nats.token_file: the file /nowhere/token cannot be read (No",
        ),
        ({"JOBSTATE_NATS__TLS_CA": "/nowhere/ca.pem"}, "nats.tls_ca: the file /nowhere/ca.pem is missing"),
        ({"JOBSTATE_NATS__TOKEN_FILE": "a", "JOBSTATE_NATS__CREDENTIALS_FILE": "b"}, "leave one of them out"),
        (
            {
                "JOBSTATE_ORCHESTRATOR__TOKEN_FILE": "a",
                "JOBSTATE_ORCHESTRATOR__USER": "u",
                "JOBSTATE_ORCHESTRATOR__PASSWORD_FILE": "b",
            },
            "orchestrator.token_file: is set together with orchestrator.password_file",
        ),
    ],
)
def test_a_wrong_variable_is_refused(environ: dict[str, str], reason: str) -> None:
    """The error names the variable or the key, and says what would be right."""
    with pytest.raises(SettingsError) as caught:
        load(None, environ)
    assert reason in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[nats]\nulr = 'x'", "unknown key `ulr` in [nats]; did you mean url?"),
        ("[nast]\nurl = 'x'", "unknown section [nast]; did you mean nats?"),
        (
            "colour = 1\n[nats]\nulr = 'x'\n[http]\nport = 9\nservers = 3\n[nast]\nurl = 1",
            "unknown key `colour`; unknown key `ulr` in [nats]; did you mean url?; unknown key `servers` in [http]; un",
        ),
        ("clustr = 'x'", "unknown key `clustr`; did you mean cluster?"),
        ("[http]\nlevel = 'debug'", "unknown key `level` in [http]; did you mean log.level?"),
        ("[nats]\nwarnings = ['x']", "unknown key `warnings`"),
        ("warnings = ['x']", "unknown key `warnings`"),
        ("nats = 3", "nats: is a section"),
        ("[cluster]\nname = 'x'", "unknown section [cluster]"),
        ("[http]\nport = '9'", "http.port: expected `int`, got `str`"),
        ("[http]\nport = {a = 1}", "http.port: expected `int`, got `object`"),
        ("[http]\nport = 65536", "http.port: expected `int` <= 65535"),
        ("[scan]\nrate = nan", "scan.rate: "),
        ("[scan]\nrate = inf", "scan.rate: "),
        ("[log]\nlevel = 3", "log.level: "),
        ("x =", "is not TOML"),
        ("a = 1\na = 2", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused(write: Write, text: str, reason: str) -> None:
    """The error begins with the file and names key and reason."""
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("word", ["servers", "x", "certificate"])
def test_a_far_guess_is_not_made(write: Write, word: str) -> None:
    """`servers` is not a misspelt `user`: of nothing that is near nothing is said, in a file and in a variable."""
    with pytest.raises(SettingsError) as in_file:
        load(write(f"[nats]\n{word} = 1\n"))
    with pytest.raises(SettingsError) as in_variable:
        load(None, {f"JOBSTATE_NATS__{word.upper()}": "1"})
    assert str(in_file.value).endswith(f"unknown key `{word}` in [nats]")
    assert str(in_variable.value) == f"environment: JOBSTATE_NATS__{word.upper()}: unknown"


def test_of_many_unknown_keys_some_are_told(write: Write) -> None:
    """A file that is not ours at all has a bounded error."""
    with pytest.raises(SettingsError, match=r"`x7`; and 12 more$") as caught:
        load(write("".join(f"x{number} = 1\n" for number in range(20))))
    assert "`x8`" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A named file that is missing is never read as an empty one."""
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read \(No such file"):
        load(tmp_path / "none.toml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """A file that is not UTF-8 is a `SettingsError`, too."""
    path = tmp_path / "jobstate.toml"
    path.write_bytes('cluster = "main"'.encode("utf-16"))
    with pytest.raises(SettingsError, match=r"jobstate\.toml: is not UTF-8 text .*; save it as UTF-8"):
        load(path)


def test_a_file_as_windows_writes_it_is_read(tmp_path: Path) -> None:
    """A byte-order mark and CRLF are no part of the settings, nor of a secret."""
    path = tmp_path / "jobstate.toml"
    path.write_bytes(b'\xef\xbb\xbfcluster = "c"\r\n[nats]\r\nurl = "nats://x:1"\r\n')
    settings = load(path)
    assert (settings.cluster, settings.nats.url) == ("c", "nats://x:1")
    path.write_bytes(b"\xef\xbb\xbft0ken\r\n")
    assert read_secret(str(path), "nats.token_file") == "t0ken"


def test_authorities_after_a_byte_order_mark_are_all_trusted(tmp_path: Path) -> None:
    """OpenSSL by itself leaves out the one that the mark stands before, without a word."""
    files = [certificate(tmp_path, name)[0] for name in ("127.0.0.1", "127.0.0.2")]
    path = tmp_path / "ca.pem"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(file.read_bytes() for file in files).replace(b"\n", b"\r\n"))
    assert len(trust(str(path), "nats.tls_ca").get_ca_certs()) == 2
    path.write_bytes(b"\xef\xbb\xbf# \xc3\xa4\r\n")
    with pytest.raises(SettingsError, match=r"nats\.tls_ca: .*ca\.pem is no certificate authority in PEM"):
        trust(str(path), "nats.tls_ca")


def test_a_variable_is_utf8_whatever_the_locale_is() -> None:
    """In a locale that is not UTF-8, Python gives what it cannot read as lone surrogates: the bytes are UTF-8 still."""
    surrogates = "m\xfcller".encode().decode("ascii", "surrogateescape")
    environ = {"JOBSTATE_NATS__USER": surrogates, "JOBSTATE_NATS__PASSWORD": surrogates}
    nats = load(None, environ).nats
    assert (nats.user, nats.password.reveal()) == ("m\xfcller", "m\xfcller")


def test_a_name_of_a_file_holds_no_nul(write: Write) -> None:
    """TOML can spell it, and no system call takes it."""
    with pytest.raises(SettingsError, match=r"nats\.token_file: holds a NUL character"):
        load(write('[nats]\ntoken_file = "a\\u0000b"\n'))


@pytest.mark.parametrize("text", ["", "\n", "  \n\n"])
def test_an_empty_secret_is_refused(tmp_path: Path, text: str) -> None:
    """A file without a secret in it is a mistake, not the empty token."""
    with pytest.raises(SettingsError, match=r"bacalhau\.token_file: the file .* is empty"):
        load(
            None,
            {
                "JOBSTATE_BACALHAU__URL": "nats://x:1",
                "JOBSTATE_ORCHESTRATOR__URL": "http://x:1",
                "JOBSTATE_BACALHAU__TOKEN_FILE": str(secret(tmp_path, text)),
            },
        )


def test_a_secret_is_read_without_its_line_break(tmp_path: Path) -> None:
    """An editor's line break at the end is no part of the token, nor is a blank."""
    assert read_secret(str(secret(tmp_path, "s3cret \r\n")), "nats.token_file") == "s3cret"


@pytest.mark.parametrize("text", ["s3cret\nsecond\n", "s3cret second", "s3cret\x00"])
def test_a_file_that_holds_more_than_a_token_is_refused(tmp_path: Path, text: str) -> None:
    """Two lines, or a NUL, are no token; the error says nothing of what the file holds."""
    with pytest.raises(SettingsError, match="must hold the secret alone") as caught:
        read_secret(str(secret(tmp_path, text)), "nats.token_file")
    assert "s3cret" not in str(caught.value)


def test_a_password_may_hold_blanks(tmp_path: Path) -> None:
    """Passwords are what people make them."""
    assert read_secret(str(secret(tmp_path, "two words")), "orchestrator.password_file") == "two words"


SECRETS = [setting for setting in all_settings() if setting.secret]


@pytest.mark.parametrize(("key", "variable"), [(one.name, one.variable) for one in SECRETS])
def test_a_secret_given_in_place_of_its_file_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, variable: str
) -> None:
    """The secret itself as the name of its file: where it was looked for is said, and which variable takes it."""
    monkeypatch.chdir(tmp_path)
    named = f"environment: {variable}_FILE: {key}_file"  # as `load` names it
    for text in ("c4n4ry", "c4n4ry/with/slashes==", "c4n4ry/" + "x" * 5_000):
        with pytest.raises(SettingsError) as caught:
            read_secret(text, named)
        said = str(caught.value)
        assert f"{key}_file: the file of the name that is given, which is not shown, cannot be read (" in said
        assert f"it was looked for in {tmp_path}; if this is the {key.partition('.')[2]} itself, set {variable}" in said
        shown = "".join(traceback.format_exception(caught.value))
        assert "c4n4ry" not in shown


def test_the_name_of_a_token_file_may_be_the_token() -> None:
    """Where the settings are read it is hidden as well, with the variable that takes it."""
    with pytest.raises(SettingsError, match="set JOBSTATE_ORCHESTRATOR__TOKEN in its place") as error:
        load(environ={"JOBSTATE_ORCHESTRATOR__URL": "http://h:1", "JOBSTATE_ORCHESTRATOR__TOKEN_FILE": "c4n4ry"})
    assert "c4n4ry" not in str(error.value)


def test_a_secret_file_that_is_surely_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absolute path, one that begins with a dot, or one in a folder that is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secrets").mkdir()
    for path in ("/nowhere/token", "./token", "../x/token", "secrets/token"):
        with pytest.raises(SettingsError, match=re.escape(f"the file {path} cannot be read (No such file")):
            read_secret(path, "nats.token_file")


def test_which_settings_are_secrets() -> None:
    """Beside each file that holds a secret there is the secret itself, for the environment."""
    names = {setting.name for setting in all_settings()}
    files = {name.removesuffix("_file") for name in names if name.endswith(("token_file", "password_file"))}
    assert {setting.name for setting in SECRETS} == files


@pytest.mark.parametrize("one", SECRETS, ids=lambda one: one.name)
def test_a_secret_comes_from_the_environment_and_is_never_shown(one: Setting) -> None:
    """It is there for whoever asks for it by name; no text of the settings has it, and no encoder writes it."""
    environ = {one.variable: " hunter2\n"}
    if one.key == "password":
        environ[one.variable.replace("PASSWORD", "USER")] = "me"
    settings = load(None, environ)
    given = getattr(getattr(settings, one.section), one.key)
    assert given.reveal() == "hunter2"
    assert secret_of(given, "", "x") == "hunter2"
    assert settings.warnings == ()
    for text in (repr(settings), str(settings), str(given), f"{given}", f"{[given]}"):
        assert "hunter2" not in text
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)
    with pytest.raises(TypeError):
        msgspec.to_builtins(settings)


@pytest.mark.parametrize("one", SECRETS, ids=lambda one: one.name)
def test_a_secret_in_the_configuration_file_is_refused(write: Write, one: Setting) -> None:
    """Files are copied, committed and pasted: the error says where it goes instead, and does not repeat it."""
    for value in ('"hunter2"', '""', "7"):
        with pytest.raises(SettingsError) as caught:
            load(write(f"[{one.section}]\n{one.key} = {value}\n"))
        assert f"{one.name}: a secret does not belong into this file" in str(caught.value)
        assert one.variable in str(caught.value)
        assert f"{one.name}_file" in str(caught.value)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["hunter2 hunter2", "hunter2\nhunter2", "hunter2\x00"])
def test_a_token_of_the_environment_is_one_word(text: str) -> None:
    """As in its file: more than one line or a blank is a mistake in copying, and is not shown."""
    with pytest.raises(SettingsError, match=r"JOBSTATE_BACALHAU__TOKEN: bacalhau\.token: ") as caught:
        load(None, {"JOBSTATE_BACALHAU__TOKEN": text})
    assert "hunter2" not in str(caught.value)


def test_an_empty_variable_is_no_secret() -> None:
    """Kubernetes gives an optional secret that is not there as an empty variable."""
    assert load(None, {"JOBSTATE_BACALHAU__TOKEN": ""}) == Settings()


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"BACALHAU__TOKEN": "x", "BACALHAU__TOKEN_FILE": "a"}, "bacalhau.token_file: is set together with bacalhau"),
        ({"NATS__TOKEN": "x", "NATS__CREDENTIALS_FILE": "a"}, "nats.token: is set together with nats.credentials_file"),
        ({"ORCHESTRATOR__TOKEN": "x", "ORCHESTRATOR__PASSWORD": "y"}, "orchestrator.token: is set together with"),
        ({"ORCHESTRATOR__PASSWORD": "y"}, "orchestrator.password: needs a user: give orchestrator.user"),
        ({"NATS__PASSWORD": "y"}, "nats.password: needs a user: give nats.user (JOBSTATE_NATS__USER)"),
        ({"NATS__USER": "u"}, "nats.user: needs a password: give nats.password_file or JOBSTATE_NATS__PASSWORD"),
        ({"NATS__USER": "u", "NATS__PASSWORD": "y", "NATS__TOKEN": "x"}, "nats.token: is set together with nats.pass"),
        (
            {"NATS__USER": "u", "NATS__PASSWORD": "y", "NATS__CREDENTIALS_FILE": "a"},
            "nats.credentials_file: is set together with nats.password",
        ),
        ({"NATS__USER": "u", "NATS__PASSWORD": "y", "NATS__PASSWORD_FILE": "a"}, "nats.password_file: is set together"),
    ],
)
def test_secrets_that_exclude_each_other_are_refused(environ: dict[str, str], reason: str) -> None:
    """From wherever they come: nobody has to know which of two would have won."""
    with pytest.raises(SettingsError) as caught:
        load(None, {f"JOBSTATE_{name}": text for name, text in environ.items()})
    assert reason in str(caught.value)


def test_a_secret_that_everybody_may_read_is_warned_of(tmp_path: Path) -> None:
    """The daemon starts, and says it."""
    settings = load(None, {"JOBSTATE_NATS__TOKEN_FILE": str(secret(tmp_path, mode=0o644))})
    assert settings.warnings == (
        f"nats.token_file: everybody on this machine may read {tmp_path / 'token'}; chmod o-r",
    )


def test_settings_show_no_secret(tmp_path: Path) -> None:
    """Neither the file's content nor what a URL holds is in the settings' repr; a URL that holds one is warned of."""
    settings = load(
        None,
        {
            "JOBSTATE_NATS__TOKEN_FILE": str(secret(tmp_path, "canary-1")),
            "JOBSTATE_NATS__URL": "nats://canary-2@a:1, tls://u:canary-3@b:2",
            "JOBSTATE_BACALHAU__URL": "tls://canary-4@c:3",
        },
    )
    assert "canary" not in repr(settings)
    assert "nats://***@a:1, tls://***@b:2" in repr(settings)
    assert [warning.partition(":")[0] for warning in settings.warnings] == ["nats.url", "bacalhau.url"]


def test_the_orchestrators_address_has_no_user_in_it() -> None:
    """Refused at the start, before anything is connected to; what it holds is not shown."""
    with pytest.raises(SettingsError, match=r"orchestrator\.url: holds .*orchestrator\.password_file") as caught:
        load(None, {"JOBSTATE_ORCHESTRATOR__URL": "https://u:canary-4@c:3/api"})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", ["nats://a:1,ws://b:2", "a:1, wss://b:2", "tls://a:1,ws://b:2"])
def test_web_sockets_do_not_stand_beside_others(url: str) -> None:
    """nats-py refuses the mixture when it connects, and no retry could mend that."""
    with pytest.raises(SettingsError, match=r"JOBSTATE_NATS__URL: nats\.url: ws:// or wss:// addresses stand together"):
        load(None, {"JOBSTATE_NATS__URL": url})


def test_several_addresses_of_one_kind_are_right() -> None:
    """With and without TLS; Bacalhau's are tried one at a time, so theirs may be mixed."""
    load(None, {"JOBSTATE_NATS__URL": "nats://a:1,b:2, tls://c:3", "JOBSTATE_BACALHAU__URL": "ws://a:1,nats://b:2"})
    load(None, {"JOBSTATE_NATS__URL": "ws://a:1,wss://b:2"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://a:1", "nats://a:1"),
        ("nats://t@a:1,u:p@b:2", "nats://***@a:1,***@b:2"),
        ("http://u:p@q@a/x@y", "http://***@a/x@y"),
        ("", ""),
    ],
)
def test_redact_leaves_host_and_path(url: str, shown: str) -> None:
    """What is before the host is hidden, everything else stays."""
    assert redact(url) == shown


def test_a_wrong_url_with_a_secret_is_refused_without_showing_it() -> None:
    """An error names the setting, never its value."""
    with pytest.raises(SettingsError) as caught:
        load(None, {"JOBSTATE_NATS__URL": "http://canary@a:1"})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["nats://u:canary/more@127.0.0.1:4222", "nats://u:canary#1@127.0.0.1:4222", "nats://u:canary@127.0.0.1:99999"],
)
def test_a_refused_url_is_told_what_to_do(url: str) -> None:
    """A secret's own characters, a port that is none: how to write them, and nothing of the secret."""
    with pytest.raises(
        SettingsError, match=r"nats\.url: .*at most 65535.*percent-encoded.*IPv6 address stands in brackets"
    ) as caught:
        load(None, {"JOBSTATE_NATS__URL": url})
    assert "canary" not in str(caught.value)


def test_a_secret_has_no_nul_character(tmp_path: Path) -> None:
    """A server would refuse it, and say nothing of the file."""
    with pytest.raises(SettingsError, match=r"nats\.password_file: the file .* holds a NUL character"):
        read_secret(str(secret(tmp_path, "pw\0")), "nats.password_file")


def test_an_address_to_listen_on_has_no_brackets() -> None:
    """They belong to URLs."""
    with pytest.raises(SettingsError, match=r"http\.host: write the address '\[::1\]' without its brackets"):
        load(None, {"JOBSTATE_HTTP__HOST": "[::1]"})


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64, f"x.{'a' * 64}", "ä" * 64])
@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("nats.url", "nats://a:1,nats://canary@{}:4222"),
        ("bacalhau.url", "{}"),
        ("orchestrator.url", "http://{}:1234/api"),
        ("http.host", "{}"),
    ],
)
def test_a_host_that_no_resolver_can_be_asked_for_is_refused(name: str, spelled: str, host: str) -> None:
    """Where it was given, the key, the reason and what to do; never an error of the resolver's, later."""
    variable = f"JOBSTATE_{name.upper().replace('.', '__')}"
    with pytest.raises(SettingsError) as caught:
        load(None, {variable: spelled.format(host)})
    said = str(caught.value)
    assert said.startswith(f"environment: {variable}: {name}: {quoted(host)} can be no host: ")
    assert said.endswith("write the name as DNS has it, or an address")
    assert "canary" not in said


def test_brackets_that_hold_no_address_are_no_host() -> None:
    """The pattern of an URL of HTTP lets them through."""
    with pytest.raises(SettingsError, match=r"orchestrator\.url: 'http://\[x' can be no host"):
        load(None, {"JOBSTATE_ORCHESTRATOR__URL": "http://[x"})


@pytest.mark.parametrize("host", ["localhost", "a" * 63, "a.b.", "a_b", "bücher.example", "[::1]", "127.0.0.1"])
def test_other_hosts_are_taken(host: str) -> None:
    """Names and addresses, however they are written."""
    assert load(None, {"JOBSTATE_NATS__URL": f"nats://{host}:4222,{host}"}).nats.url
    assert load(None, {"JOBSTATE_HTTP__HOST": host.strip("[]")}).http.host


def test_settings_are_frozen() -> None:
    """Nobody changes a setting while the daemon runs."""
    with pytest.raises(AttributeError):
        load().http.port = 1  # type: ignore[misc]
    assert all(
        field.type.__struct_config__.frozen
        for field in msgspec.structs.fields(Settings)
        if hasattr(field.type, "__struct_config__")
    )


@pytest.mark.parametrize(
    ("bacalhau", "orchestrator", "derives"),
    [("", "", False), ("nats://x:1", "", True), ("", "http://x:1", False), ("nats://x:1", "http://x:1", False)],
)
def test_frames_without_an_orchestrator_are_derived_from(bacalhau: str, orchestrator: str, derives: bool) -> None:
    """Each of the two may be left out; only frames alone have states derived from them."""
    settings = load(None, {"JOBSTATE_BACALHAU__URL": bacalhau, "JOBSTATE_ORCHESTRATOR__URL": orchestrator})
    assert settings.derives is derives


def test_a_credential_in_an_url_is_told_with_what_takes_its_place() -> None:
    """The file, or the variable: the key of the file would be refused."""
    (warning,) = load(None, {"JOBSTATE_NATS__URL": "nats://me:secret@x:4222"}).warnings
    assert warning.endswith("use nats.token_file or JOBSTATE_NATS__TOKEN, or nats.user and nats.password_file")


def test_names_of_variables_are_looked_at_without_their_values() -> None:
    """A verb that reads little refuses a misspelt variable as the daemon does; the values are not its own."""
    check_names({"JOBSTATE_HTTP__PORT": "any", "JOBSTATE_PORT_9090_TCP": "x", "JOBSTATE_CONFIG": "x", "PATH": ""})
    for name, meant in (("JOBSTATE_NATS_URL", "JOBSTATE_NATS__URL"), ("JOBSTATE_HTTP__PROT", "JOBSTATE_HTTP__PORT")):
        with pytest.raises(SettingsError, match=f"environment: {name}: unknown; did you mean {meant}"):
            check_names({name: ""})


def test_a_setting_that_is_gone_is_told_and_ignored(tmp_path: Path) -> None:
    """A file or an environment of before starts as it did: the warning names the place, the setting and what to do."""
    file = tmp_path / "jobstate.toml"
    file.write_text('[bacalhau]\nderive = "never"\n', encoding="utf-8")
    (told,) = load(file).warnings
    assert told.startswith(f"{file}: bacalhau.derive: ")
    assert "remove the setting" in told
    (told,) = load(environ={"JOBSTATE_BACALHAU__DERIVE": "running"}).warnings
    assert told.startswith("environment: JOBSTATE_BACALHAU__DERIVE: bacalhau.derive: ")
    assert load().warnings == ()


@pytest.mark.parametrize(
    ("variable", "url", "words"),
    [
        ("JOBSTATE_NATS__URL", "http://a:4222", "its scheme is nats, tls, ws or wss, not http"),
        ("JOBSTATE_NATS__URL", "NATS://a:4222", "its scheme is nats, tls, ws or wss, not NATS"),
        ("JOBSTATE_BACALHAU__URL", "https://a:4222", "its scheme is nats, tls, ws or wss, not https"),
        ("JOBSTATE_ORCHESTRATOR__URL", "nats://a:1234", "its scheme is http or https, not nats"),
    ],
)
def test_a_wrong_scheme_is_named_and_ports_are_not_spoken_of(variable: str, url: str, words: str) -> None:
    """What is wrong comes first to whoever reads it: a scheme is no matter of ports, passwords and brackets."""
    with pytest.raises(SettingsError, match=words) as caught:
        load(None, {variable: url})
    assert "65535" not in str(caught.value)


def test_a_scheme_within_a_password_is_not_shown() -> None:
    """A password may hold anything, and it is refused where it is not percent-encoded."""
    with pytest.raises(SettingsError) as caught:
        load(None, {"JOBSTATE_NATS__URL": "nats://u:pass,canary://x@a:4222"})
    assert "canary" not in str(caught.value)


def test_a_file_nested_without_end_is_refused(tmp_path: Path) -> None:
    """Nothing of ours is nested; who names another file by mistake is told so."""
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(SettingsError, match=r"deep\.toml: is not TOML"):
        load(path)
