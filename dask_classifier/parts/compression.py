"""Compressed bytes: the gzip members and zstd frames that parts are made of."""

import io

from isal import igzip, igzip_lib


def gzip_member(data: bytes) -> bytes:
    """Return one gzip member without a time stamp.

    ISA-L at level 1 makes it at 330 MB/s, and smaller than zlib at level 6 does at 19 MB/s.
    """
    return igzip_lib.compress(data, 1, flag=igzip_lib.COMP_GZIP)


def gunzip(data: bytes) -> bytes:
    """Return the text of gzip members."""
    return igzip.decompress(data)


def gunzip_beginning(data: bytes) -> bytes:
    """Return as much text as the first bytes of a gzip member hold."""
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP).decompress(data)


def zstd_frame(data: bytes) -> bytes:
    """Return one zstd frame, level 3."""
    import zstandard  # few need it

    return zstandard.compress(data, 3)


def unzstd(data: bytes) -> bytes:
    """Return the text of zstd frames."""
    import pyarrow as pa

    with pa.CompressedInputStream(io.BytesIO(data), "zstd") as stream:
        return stream.read()


def unzstd_beginning(data: bytes) -> bytes:
    """Return as much text as the first bytes of a zstd frame hold."""
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(data)
