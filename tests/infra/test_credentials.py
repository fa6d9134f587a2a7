"""What people read has no credential in it."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import errors
from infra.credentials import has_credentials, hide_credentials
from infra.storage.store import StorageError, check_url, exists, read_text, require_writable, write_text

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEBYaDNotARealToken//////////wEaDO==",
    "AWS_ACCESS_KEY_ID": "someaccesskey",
    "PREFECT_API_KEY": "pnu_0123456789abcdefghijklmnopqrstuvwxyz",
    "PREFECT_SERVER_API_AUTH_STRING": "admin:correct horse",
    "ARCHIVE_PASSWORD": "p4ss w0rd",
}


@pytest.fixture
def secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("value", SECRETS.values())
def test_values_of_secret_variables_are_hidden_wherever_they_stand(secrets, value):
    assert hide_credentials(f"the server said {value}!") == "the server said ***!"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("cannot reach https://me:pass@host/x", "cannot reach https://***@host/x"),
        ("postgresql+asyncpg://me:p@ss@db:5432/prefect", "postgresql+asyncpg://***@db:5432/prefect"),
        ("https://token@host/x", "https://***@host/x"),
        (
            "GET https://b.s3.amazonaws.com/a?X-Amz-Credential=AKIA%2F20260101&X-Amz-Expires=60&X-Amz-Signature=0a1b2c",
            "GET https://b.s3.amazonaws.com/a?X-Amz-Credential=***&X-Amz-Expires=60&X-Amz-Signature=***",
        ),
        (
            "https://h/a?AWSAccessKeyId=AKI&Signature=abc%3D&Expires=1",
            "https://h/a?AWSAccessKeyId=***&Signature=***&Expires=1",
        ),
        ("https://blob/a?sv=2020&sig=abc", "https://blob/a?sv=2020&sig=***"),
        ("the key AKIAIOSFODNN7EXAMPLE is unknown", "the key *** is unknown"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("{'authorization': b'AWS4-HMAC-SHA256 Credential=x'}", "{'authorization': b'***'}"),
        ("key pnu_0123456789abcdefghij is wrong", "key *** is wrong"),
    ],
)
def test_urls_and_keys_are_hidden(text, hidden):
    assert hide_credentials(text) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "jump: 1250 hits in 10 groups, 3 sigma",
        "s3://bucket/jw01087001001_02101_00001_nis_rate.fits does not exist; correct the path",
        "http://127.0.0.1:4200/api",
        "flux [mJy] = 3.2 @ 2.0 um; mail me@home",
        "/home/me/AKIRA/a@b.fits",
    ],
)
def test_what_is_no_secret_stays(text):
    assert hide_credentials(text) == text
    assert not has_credentials(text)


def test_short_values_and_names_of_files_are_no_secrets(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token")
    assert hide_credentials("a secret of /var/run/token") == "a secret of /var/run/token"


@given(before=st.text(max_size=20), after=st.text(max_size=20))
def test_no_text_around_it_shows_a_secret(before, after):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_KEY", "Zq7+secret/value=")
        assert "Zq7+secret/value=" not in hide_credentials(f"{before}Zq7+secret/value={after}")


def test_log_lines_of_all_libraries_and_their_traces_hide_them(secrets, caplog):
    key = SECRETS["AWS_SECRET_ACCESS_KEY"]
    logging.getLogger("botocore.endpoint").warning("signing with %s at %s", key, "https://me:pass@host")
    try:
        raise ValueError(f"{key} is wrong")
    except ValueError:
        logging.getLogger("somebody").exception("it failed with %s", key)
    assert "signing with *** at https://***@host" in caplog.text
    assert "ValueError: *** is wrong" in caplog.text
    assert key not in caplog.text


def test_our_errors_and_those_that_nobody_foresaw_hide_them(secrets):
    key = SECRETS["PREFECT_API_KEY"]
    assert key not in str(StorageError(f"cannot read https://me:{key}@host/a"))
    assert key not in errors.one_line(RuntimeError(f"key {key}"))[1]


@pytest.mark.parametrize(
    "url",
    ["s3://key:password@bucket/a.txt", "https://me:pass@host/a.txt", "https://host/a.txt?X-Amz-Signature=0a1b2c3d"],
)
def test_a_url_with_a_credential_is_refused_before_anything_is_asked(url):
    for use in (read_text, exists, check_url, require_writable, lambda url: write_text(url, "x")):
        with pytest.raises(StorageError, match="give them by the environment") as caught:
            use(url)
        assert not any(secret in str(caught.value) for secret in ("pass", "0a1b2c3d", "key:"))
