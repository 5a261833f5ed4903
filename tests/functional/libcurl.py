"""
Fetch a URL through a SOCKS5 proxy, with a ticket: a curl(1) that can.

curl's GSS-API is broken in the versions that Debian 12 and 13 have (7.88, 8.14): its state machine
forgets that it has offered the method. libcurl comes with PycURL, in a version that works.

    python libcurl.py PROXY URL [nec]
"""

import sys
from io import BytesIO

import pycurl

AUTH_GSSAPI = 1 << 2  # CURLAUTH_GSSAPI, which PycURL has no name for
SOCKS5_AUTH = 267  # CURLOPT_SOCKS5_AUTH, likewise

proxy, url, *options = sys.argv[1:]
page = BytesIO()
curl = pycurl.Curl()
curl.setopt(pycurl.URL, url)
curl.setopt(pycurl.PROXY, proxy)
curl.setopt(pycurl.NOPROXY, "")
curl.setopt(pycurl.TIMEOUT, 20)
curl.setopt(pycurl.WRITEDATA, page)
curl.setopt(SOCKS5_AUTH, AUTH_GSSAPI)
if "nec" in options:
    curl.setopt(pycurl.SOCKS5_GSSAPI_NEC, 1)
try:
    curl.perform()
except pycurl.error as error:
    sys.exit(f"curl: {error}")
sys.stdout.buffer.write(page.getvalue())
