"""Sends OTLP requests to a URL from several threads, in a process of its own: `sender.py URL SENDERS < bodies.json`.

Prints the seconds it took, the files whose request was answered with 200, and how many were not.
"""

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

_HEADERS = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": "0"}


class Sent(NamedTuple):
    """What came of the requests; both lists are shared by the threads."""

    acknowledged: list[str]
    refused: list[str]


def send(url: str, files: Iterator[str], lock: threading.Lock, sent: Sent) -> None:
    """Sends what is left until there is nothing, or the server is gone."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    while True:
        with lock:
            file = next(files, None)
        if file is None:
            return
        try:
            connection.request("POST", parts.path, Path(file).read_bytes(), _HEADERS)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            sent.refused.append(file)
            return
        (sent.acknowledged if answer.status == 200 else sent.refused).append(file)


def main(url: str, senders: int) -> None:
    files = iter(json.load(sys.stdin))
    sent, lock = Sent([], []), threading.Lock()
    threads = [threading.Thread(target=send, args=(url, files, lock, sent)) for _ in range(senders)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "acknowledged": sent.acknowledged, "refused": len(sent.refused)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
