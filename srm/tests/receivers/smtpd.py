"""A mail server for tests: takes mail on a free port of 127.0.0.1 and prints what it took, one line of JSON each.

The only argument is an object of JSON: "tls" is "starttls", "implicit" or "none"; "cert" and "key" name PEM files;
"login" is [user, password], without which nobody is let in, or null; "refused" is a recipient that does not exist.
"""

import asyncio
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

options = json.loads(sys.argv[1])


def tell(what):
    print(json.dumps(what), flush=True)


def authenticate(server, session, envelope, mechanism, data):
    good = [data.login.decode(), data.password.decode()] == options["login"]
    return AuthResult(success=good, handled=good, message=None if good else "535 5.7.8 Wrong password")


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address == options["refused"]:
            return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        tell(
            {
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "tls": session.ssl is not None or options["tls"] == "implicit",
                "authenticated": session.authenticated,
                "message": envelope.content.decode(),
            }
        )
        return "250 OK"


async def main():
    context = None
    if options["tls"] != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options["cert"], options["key"])
    starttls = options["tls"] == "starttls"

    def session():
        return SMTP(
            Handler(),
            hostname="mail.example.org",
            tls_context=context if starttls else None,
            require_starttls=starttls,
            authenticator=authenticate,
            auth_required=options["login"] is not None,
            auth_require_tls=starttls,
        )

    loop = asyncio.get_running_loop()
    implicit = context if options["tls"] == "implicit" else None
    server = await loop.create_server(session, "127.0.0.1", 0, ssl=implicit)
    tell({"port": server.sockets[0].getsockname()[1]})
    await server.serve_forever()


asyncio.run(main())
