"""Signatures are compared with what Huawei's own SDKs produced (`tests/data/signing.json`)."""

import hashlib
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dis_logging.client.signing import (
    SignableRequest,
    SignatureScheme,
    authorization,
    canonical_request,
    payload_hash,
    string_to_sign,
)
from dis_logging.emulator.authorization import parse_authorization

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "signing.json").read_text("utf-8"))
AK = VECTORS["credentials"]["ak"]
SK = VECTORS["credentials"]["sk"]
REGION = VECTORS["region"]
SCHEMES = {
    "sdk-hmac-sha256-credential": SignatureScheme.SCOPED,
    "sdk-hmac-sha256-access": SignatureScheme.ACCESS,
    "v11-hmac-sha256-core": SignatureScheme.V11_CORE,
    "v11-hmac-sha256-dis-scope": SignatureScheme.V11,
}
CASES = [
    pytest.param(SCHEMES[scheme["id"]], vector, id=f"{scheme['id']}-{vector['name']}")
    for scheme in VECTORS["schemes"]
    for vector in scheme["vectors"]
]


def request_of(vector: dict[str, Any]) -> SignableRequest:
    headers = vector["headers_signed"]
    hashed = headers.get("x-sdk-content-sha256") or payload_hash(vector["body"].encode())
    return SignableRequest(vector["method"], vector["path"], [tuple(pair) for pair in vector["query"]], headers, hashed)


@pytest.mark.parametrize(("scheme", "vector"), CASES)
def test_signature_equals_the_official_sdk(scheme: SignatureScheme, vector: dict[str, Any]) -> None:
    request = request_of(vector)

    assert canonical_request(request) == vector["canonical_request"]
    assert string_to_sign(scheme, request, REGION) == vector["string_to_sign"]
    assert authorization(scheme, request, REGION, AK, SK) == vector["authorization"]


@pytest.mark.parametrize(("scheme", "vector"), CASES)
def test_authorization_header_is_taken_apart(scheme: SignatureScheme, vector: dict[str, Any]) -> None:
    parsed = parse_authorization(vector["authorization"])

    assert parsed is not None
    assert (parsed.scheme, parsed.ak, parsed.signature) == (scheme, AK, vector["signature"])
    assert set(parsed.signed_headers) == set(vector["headers_signed"])


@pytest.mark.parametrize("size", [0, 1, 2046, 2047, 2048, 4094, 4095, 100_000])
def test_a_body_of_any_size_is_hashed_as_a_whole(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)

    assert payload_hash(body[:size]) == hashlib.sha256(body[:size]).hexdigest()


def test_no_other_thread_gets_the_interpreter_while_a_body_is_hashed() -> None:
    """A busy one would not give it back for 5 ms, in every request."""
    turns = [0]
    is_over = threading.Event()

    def take_turns() -> None:
        while not is_over.is_set():
            turns[0] += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # nobody is interrupted
    thread = threading.Thread(target=take_turns)
    thread.start()
    try:
        before = turns[0]
        payload_hash(bytes(10_000_000))
        assert turns[0] == before
    finally:
        is_over.set()
        sys.setswitchinterval(interval)
        thread.join()
