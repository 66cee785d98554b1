"""Files that are named on the command line."""

from pathlib import Path

from picomdm.errors import SetupError


def read_file(file: Path) -> bytes:
    """Return a file's content. Raises :class:`~picomdm.errors.SetupError` when it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror}.", code="file_unreadable") from error


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text file that say something, without blanks around them."""
    text = read_file(file).decode(errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
