"""The one place that turns an address with a password into text. Nothing else prints one.

`without_passwords` cleans any text: every error of the package, every line of a log and what `check` shows pass
through it. It would rather hide too much than too little. `LedgerUrl` holds the address of a ledger's database;
only `LedgerUrl.reveal` gives the password away.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:  # `--help` names no settings, and shall not wait for what checks them
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

HIDDEN = "***"
LEDGER_VARIABLE = "BATTERY_SORTING_LEDGER"
"""Environment variable by which the processes of a cell get the ledger's whole URL: it stands in no file."""
FORM = "postgresql://USER@HOST:PORT/DATABASE (the password in ~/.pgpass)"

_SECRET_KEY = re.compile(r"pass|pwd|secret|credential|api_?key", re.IGNORECASE)
_DATABASES = r"(?:postgres(?:ql)?|mysql|mariadb|oracle|mssql)(?:\+\w+)?:"
_ADDRESS = re.compile(
    rf"(?:[A-Za-z][A-Za-z0-9+.\-]{{0,30}}:/+|\b{_DATABASES})(?P<rest>\S*)(?P<line>[^\n]*)", re.IGNORECASE
)
_QUERY = re.compile(r"(?P<key>[?&;][^=&;\s]+=)(?P<value>[^&;\s]*)")
_WHOLE_QUERY = re.compile(r"(?P<key>[?&;][^=&;]+=)(?P<value>[^&;]*)")
_USER = re.compile(r"(?P<user>[^/\s:@\[]*):(?P<behind>.*)", re.DOTALL)
_PORT = re.compile(r"\d{1,5}(?![^/?#\s'\",;:)\]}>])")
_NO_SLASHES = re.compile(_DATABASES, re.IGNORECASE)
_CONNECTION_WORDS = re.compile(r"(?:host|hostaddr|dbname|password|user|port|service)\s*=", re.IGNORECASE)
_SETTING = re.compile(
    r"""(?P<key>(?<![/\w.\-])["']?[\w.\-]{0,40}(?:password|passwd|passphrase|pwd|secret|credential|api_?key)[\w.\-]{0,40}["']?\s*[=:]\s*)
        (?P<value>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[^\s&;,)}\]"']+)""",
    re.IGNORECASE | re.VERBOSE,
)


def without_passwords(text: str) -> str:
    """``text`` with ``***`` in place of the passwords of all addresses in it, and of ``password=…`` in any form."""
    cleaned = _hide_in_addresses(text) if ":" in text else text
    return _SETTING.sub(_hide_setting, cleaned) if _SECRET_KEY.search(cleaned) else cleaned


def settings_without_passwords(settings: Any) -> Any:
    """Settings (mappings, lists and plain values) as they may be recorded and shown."""
    if isinstance(settings, Mapping):
        return {
            key: HIDDEN
            if isinstance(value, str) and value and _SECRET_KEY.search(str(key))
            else settings_without_passwords(value)
            for key, value in settings.items()
        }
    if isinstance(settings, (list, tuple)):
        return [settings_without_passwords(item) for item in settings]
    return without_passwords(settings) if isinstance(settings, str) else settings


def _hide_in_addresses(text: str) -> str:
    done = ""
    while (found := _ADDRESS.search(text)) is not None:
        rest, line = _hide_user(_QUERY.sub(_hide_query, found["rest"]), found["line"])
        done += text[: found.start("rest")] + rest
        text = line + text[found.end() :]
    return done + text


def _hide_user(rest: str, line: str) -> tuple[str, str]:
    """What follows the scheme of an address up to the next space, without password; and the rest of the line."""
    before, at, host = rest.rpartition("@")
    user = _USER.match(before if at else rest)
    if user is None:
        return rest, line
    if at:
        return f"{user['user']}:{HIDDEN}@{host}", line
    if not user["behind"] or _PORT.match(user["behind"]):
        return rest, line
    # A password with spaces in it, or an address that was cut off.
    _, at, behind = line.partition("@")
    return f"{user['user']}:{HIDDEN}{at}", behind if at else line


def _hide_query(found: re.Match[str]) -> str:
    return found["key"] + (HIDDEN if _SECRET_KEY.search(unquote(found["key"])) else found["value"])


def _hide_setting(found: re.Match[str]) -> str:
    value = found["value"]
    if value.strip("\"'") in {"", HIDDEN, "None", "null"}:
        return found[0]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{found['key']}{quote}{HIDDEN}{quote}"


class LedgerUrl:
    """Where a ledger is: a file, or the URL of a database. As text it never shows a password.

    Args:
        text: As it stands in the site file.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        if not self.is_url:
            return self._text
        # Here it is known where the address ends: not at the first space of a password.
        scheme, _, rest = self._text.partition("://")
        rest, line = _hide_user(_WHOLE_QUERY.sub(_hide_query, rest), "")
        return without_passwords(f"{scheme}://{rest}{line}")

    def __repr__(self) -> str:
        return repr(str(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LedgerUrl) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> Any:
        return LedgerUrl, (self._text,)

    @property
    def is_url(self) -> bool:
        """Whether it is the URL of a database, and no file."""
        return "://" in self._text

    @property
    def has_secret(self) -> bool:
        """Whether `reveal` gives more than may be shown."""
        return str(self) != self._text

    @property
    def is_hidden(self) -> bool:
        """Whether it was read from where it had been shown only: the password must come from elsewhere."""
        return self.is_url and HIDDEN in self._text and not self.has_secret

    @property
    def problem(self) -> str:
        """What is wrong with it, empty if nothing is: half a URL would be taken for the name of a file."""
        if self.is_url or not (_NO_SLASHES.match(self._text) or _CONNECTION_WORDS.match(self._text)):
            return ""
        return f"looks like the address of a database, but is none: write {FORM}"

    def reveal(self) -> str:
        """The whole text with its password. For whoever connects, and for nobody else."""
        return self._text

    def completed(self, environment: Mapping[str, str] | None = None) -> LedgerUrl:
        """This address with its password from the environment, if it is hidden and the environment has it."""
        given = LedgerUrl((os.environ if environment is None else environment).get(LEDGER_VARIABLE, ""))
        return given if self.is_hidden and str(given) == str(self) else self

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        """Read from a text, written without password."""
        from pydantic_core import core_schema

        def checked(text: str) -> LedgerUrl:
            url = cls(text)
            if url.problem:
                raise ValueError(url.problem)
            return url

        from_text = core_schema.no_info_after_validator_function(checked, core_schema.str_schema(min_length=1))
        return core_schema.no_info_before_validator_function(
            lambda value: value.reveal() if isinstance(value, cls) else value,
            from_text,
            serialization=core_schema.to_string_ser_schema(),
        )
