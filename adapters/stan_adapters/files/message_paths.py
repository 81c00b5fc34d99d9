"""Stan's messages say where in a program something happened; of a compiled program they name the copy in the cache."""

from __future__ import annotations

from pathlib import Path

_user_files: dict[str, str] = {}


def name_in_messages(copy: Path, program: str) -> None:
    """From now on messages name the user's file, or what is known of it, where they named the file `copy`."""
    _user_files[str(copy)] = program


def in_users_words(message: str) -> str:
    """The message with the user's files in place of their copies."""
    for copy, program in tuple(_user_files.items()):
        message = message.replace(copy, program)
    return message
