#!/usr/bin/env python3
# tram-check: release-only
"""testssl.sh looks at a server of ours, and finds nothing of medium severity or worse but what is named here.

It takes minutes: only with TRAM_TEST_FULL, and where testssl.sh is installed.

rules: S-7, S-25
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

BUILD = pathlib.Path(os.environ.get("TRAM_BUILD_DIR") or "build/release").absolute()

# What it finds, and why that is as it should be.
EXPECTED = {
    "engine_problem": "its own openssl has no GOST",
    "service": "an echo server speaks no HTTP",
    # With s_server it happens as often. interop_tls_servers looks whether sessions are resumed.
    "sessionresumption_ticket": "its s_client has no input, and may have left before the tickets of TLS 1.3 come",
    "cert_revocation": "a certificate of a test has no CRL and no OCSP responder",
    "cert_expirationStatus": "and lives for days",
    "cert_notAfter": "the same",
    "cert_validityPeriod": "the same",
    "DNS_CAArecord": "localhost has no such record",
}

program = shutil.which("testssl") or shutil.which("testssl.sh")
if not os.environ.get("TRAM_TEST_FULL") or not program or not (BUILD / "libtram-tls.so").exists():
    print("only with TRAM_TEST_FULL, testssl.sh and TLS")
    sys.exit(77)

work = pathlib.Path(tempfile.mkdtemp(prefix="tram-testssl-"))


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=work)


def certificates():
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "200"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA")
    openssl("req", "-x509", *key, "-keyout", "server.key", "-out", "server.pem", "-subj", "/CN=localhost", "-addext",
            "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE", "-addext",
            "extendedKeyUsage=serverAuth", "-CA", "ca.pem", "-CAkey", "ca.key")


def findings(port):
    """Of all that it looks at, but the list of every cipher and what other programs would agree on."""
    subprocess.run([program, "--protocols", "--std", "--fs", "--server-preference", "--server-defaults",
                    "--vulnerabilities", "--add-ca", work / "ca.pem", "--severity", "MEDIUM", "--jsonfile",
                    work / "found.json", "--ip", "127.0.0.1", "--nodns", "none", "--color", "0", "--quiet",
                    f"localhost:{port}"],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=work, timeout=1800)
    return json.loads((work / "found.json").read_text())


problems = 0
try:
    certificates()
    server = subprocess.Popen([BUILD / "tools/tram-echo", "--port", "0", "--tls-cert", "server.pem", "--tls-key",
                               "server.key", "--workers", "1"], stdout=subprocess.PIPE, text=True, cwd=work)
    try:
        port = server.stdout.readline().split()[2].rpartition(":")[2]
        found = findings(port)
    finally:
        server.kill()
    for finding in found:
        expected = EXPECTED.get(finding["id"].split(" ")[0])
        problems += not expected
        print(f"{'ok' if expected else 'FAILED':7} {finding['id']} {finding['severity']}: {finding['finding']}"
              + (f" ({expected})" if expected else ""))
finally:
    shutil.rmtree(work, ignore_errors=True)
print(f"{len(found)} findings, {problems} problems")
sys.exit(1 if problems else 0)
