"""What a secret looks like: by the name in front of it, or by its own form.

Each pattern takes time in proportion to the text: what repeats is bounded, and begins only where no letter stands
before it.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator

REDACTED = "[redacted]"

Span = tuple[int, int]

_STRONG = (
    "SECRET",
    "SECRETS",
    "TOKEN",
    "TOKENS",
    "PASSWORD",
    "PASSWORDS",
    "PASSWD",
    "PASSPHRASE",
    "APIKEY",
    "JWT",
    "DSN",
)
_STRONG_PAIRS = tuple(
    f"{first} KEY" for first in ("API", "ACCESS", "PRIVATE", "SIGNING", "ENCRYPTION", "ACCOUNT", "MASTER")
)
_STRONG_ENDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "APIKEY")
# Of these the value must look like a secret, too: keys are also what mappings have.
_WEAK_ENDS = ("KEY", "AUTH", "COOKIE", "COOKIES", "CREDENTIAL", "CREDENTIALS", "CREDS", "SIG", "SIGNATURE", "BEARER")
_WITH_OTHERS = ("PWD", "PASS")
_ABOUT_WORDS = """
    AGE ALGORITHM ARN BACKEND COUNT DIR DIRECTORY EMAIL ENABLED ENCODING ENDPOINT ERROR EXCEPTION EXPIRES EXPIRY FILE
    HEADER HOST ID LENGTH LIMIT METHOD MODE NAME PATH PORT PREFIX PROVIDER REGION SIZE SOCK SOCKET STORE TIMEOUT TTL
    TYPE URI URL USER USERNAME
"""
_PLACEHOLDER_WORDS = """
    none null true false yes no on off set unset empty missing present absent default key token secret password value
    yours your_key your-key your_token your-token your_api_key your-api-key ... … – - ? *** **** ***** ****** ********
    xxx xxxx xxxxxx
"""
_PROSE_WORDS = """
    a an and are as at be but by for from given gone has if in is it its no nor not of off on or out set that the then
    this to unset was were with without
"""
# Last words that make a name speak of something about a secret, and not of the secret.
_ABOUT = frozenset(_ABOUT_WORDS.split())
_PLACEHOLDERS = frozenset(_PLACEHOLDER_WORDS.split())
# What follows an option in a sentence: `leave --api-key out`.
_PROSE = frozenset(_PROSE_WORDS.split())
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
_FILE = re.compile(
    r"[\w./~-]{0,512}\.(?:ya?ml|json|py|toml|log|txt|pid|secret|token|seg|db|sock|pem|crt)(?::\d+){0,2}:?"
)
_PATH = re.compile(r"(?:~|\.{1,2})?/[\w./@~-]{0,4096}:?")
_IDENTIFIER = re.compile(r"run-[0-9a-f]{16}|AASM_[A-Z_]{1,40}|\$\{?[A-Za-z_]\w{0,80}\}?|sha(?:256|512):[0-9a-f]{0,128}")
# What stands for a value in a remedy: `export AASM_API_KEY='the key that its operator gave you'`.
_DESCRIPTION = re.compile(r"(?:the|your)(?: [a-z]{1,20}){2,12}")
_SYMBOLS = frozenset("_~+/=!@#$%^*")


@functools.lru_cache(maxsize=4096)
def name_strength(name: str) -> int:
    """2 where `name` says that its value is a secret, 1 where it may be one, else 0."""
    words = [word.upper() for word in _WORD.findall(name)]
    if not words:
        return 0
    last = words[-1]
    if last in _ABOUT and not (last == "ID" and "SECRET" in words):
        return 0
    joined = " ".join(words)
    if any(word in _STRONG or word.endswith(_STRONG_ENDS) for word in words) or any(
        pair in joined for pair in _STRONG_PAIRS
    ):
        return 2
    if last in _WITH_OTHERS:
        return 2 if len(words) > 1 or name.startswith("-") else 0
    return 1 if last.endswith(_WEAK_ENDS) else 0


def is_ordinary(value: str) -> bool:
    """Whether `value` is no secret, whatever its name says: a placeholder, a small number, a path, one of our ids."""
    if REDACTED in value or value.lower() in _PLACEHOLDERS or (value.isdigit() and len(value) < 10):
        return True
    if _IDENTIFIER.fullmatch(value) or _FILE.fullmatch(value):
        return True
    return _PATH.fullmatch(value) is not None and (value[0] != "/" or value.split("/")[1] in _top_directories())


@functools.lru_cache(maxsize=1)
def _top_directories() -> frozenset[str]:
    # A secret may begin with a slash, too; what lies under a directory that exists is taken for a path.
    try:
        return frozenset(os.listdir("/"))
    except OSError:
        return frozenset()


def looks_secret(value: str) -> bool:
    """Whether `value` has what words have not: digits between letters, capitals inside, signs, or great length."""
    if len(value) < 6 or is_ordinary(value):
        return False
    if len(value) >= 20 or any(letter in _SYMBOLS for letter in value):
        return True
    letters = any(letter.isalpha() for letter in value)
    return letters and (any(letter.isdigit() for letter in value) or re.search(r"[a-z][A-Z]", value) is not None)


_SCHEME = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,31}:(?:\\?/){2}"
_AUTHORIZATION = r"(?i)(?<!\w)(?:proxy-)?authorization\\{0,4}[\"']?\s{0,4}[:=]\s{0,4}\\{0,4}[\"']?"
_START = r"(?<![A-Za-z0-9])"

# Each takes out its group "secret", or everything where it has none.
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        # User information of URLs, up to the last @ of the authority.
        _SCHEME + r"(?P<secret>[^\s/\\\"'<>`?#]{1,512})@",
        # A colon that no port follows begins a password, in which people forget to write %2F, %3F and %23.
        _SCHEME + r"(?P<secret>[^\s/\\@:\"'<>`\[]{0,128}:(?!\d{1,5}(?:[/?#\s]|$))[^\s\"'<>`]{0,256})@(?=[\w\[])",
        # The same without a scheme, as proxies are written; not an image with its digest.
        r"(?<![\w./@:%+-])(?P<secret>[\w.%+-]{1,128}:[^\s:@/\\\"'<>`]{1,256})@(?!sha\d)(?=[\w\[])",
        # Headers.
        _AUTHORIZATION + r"(?P<secret>(?:bearer|basic|token|aasm-proof|negotiate|apikey)\s{1,4}[^\s\"'\\,;]{1,8192})",
        _AUTHORIZATION + r"(?P<secret>(?=[A-Za-z]{0,64}[^A-Za-z\s\"'\\,;.:)])[^\s\"'\\,;]{6,8192}|[A-Za-z]{16,8192})",
        _AUTHORIZATION + r"(?P<secret>digest\s[^\r\n\\]{1,8192})",
        r"(?i)(?<![\w-])(?:set-)?cookie2?\\{0,4}[\"']?\s{0,4}:\s{0,4}\\{0,4}[\"']?(?P<secret>[^\s\"'\\=]{1,256}="
        r"[^\r\n\"'\\]{0,8192})",
        r"(?i)(?<!\w)bearer\s{1,4}(?!(?:tokens?|auth|authentication|authorization|headers?|schemes?|keys?|credentials?|of|is"
        r"|was|and|or|for)\b)(?P<secret>[A-Za-z0-9._~+/=-]{6,8192})",
        r"(?<!\w)AASM-Proof\s{1,4}(?P<secret>[^\s\"']{4,512})",
        r"(?<!\w)Basic\s{1,4}(?P<secret>(?=[A-Za-z]{0,64}(?:[0-9=+/]|[a-z][A-Z]))[A-Za-z0-9+/]{8,8192}={0,2})",
        # Our own: operator's, sessions', and whatever else comes in their form.
        _START + r"aasm_(?:op|se)_[A-Za-z0-9_.-]{4,8192}",
        _START + r"aasm_[a-z]{2,4}_(?=[A-Za-z_-]{0,64}\d)[A-Za-z0-9_-]{16,8192}",
        # Those of providers.
        _START + r"(?:sk|rk|gsk|xai|pplx|tvly|nvapi|dapi|r8|hf)[-_](?=[A-Za-z_-]{0,64}\d)[A-Za-z0-9_-]{16,1024}",
        _START + r"(?:gh[pousr]_|github_pat_|glpat-|npm_|pypi-AgE|lsv2_[a-z]{2}_|dop_v1_|shpat_|whsec_|ya29\.|GOCSPX-"
        r"|sntry[su]_|dckr_pat_|hvs\.|figd_|PMAK-)[A-Za-z0-9_.-]{10,2048}",
        _START + r"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])",
        _START + r"(?:xox[a-z]|xapp)-[A-Za-z0-9-]{8,512}",
        _START + r"AIza[0-9A-Za-z_-]{30,128}",
        _START + r"SG\.[A-Za-z0-9_-]{10,128}\.[A-Za-z0-9_-]{10,128}",
        _START + r"AGE-SECRET-KEY-1[0-9A-Z]{20,128}",
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,8192}(?:\.[A-Za-z0-9_-]{0,8192}){1,4}",
        r"hooks\.slack\.com/services/(?P<secret>[A-Za-z0-9/_-]{8,256})",
        r"discord(?:app)?\.com/api/webhooks/(?P<secret>\d{1,32}/[A-Za-z0-9_-]{8,256})",
    )
)

# A name, and what stands between it and its value: an equals sign or a colon; of an option also a blank, or a comma
# between quotes, as lists are written.
_NAME = re.compile(
    # What no such name lacks stands first: it lets the search skip all other words at once.
    r"(?<![\w.-])(?=[\w.-]{0,80}(?:(?i:key|token|secret|pass|pwd|auth|cookie|cred|dsn|jwt|sig|bearer)))"
    r"(-{0,2}[A-Za-z_][\w.-]{0,80})(\\{0,4}[\"']?\s{0,4}(?::=|=>|=|:)\s{0,4}|\s{1,4}|[\"'],\s{0,4}(?=[\"']))(?=\S)"
)
_QUOTED = re.compile(r"\"((?:[^\"\\\n]|\\.){1,8192})\"|'((?:[^'\\\n]|\\.){1,8192})'")
_BARE = re.compile(r"\\{0,4}[\"']?([^\s\"'\\&;,|<>`]{1,8192})")

_PEM_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----")
_PEM_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----")
_PEM_LIMIT = 16 << 10
_PEM_LINES = re.compile(r"(?:(?:\s|\\[nr]){1,8}[A-Za-z0-9+/=]{40,128})*(?:(?:\s|\\[nr]){1,8}[A-Za-z0-9+/=]{4,128})?")
# The same, read backwards.
_PEM_LINES_BEFORE = re.compile(
    r"(?:\s|[nr]\\){1,8}[A-Za-z0-9+/=]{4,128}(?!\\)(?:(?:\s|[nr]\\){1,8}[A-Za-z0-9+/=]{40,128}(?!\\))*"
)


def secret_spans(text: str) -> Iterator[Span]:
    """Where `text` has the form of a secret; the spans may overlap and come in no order."""
    for pattern in _PATTERNS:
        group: int | str = "secret" if "secret" in pattern.groupindex else 0
        for found in pattern.finditer(text):
            if REDACTED not in found[group]:
                yield found.span(group)
    yield from _named_values(text)
    yield from _private_keys(text)


def _named_values(text: str) -> Iterator[Span]:
    at = 0
    while (found := _NAME.search(text, at)) is not None:
        # What is no secret may be a name itself, as in `--header token=…`: only name and sign are passed over.
        at = found.end()
        strength = name_strength(found[1])
        if not strength:
            continue
        value = _QUOTED.match(text, at) or _BARE.match(text, at)
        if value is None:
            continue
        group = next(number for number, part in enumerate(value.groups(), 1) if part is not None)
        start, end = value.span(group)
        whole = value.re is _QUOTED
        quoted = whole or "'" in text[at:start] or '"' in text[at:start]
        if not whole and REDACTED not in value[group]:
            end = start + len(value[group].rstrip(")]}."))
        if end > start and _is_secret_value(found[1], found[2], text[start:end], strength, quoted=quoted):
            yield start, end
            at = end


def _is_secret_value(name: str, between: str, value: str, strength: int, *, quoted: bool) -> bool:
    if is_ordinary(value):
        return False
    if _DESCRIPTION.fullmatch(value):
        return False
    option = name.startswith("-")
    sign = between.strip(" \t\r\n\\\"'")
    if sign not in ("=", ":=", "=>", ":"):
        return option and not value.startswith("-") and (quoted or value.rstrip(":").lower() not in _PROSE)
    if strength == 1 and not option:
        return looks_secret(value)
    if quoted or sign in ("=", ":=") or name.lower().startswith("x-"):
        return True
    # Behind a colon and without quotes it may be a sentence: `api_key: not set`.
    return looks_secret(value)


def _private_keys(text: str) -> Iterator[Span]:
    done = 0
    for begin in _PEM_BEGIN.finditer(text):
        end = _PEM_END.search(text, begin.end(), begin.end() + _PEM_LIMIT)
        lines = _PEM_LINES.match(text, begin.end(), begin.end() + _PEM_LIMIT)
        done = end.end() if end else lines.end() if lines else begin.end()
        yield begin.start(), done
    # The beginning of one may have been cut off.
    for last in _PEM_END.finditer(text, done):
        before = _PEM_LINES_BEFORE.match(text[max(0, last.start() - _PEM_LIMIT) : last.start()][::-1])
        yield last.start() - (before.end() if before else 0), last.end()
