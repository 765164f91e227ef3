"""No secret is shown, and what people need to read stays as it is."""

from __future__ import annotations

import base64
import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from aasm_py.doctor.look import Look
from aasm_py.doctor.redaction import LIMIT, Redactor
from aasm_py.doctor.secret_forms import REDACTED, name_strength

SECRET = "Zq7-pl4nted/s3cret+of 'mine'"


@pytest.fixture
def redactor(home: Path) -> Redactor:
    """One that knows nothing but forms."""
    return Redactor(Look({"AASM_HOME": str(home)}))


def knowing(home: Path, **more: Any) -> Redactor:
    environ = more.pop("environ", {})
    return Redactor(Look({"AASM_HOME": str(home), **environ}, **more))


def write(home: Path, name: str, text: str) -> None:
    path = home / name
    path.write_text(text)
    path.chmod(0o600)


# Text, and what must not be left of it.
HITS = [
    ("http://alice:hunter2@proxy.example:3128", "hunter2"),
    ("https://ghtoken@github.com/x/y.git", "ghtoken"),
    ("postgres://u:p%40ss%2Fw@db.example/x", "p%40ss"),
    ("postgres://u:p@ss@db.example/x", "ss@"),
    ("postgres://u:pa/ss?w#x@db.example/x", "pa/ss"),
    ("redis://:onlypw@localhost:6379/0", "onlypw"),
    ('"http:\\/\\/alice:hunter2@proxy\\/"', "hunter2"),
    ("proxy alice:hunter2@proxy.example:3128 used", "hunter2"),
    ("Authorization: Bearer swordfish", "swordfish"),
    ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ('{"Authorization": "Bearer abc.def"}', "abc.def"),
    ("'Proxy-Authorization': 'Basic dXNlcjpwYXNz'", "dXNlcjpwYXNz"),
    ("Authorization: AASM-Proof 17.aa.bb", "17.aa.bb"),
    ("Authorization: rawkey1234", "rawkey1234"),
    ('Authorization: Digest username="u", response="abcdef"', "abcdef"),
    ("sent bearer swordfish to it", "swordfish"),
    ("Cookie: sid=swordfish; other=fish2", "fish2"),
    ("Set-Cookie: sid=swordfish; Path=/", "swordfish"),
    ("aasm_op_" + "0a" * 32, "0a0a"),
    ("aasm_se_eyJhIjoiYiJ9.0a0b0c0d", "eyJhIjoiYiJ9"),
    ("token aasm_ak_0123456789abcdef was refused", "0123456789abcdef"),
    ("sk-proj-Ab12Cd34Ef56Gh78", "Ab12Cd34"),
    ("sk-ant-api03-Ab12Cd34Ef56Gh78_x", "Ab12Cd34"),
    ("ghp_" + "a1B2" * 9, "a1B2a1B2"),
    ("github_pat_11ABCDEFG0123456789_x", "11ABCDEFG"),
    ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
    ("xoxb-123456789012-abcdefghij", "123456789012"),
    ("AIza" + "a1B2-_" * 6, "a1B2-_a1B2"),
    ("hf_" + "aB3d" * 8, "aB3daB3d"),
    ("SG.abcdefghij12.klmnopqrst34", "klmnopqrst34"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJzdWIiOiIxIn0"),
    ("https://hooks.slack.com/services/T000/B000/XyZ123abc", "XyZ123abc"),
    ("agent --token swordfish run", "swordfish"),
    ("agent --token='sword fish' run", "fish'"),
    ("agent --api-key=swordfish run", "swordfish"),
    ("agent --db-password 'sword fish'", "sword fish"),
    ("['agent', '--token', 'swordfish']", "swordfish"),
    ('["agent", "--api-key", "swordfish"]', "swordfish"),
    ("curl --header token=swordfish", "swordfish"),
    ("curl -H 'X-Api-Key: swordfish' x", "swordfish"),
    ("https://h/x?token=swordfish&a=b", "swordfish"),
    ("https://h/x?a=b&api_key=swordfish", "swordfish"),
    ("https://h/x?X-Amz-Signature=0123456789abcdef0123", "0123456789abcdef0123"),
    ("Server=x;Password=swordfish;Database=y", "swordfish"),
    ("password=swordfish", "swordfish"),
    ("PGPASSWORD=12345678901", "12345678901"),
    ("MYSQL_PWD=swordfish mysql", "swordfish"),
    ("password: hunter2", "hunter2"),
    ('{"api_key": "swordfish", "a": 1}', "swordfish"),
    ('"{\\"api_key\\":\\"swordfish\\"}"', "swordfish"),
    ("{'client_secret': 'swordfish'}", "swordfish"),
    ("api_key = 'swordfish'", "swordfish"),
    ("apiKey:'swordfish'", "swordfish"),
    ("AASM_API_KEY=swordfish aasm-run python", "swordfish"),
    ("AASM_OPERATOR_TOKEN=swordfish", "swordfish"),
    ("(api_key=swordfish)", "swordfish"),
]
PEM = "-----BEGIN RSA PRIVATE KEY-----\n" + ("A1b2" * 16 + "\n") * 4 + "Zz9=\n-----END RSA PRIVATE KEY-----\n"

# What is needed to understand a table, a log or a bundle.
NEAR_MISSES = [
    "/root/.aasm/gateway.secret: mode 0644, others can read it",
    "secret /root/.aasm/gateway.secret can be written by others; type: chmod 0600 /root/.aasm/gateway.secret",
    "chmod 0600 /home/me/.aasm/operator.token",
    "operator.token: belongs to another user (uid 1000)",
    "api_key: not set",
    "api_key: *** (from variable AASM_API_KEY)",
    "api_key (from /home/me/.aasm/config.yaml:3) must be ASCII",
    "the gateway refused the API key: unauthorized",
    "api_key: config.yaml:3",
    "set AASM_HOME to its home, or api_key",
    "export AASM_API_KEY=KEY",
    "export AASM_API_KEY='the key that its operator gave you'",
    "leave --api-key out; or: unset AASM_API_KEY",
    "give --token-file /root/x",
    "export AASM_GATEWAY_URL=http://127.0.0.1:7391",
    "http://localhost:7391/healthz answered in 3 ms",
    "http://[::1]:7391/v1/agents/a@b",
    "https://pypi.org/project/agent-assembly/0.1.0/",
    "pip install 'git+https://github.com/x/y@v1.2'",
    "image python:3.12@sha256:0123456789abcdef",
    "mail someone@example.org at 12:30",
    "1f0c" * 16,
    "audit log intact through line 9, head sha256:" + "1f0c" * 16,
    '{"seq":5,"prev":"' + "0" * 64 + '","digest":"sha256:' + "ab" * 32 + '"}',
    "run-0123456789abcdef, instance 0123456789abcdef0123456789abcdef",
    "agent support-bot-2 of team risk-assessment-4",
    "agent-assembly-default",
    "Python 3.11.7 at /root/.pyenv/versions/3.11.7/bin/python3.11, kernel 6.18.44-fc-v657",
    "revision 1a2b3c4d/0/12",
    "max_tokens=1024 prompt_tokens: 17",
    "KeyError: 'model'",
    "TOKENIZERS_PARALLELISM=false",
    "SSH_AUTH_SOCK=/tmp/ssh-x/agent.1",
    "bearer tokens are refused; a bearer token is needed",
    "Basic authentication is not offered",
    "monkey=banana keyboard: us author: me",
    "key: value",
    "primary_key=id sort_key=name",
    "PYTHONPATH=/work:/usr/lib/python3 PATH=/usr/bin:/bin",
    "task-0123456789abcdef012 and disk-0123456789abcdef012",
    "2026-01-02T03:04:05.678Z INFO aasm: listens at 127.0.0.1:7391 pid=4711 version=0.1.0",
    "C:\\Users\\me\\.aasm\\config.yaml",
    "ssh: 22 tokens: 3 secrets: 2",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
]


@pytest.mark.parametrize(("text", "secret"), HITS, ids=[str(number) for number in range(len(HITS))])
def test_what_has_the_form_of_a_secret_is_taken_out(redactor: Redactor, text: str, secret: str) -> None:
    """A secret that nobody told us about is known by its own form, or by the name in front of it."""
    said = redactor.text(text)
    assert secret not in said
    assert REDACTED in said


@pytest.mark.parametrize("text", NEAR_MISSES)
def test_what_people_need_stays(redactor: Redactor, text: str) -> None:
    """Paths, versions, hashes, ids, ports and sentences about secrets are left as they are."""
    assert redactor.text(text) == text


@pytest.mark.parametrize("text", [text for text, _ in HITS] + NEAR_MISSES + [PEM])
def test_a_second_time_changes_nothing(redactor: Redactor, text: str) -> None:
    """What was redacted once is safe, and is recognised as such."""
    once = redactor.text(text)
    assert redactor.text(once) == once


def test_the_words_around_a_secret_stay(redactor: Redactor) -> None:
    """Only the secret goes: name, host and the rest of the line tell where it was."""
    assert redactor.text("http://u:p4ss@proxy:3128/x") == "http://[redacted]@proxy:3128/x"
    assert redactor.text("a --token abc --port 7391") == "a --token [redacted] --port 7391"
    assert redactor.text('{"api_key": "abc def", "x": 1}') == '{"api_key": "[redacted]", "x": 1}'
    assert redactor.text("?token=abc&limit=5") == "?token=[redacted]&limit=5"


@pytest.mark.parametrize("separator", ["\n", "\\n", "\r\n"])
def test_private_keys_go_whole_and_in_parts(redactor: Redactor, separator: str) -> None:
    """A private key is taken out also where its begin or its end was cut off."""
    lines = PEM.strip().split("\n")
    for part in (lines, lines[:-1], lines[1:]):
        said = redactor.text(f"before it{separator}{separator.join(part)}{separator}after it")
        assert "A1b2" not in said
        assert "Zz9=" not in said
        assert said.startswith("before it")
        assert said.endswith("after it")


FORMS = {
    "plain": lambda secret: secret,
    "url": lambda secret: urllib.parse.quote(secret, ""),
    "url, lower case": lambda secret: urllib.parse.quote(secret, "").replace("%2F", "%2f").replace("%2B", "%2b"),
    "query": urllib.parse.quote_plus,
    "json": lambda secret: json.dumps({"x": secret}),
    "json in json": lambda secret: json.dumps(json.dumps({"x": secret})),
    "python": repr,
    "basic": lambda secret: base64.b64encode(secret.encode()).decode(),
    "inside a word": lambda secret: f"abc{secret}def",
}
SOURCES = {
    "argument": {"arguments": {"api_key": SECRET}},
    "variable": {"environ": {"AASM_API_KEY": SECRET}},
    "variable of a provider": {"environ": {"OPENAI_API_KEY": SECRET}},
    "variable in other letters": {"environ": {"my_app_clientSecret": SECRET}},
    "variable with a number": {"environ": {"SERVICE_TOKEN_2": SECRET}},
    "variable with a url": {"environ": {"DATABASE_URL": f"postgres://u:{urllib.parse.quote(SECRET, '')}@h/x"}},
    "variable with headers": {"environ": {"OTEL_HEADERS": f'{{"authorization": "{SECRET}"}}'.replace(" ", " ")}},
    "command": {"command": ("python", "agent.py", "--token", SECRET)},
    "command with =": {"command": ("python", "agent.py", f"--api-key={SECRET}")},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("source", [name for name in SOURCES if name != "variable with headers"])
def test_a_known_secret_is_found_however_it_is_written(home: Path, source: str, form: str) -> None:
    """What is known from an argument, a variable or the command is taken out in whatever form it turns up."""
    redactor = knowing(home, **SOURCES[source])
    said = redactor.text(f"before {FORMS[form](SECRET)} after")
    assert "pl4nted" not in said
    assert base64.b64encode(SECRET.encode()).decode()[:12] not in said
    assert said.startswith("before ")
    assert said.endswith(" after")


CONFIGURATIONS = [
    "api_key: {}\n",
    "api_key: {}  # the key\n",
    "gateway_url: http://h\n'api_key' : {}\nmode: auto\n",
    "{{gateway_url: http://h, api_key: {}, mode: auto}}\n",
    "api_key: {}\nmode: [unclosed\n",
    "{{gateway_url: http://h, api_key: {}, mode: auto\n",
    "mode: auto\n\tapi_key: {}\n",
    "api_key:{}\n",
    "api_key = {}\n",
    "api_key: {}\napi_key: {}\n",
    "apikey: {}\n",
    "settings:\n  deep:\n    - password: {}\n",
    "api_key:\n  {}\n",
    "api_key: >\n  {}\n",
    "# api_key: {}\n",
    "\ufeffapi_key: {}\n",
    "api_key: {}\ngateway_url: \u0001\n",
]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_key_of_a_configuration_is_known_however_broken_it_is(home: Path, configuration: str) -> None:
    """The file's key is taken out, in whatever other place it stands, also where the file cannot be used."""
    write(home, "config.yaml", configuration.replace("{}", "swordfish-swordfish").replace("{{", "{"))
    assert "swordfish-" not in knowing(home).text("the gateway said: swordfish-swordfish is unknown")


def test_the_key_of_a_configuration_is_known_as_yaml_reads_it(home: Path) -> None:
    """Escapes of YAML are read as YAML reads them."""
    write(home, "config.yaml", 'api_key: "sw\\x6frdfish-swordfish"\n')
    assert "swordfish" not in knowing(home).text("it was swordfish-swordfish")
    write(home, "config.yaml", 'api_key: "\\ud800swordfish-swordfish"\n')
    assert "swordfish" not in knowing(home).text("it was \ud800swordfish-swordfish")


def test_the_files_of_the_home_are_known(home: Path) -> None:
    """The gateway's secret and the operator's token are taken out, also when they are damaged or others own them."""
    write(home, "gateway.secret", "1f0c2d3e" * 8 + "\n")
    write(home, "operator.token", "damaged-token-of-us\n")
    (home / "operator.token").chmod(0o666)
    redactor = knowing(home)
    assert redactor.text("a " + "1f0c2d3e" * 8) == "a [redacted]"
    assert redactor.text("a damaged-token-of-us") == "a [redacted]"
    assert redactor.text("a" + "5f0c1234" * 8) == "a" + "5f0c1234" * 8


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("AUTH", "basic", "basic facts"),
        ("MAX_TOKENS", "4096", "4096 bytes"),
        ("SSH_AUTH_SOCK", "/tmp/agent.sock", "/tmp/agent.sock"),
        ("XAUTHORITY", "/root/.Xauthority", "/root/.Xauthority"),
        ("SERVICE_KEY", "/etc/ssl/key.pem", "/etc/ssl/key.pem"),
        ("GIT_AUTHOR_NAME", "Jane Doe", "Jane Doe"),
        ("KEYBOARD_LAYOUT", "us-international", "us-international"),
        ("TOKENIZERS_PARALLELISM", "disabled-by-me", "disabled-by-me"),
        ("PWD", "/work/long/directory", "/work/long/directory"),
        ("USE_TOKEN", "true", "true"),
        ("PROMPT", "http://localhost:7391/x", "http://localhost:7391/x"),
        ("REMOTE", "ssh://git@github.com/x", "git status"),
        ("EMPTY_SECRET", "", "x"),
        ("BLANK_SECRET", "          ", "a          b"),
    ],
)
def test_ordinary_values_do_not_vanish(home: Path, name: str, value: str, text: str) -> None:
    """A variable that only sounds secret, or whose value is a word, number or path, takes nothing out elsewhere."""
    assert knowing(home, environ={name: value}).text(text) == text


@pytest.mark.parametrize(
    ("name", "strength"),
    [
        *[(name, 2) for name in ("api_key", "OPENAI_API_KEY", "apiKey", "DB_PASSWORD", "--token", "client-secret")],
        *[(name, 2) for name in ("SENTRY_DSN", "MYSQL_PWD", "PGPASSWORD", "VAULT_SECRET_ID", "GITHUB_TOKEN_2")],
        *[(name, 1) for name in ("MY_KEY", "HTTP_COOKIE", "GOOGLE_CREDENTIALS", "OAUTH", "signature")],
        *[(name, 0) for name in ("PWD", "HOME", "AUTHOR", "MONKEYS", "TOKEN_FILE", "AUTH_URL", "KeyError", "_", "")],
    ],
)
def test_names_tell_what_is_secret(name: str, strength: int) -> None:
    """A name is read word by word, so that `author` is not `auth`."""
    assert name_strength(name) == strength


def test_secrets_that_overlap_leave_nothing_between_them(home: Path) -> None:
    """Where one secret begins inside another, both go as one."""
    redactor = knowing(home, environ={"A_SECRET": "abcdef-123456", "B_SECRET": "123456-ghijkl"})
    assert redactor.text("x abcdef-123456-ghijkl y") == "x [redacted] y"


@pytest.mark.parametrize("end", ["…", "...", "", "… and more", "…' (1 of 2)"])
def test_what_is_left_of_a_secret_that_was_cut_off_is_taken_out(home: Path, end: str) -> None:
    """Where somebody shortened a text in the middle of a secret, its first half goes, too."""
    redactor = knowing(home, environ={"X_TOKEN": "swordfish-42-swordfish"})
    assert redactor.text(f"said: swordfish-42-sw{end}") == f"said: [redacted]{end}"
    assert redactor.text(f"said: swordfishes{end}") == f"said: swordfishes{end}"


def test_json_stays_json(redactor: Redactor) -> None:
    """Of data, names and structure stay; texts, and values with secret names, are redacted."""
    data = {"api_key": "x", "token": None, "tokens": 7, "list": ["http://u:p4@h", True], "in": {"password": "y"}}
    assert redactor.data(data) == {
        "api_key": REDACTED,
        "token": None,
        "tokens": 7,
        "list": ["http://[redacted]@h", True],
        "in": {"password": REDACTED},
    }


def test_letters_that_are_no_text_do_no_harm(home: Path) -> None:
    """Broken Unicode, zeros and controls survive, in secrets and in texts; UTF-16 is no way round."""
    redactor = knowing(home, environ={"X_TOKEN": "bro\udcffken-secret", "Y_TOKEN": "swordfish-42"})
    assert redactor.text("a bro\udcffken-secret \udc80 \x1b[31m") == "a [redacted] \udc80 \x1b[31m"
    assert "swordfish" not in redactor.text("swordfish-42".encode("utf-16-le").decode("latin-1"))


SIZE = LIMIT // 4
HOSTILE = {
    word[:20]: word * (SIZE // len(word))
    for word in (
        *(
            "a",
            "a://b:",
            "token:",
            "--token ",
            "bearer ",
            "token='\\",
            "a:b@",
            "eyJaaaaa.",
            "=",
            "\\",
            'key"',
            "a.b-",
            "@",
        ),
        *("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----A\n", "-----BEGIN PRIVATE KEY-----\n" + "A" * 64),
        *("Authorization: ", "Cookie: a=", "A" * 64 + "\n", "sk-", "://", "token :"),
    )
}
HOSTILE["blanks"] = "token" + " " * SIZE


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_text_makes_the_patterns_go_back_and_forth(redactor: Redactor, kind: str) -> None:
    """The time grows with the text alone: where it grew with its square, this would not end."""
    assert redactor.text(redactor.text(HOSTILE[kind])) == redactor.text(HOSTILE[kind])


def test_too_long_texts_are_cut(home: Path) -> None:
    """What is longer than the limit is cut, and says so; of a secret across the limit nothing is left."""
    redactor = knowing(home, environ={"X_TOKEN": "swordfish-42"})
    said = redactor.text("a" * (LIMIT - 9) + "swordfish-42" + " bc" * LIMIT)
    assert said == "a" * (LIMIT - 9) + "[redacted] [cut]"
