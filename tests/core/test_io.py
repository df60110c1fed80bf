import errno

import pytest

from gristmill.core import io
from gristmill.core.cli import guarded
from gristmill.core.errors import BadInputError, TryAgainError
from gristmill.core.journal import read_events


class Answered(Exception):
    """As clients of Azure and Google say that a store has answered with a status."""

    def __init__(self, status_code):
        super().__init__(f"HTTP {status_code}")
        self.status_code = status_code


@pytest.fixture
def nobody(s3_server, monkeypatch, tmp_path):
    """An S3 server, and no credentials for it."""
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    yield monkeypatch
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    "ask",
    [
        io.exists,
        io.size_bytes,
        io.list_files,
        io.open_read,
        io.read_bytes,
        lambda uri: io.read_range(uri, 0, 4),
        lambda uri: io.write_bytes(uri, b"x"),
    ],
)
def test_a_store_that_cannot_be_asked_is_one_line_that_names_the_uri(nobody, ask, capsys):
    with pytest.raises(BadInputError, match="cannot reach s3://bucket/x: NoCredentialsError") as e:
        ask("s3://bucket/x")
    assert "AWS_PROFILE" in str(e.value) and "\n" not in str(e.value)

    def action():
        ask("s3://bucket/x")
        return 0

    assert guarded(action) == 2
    assert capsys.readouterr().err.startswith("error: cannot reach s3://bucket/x")


@pytest.mark.parametrize(
    "ask", [io.exists, io.list_files, io.read_bytes, lambda uri: io.write_bytes(uri, b"x")]
)
def test_a_store_where_nobody_answers_is_to_be_tried_again(nobody, ask, capsys):
    nobody.setenv("AWS_ACCESS_KEY_ID", "x")
    nobody.setenv("AWS_SECRET_ACCESS_KEY", "x")
    nobody.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    nobody.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(TryAgainError, match="cannot reach s3://bucket/x now: Endpoint"):
        ask("s3://bucket/x")
    assert guarded(lambda: ask("s3://bucket/x")) == 75


def test_an_unlucky_read_is_no_missing_file(tmp_path, monkeypatch):
    assert io.read_if_there(str(tmp_path / "none")) is None
    with pytest.raises(BadInputError, match="is a folder"):
        io.read_if_there(str(tmp_path))

    def busy(*_):
        raise OSError(errno.EBUSY, "SlowDown")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", busy)
    with pytest.raises(TryAgainError, match="SlowDown"):
        read_events("memory://run")


def test_what_a_client_raises_is_told_by_what_it_is():
    for error, wanted in (
        (RuntimeError("odd\n  words."), BadInputError),
        (PermissionError("no"), BadInputError),
        (FileNotFoundError("no"), FileNotFoundError),
        (ConnectionError("lost"), ConnectionError),
        (OSError(errno.EBUSY, "SlowDown"), TryAgainError),
        (OSError(errno.EINVAL, "no such header"), OSError),
        (Answered(503), TryAgainError),
        (Answered(429), TryAgainError),
        (Answered(400), BadInputError),
    ):
        with pytest.raises(wanted) as caught, io.reaching("s3://user:secret@host/x?sig=1"):
            raise error
        if wanted is BadInputError:
            assert "secret" not in str(caught.value) and "sig" not in str(caught.value)
    with pytest.raises(BadInputError, match="odd words; check"), io.reaching("gs://b/x"):
        raise RuntimeError("odd\n  words.")
    with pytest.raises(PermissionError), io.reaching("/here"):
        raise PermissionError("no")
