"""Pairs from a table of urls, fetched by img2dataset from a server on loopback."""

import hashlib
import http.server
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up import picture, uid

from gristmill.core.errors import BadInputError
from gristmill.core.job import run_job
from gristmill.pools.ingest import IngestJob
from gristmill.pools.urls import Urls

pytestmark = pytest.mark.ray


@pytest.fixture
def site():
    """The address of a server that knows /0.jpg to /9.jpg, and noise at /noise.jpg."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.strip("/").removesuffix(".jpg")
            known = name.isdigit() and int(name) < 10
            self.send_response(200 if known or name == "noise" else 404)
            self.end_headers()
            if known or name == "noise":
                self.wfile.write(picture(int(name)) if known else b"not a picture")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def write_table(path, site):
    names = [*map(str, range(8)), "noise", "gone", "gone2"]
    body = {n: picture(int(n)) if n.isdigit() else b"not a picture" for n in names}
    hashes = [hashlib.sha256(body[n]).hexdigest() for n in names]
    hashes[3] = "f" * 64  # the picture behind this url is another one by now
    table = {
        "url": [f"{site}/{n}.jpg" for n in names],
        "text": [f"picture {n}" for n in names],
        "uid": [uid(n) for n in names],
        "sha256": hashes,
    }
    pq.write_table(pa.table(table), path)


@pytest.mark.slow
def test_availability_is_counted_and_uids_are_kept(site, tmp_path):
    write_table(tmp_path / "t.parquet", site)
    source = Urls(table=str(tmp_path / "t.parquet"), verify_hash=True, threads=4)
    run = run_job(IngestJob(source=source, out=str(tmp_path / "pool")))
    summary = run.done()["summary"]
    assert summary["asked"] == 11
    assert summary["failed_to_fetch"] == 3
    assert summary["hash_mismatches"] == 1
    assert summary["kept"] == 7
    rows = pq.read_table(tmp_path / "pool" / "metadata" / "00000000.parquet").to_pylist()
    assert {r["uid"] for r in rows} == {uid(n) for n in "0124567"}
    assert {r["original_width"] for r in rows} == {48}
    assert all(r["url"].startswith(site) for r in rows)


def test_a_table_without_the_columns_is_refused(tmp_path):
    pq.write_table(pa.table({"link": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(BadInputError, match="no column url"):
        run_job(IngestJob(source=Urls(table=str(tmp_path / "t.parquet")), out=str(tmp_path / "p")))
    with pytest.raises(BadInputError, match="no parquet table"):
        run_job(IngestJob(source=Urls(table=str(tmp_path / "absent")), out=str(tmp_path / "p2")))
