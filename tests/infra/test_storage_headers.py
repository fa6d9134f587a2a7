"""Of exposures on an object store only the headers are fetched to see what there is to do."""

import uuid

import numpy as np
import pytest
from astropy.io import fits
from fault_proxy import faulty, make_bucket, point_at, s3_process

from flows.graph import read_headers
from infra.products.fits import header_from_start, read_header, write_fits
from infra.products.header import Header
from infra.products.image import Image, write_image
from infra.storage.store import publish, read_start, write_text


@pytest.fixture(scope="module")
def server():
    with s3_process() as port:
        yield port


def exposure(path, size=200):
    header = Header({"TELESCOP": "JWST", "INSTRUME": "NIRISS", "EXP_TYPE": "NIS_IMAGE", "TARG_RA": 5.25, "RA_REF": 5.0})
    empty = np.zeros((size, size), np.float32)
    write_image(Image(data=empty, err=empty, dq=empty.astype(np.uint32), header=header), path)
    return path


def test_the_start_of_a_file_tells_the_header_that_the_file_has(tmp_path):
    path = exposure(tmp_path / "a_rate.fits")
    start = read_start(str(path), 65536)
    assert len(start) == 65536
    assert header_from_start(start) == read_header(path)


@pytest.mark.filterwarnings("ignore:Unexpected extra padding")  # astropy's first word on a header that is cut
def test_where_the_start_does_not_tell_it_says_so(tmp_path):
    path = exposure(tmp_path / "a_rate.fits")
    start = path.read_bytes()
    assert header_from_start(start[:5000]) is None, "it ends in the header"
    assert header_from_start(b"") is None
    assert header_from_start(b"no FITS file" * 1000) is None
    fits.PrimaryHDU(np.zeros((10, 10))).writeto(tmp_path / "primary.fits")
    assert header_from_start((tmp_path / "primary.fits").read_bytes()) is None
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(name="ERR"), fits.ImageHDU(name="SCI")]).writeto(
        tmp_path / "late.fits"
    )
    assert header_from_start((tmp_path / "late.fits").read_bytes()) is None


def test_headers_of_remote_exposures_cost_a_few_kilobytes_each(server, tmp_path, monkeypatch):
    point_at(server, monkeypatch)
    bucket = make_bucket(f"bucket-{uuid.uuid4().hex[:8]}")
    path = exposure(tmp_path / "a_uncal.fits", 500)
    urls = [publish(path, f"{bucket}/{number}_uncal.fits") for number in range(5)]
    write_fits(tmp_path / "late.fits", "JwstDataModel", Header({"INSTRUME": "MIRI"}), [])
    late = publish(tmp_path / "late.fits", f"{bucket}/late_uncal.fits")
    bad = write_text(f"{bucket}/bad_uncal.fits", "no FITS file")
    sent = []
    with faulty(server, lambda number, line: None) as proxy:
        ask = proxy._ask

        def count(head, body, no_body):
            answer = ask(head, body, no_body)
            sent.append(len(answer[1]))
            return answer

        proxy._ask = count
        point_at(proxy.port, monkeypatch)
        headers = read_headers([*urls, late, bad])
    assert headers == dict.fromkeys(urls, read_header(path)) | {late: read_header(tmp_path / "late.fits")}
    assert sum(sent) < 600_000, "of more than 15 MB"
