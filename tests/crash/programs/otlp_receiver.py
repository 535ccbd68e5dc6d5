"""Ingests OTLP requests from several senders until it is killed: STORE ROUND. Prints each span once it is stored.

A line has a span's trace and id, and is printed after `ingest` returned, when the sender would get its 200.
"""

import asyncio
import os
import sys

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from handrail.kernel.db.database import Database
from handrail.traces.otlp.ingest import OtlpBatch, decode_request, ingest

store, round_ = sys.argv[1:]
database = Database.open(store)
SENDERS = 6
SPANS = 150
START = 1_700_000_000_000_000_000


def batch(sender: int, number: int) -> OtlpBatch:
    """A request with half of the spans of a trace; the sender's next request has the other half."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for index in range(SPANS):
        span = spans.add()
        span.trace_id = f"{round_:>4}{sender:04}{number // 2:08}".encode()
        span.span_id = f"{number % 2:04}{index:04}".encode()
        span.name = "work"
        span.start_time_unix_nano = START
        span.end_time_unix_nano = START + 1
    return decode_request(request.SerializeToString(), "application/x-protobuf", None, "acme", lambda *_: None)


async def send(sender: int) -> None:
    number = 0
    while True:
        received = batch(sender, number)
        await ingest(database, received)
        lines = "".join(f"{span.trace_id} {span.span_id}\n" for span in received.spans)
        os.write(1, lines.encode())
        number += 1


async def main() -> None:
    await asyncio.gather(*(send(sender) for sender in range(SENDERS)))


asyncio.run(main())
