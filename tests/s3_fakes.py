"""An S3 server on this machine, and one that refuses all that it is asked."""

import logging
import threading
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What its client needs to sign with; the server takes any.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def url(port, bucket="bucket", prefix="kept/runs"):
    return (
        f"s3://{bucket}/{prefix}?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
    )


@contextmanager
def s3_server(port=0, bucket="bucket"):
    """The port of a server with one empty bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    if bucket is not None:
        make = urllib.request.Request(f"http://127.0.0.1:{port}/{bucket}", method="PUT")
        urllib.request.urlopen(make).close()
    try:
        yield port
    finally:
        server.stop()


@contextmanager
def refusing_server(code, status):
    """The port of one that answers ``status`` with S3's error ``code``, and counts requests."""

    class Refuse(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            server.asked += 1
            text = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
            text = b"" if self.command == "HEAD" else text
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    server.asked = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
