"""Signatures are compared with what Huawei's own SDKs produced (`tests/data/signing.json`)."""

import json
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
