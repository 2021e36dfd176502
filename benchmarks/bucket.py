"""Serve an in-memory bucket that is fast enough for a benchmark.

moto answers about 200 requests per second, S3 thousands. Only what s3fs needs is implemented: put, get, head and list.
Nothing is validated; tests use moto.

    python benchmarks/bucket.py [FOLDER]     prints its address; s3://bucket/NAME is the file NAME of the folder
"""

import asyncio
import hashlib
import mmap
import sys
from pathlib import Path
from xml.sax.saxutils import escape

from aiohttp import web

PAGE = 1000  # keys, as in S3


class Bucket:
    """Objects by path: /bucket/key."""

    def __init__(self):
        self.objects, self.tags = {}, {}

    async def handle(self, request):
        path = request.path
        if request.method == "GET" and "list-type" in request.query:
            return self.list(path.strip("/"), request.query)
        if request.method == "PUT":
            self.objects[path] = await request.read()
            self.tags.pop(path, None)
            return web.Response(headers=self.headers(path))
        if path not in self.objects:
            return web.Response(status=404)
        if request.method == "DELETE":
            del self.objects[path]
            return web.Response(status=204)
        if request.method == "HEAD":
            return web.Response(headers=self.headers(path) | {"Content-Length": str(len(self.objects[path]))})
        span = request.http_range
        return web.Response(
            body=bytes(self.objects[path][span]), headers=self.headers(path), status=206 if span.stop else 200
        )

    def headers(self, path):
        if path not in self.tags:
            self.tags[path] = hashlib.md5(self.objects[path], usedforsecurity=False).hexdigest()
        return {"ETag": f'"{self.tags[path]}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}

    def list(self, bucket, query):
        """Return a page of the keys that start with a prefix."""
        begin = f"/{bucket}/"
        prefix, after = begin + query.get("prefix", ""), query.get("continuation-token", "")
        keys = sorted(path for path in self.objects if path.startswith(prefix) and path > after)
        page = keys[: min(PAGE, int(query.get("max-keys", PAGE)))]
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(keys) > len(page) else ""
        contents = "".join(
            f"<Contents><Key>{escape(path.removeprefix(begin))}</Key><Size>{len(self.objects[path])}</Size>"
            f"<ETag>{escape(self.headers(path)['ETag'])}</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for path in page
        )
        text = f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}<KeyCount>{len(page)}</KeyCount>{contents}"
        return web.Response(text=f"<ListBucketResult>{text}</ListBucketResult>", content_type="application/xml")


async def serve():
    application = web.Application(client_max_size=2**30)
    bucket = Bucket()
    for file in Path(sys.argv[1]).iterdir() if len(sys.argv) > 1 else ():
        with file.open("rb") as content:
            bucket.objects[f"/bucket/{file.name}"] = mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ)
    application.router.add_route("*", "/{path:.*}", bucket.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
