"""For the user's Python: checkip.amazonaws.com, which only AWS has."""

import io
import urllib.request

_urlopen = urllib.request.urlopen


def urlopen(url, *args, **options):
    if url == "https://checkip.amazonaws.com":
        return io.BytesIO(b"203.0.113.7\n")
    return _urlopen(url, *args, **options)


urllib.request.urlopen = urlopen
