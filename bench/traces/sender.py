"""Sends OTLP requests to a URL from several threads, in a process of its own: `sender.py URL SENDERS < bodies.json`.

Prints the seconds it took, the files whose request was answered with 200, and the number of the others.
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


class SendResult(NamedTuple):
    """The outcome of the requests; both lists are shared by the threads."""

    acknowledged: list[str]
    refused: list[str]


def send(url: str, files: Iterator[str], lock: threading.Lock, result: SendResult) -> None:
    """Sends the remaining files, until there are none or the server is gone."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    while True:
        with lock:
            file = next(files, None)
        if file is None:
            return
        try:
            connection.request("POST", parts.path, Path(file).read_bytes(), _HEADERS)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            result.refused.append(file)
            return
        (result.acknowledged if response.status == 200 else result.refused).append(file)


def main(url: str, senders: int) -> None:
    files = iter(json.load(sys.stdin))
    result, lock = SendResult([], []), threading.Lock()
    threads = [threading.Thread(target=send, args=(url, files, lock, result)) for _ in range(senders)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "acknowledged": result.acknowledged, "refused": len(result.refused)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
