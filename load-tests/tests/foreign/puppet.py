"""slixmpp, unchanged, on strings: orders come as JSON lines on standard input, what it sees goes out the same way.

Its one argument is JSON: jid, password, ca, nodes (a list of [service, address, port], in the order of SRV records; the
service is xmpps-client for direct TLS and xmpp-client for STARTTLS).
"""

import asyncio
import json
import sys

from slixmpp import ClientXMPP, Message


def tell(event, **what):
    print(json.dumps({"event": event, **what}), flush=True)


class Puppet(ClientXMPP):
    def __init__(self, options):
        super().__init__(options["jid"], options["password"])
        self.ca_certs = options["ca"]
        self.nodes = [tuple(node) for node in options["nodes"]]
        self.leaving = False
        for plugin in ("xep_0030", "xep_0198", "xep_0199", "xep_0280"):
            self.register_plugin(plugin)
        for event, handler in {
            "session_start": self.started,
            "session_resumed": lambda _: tell("resumed"),
            "sm_enabled": lambda _: tell("sm"),
            "sm_failed": lambda _: tell("sm_failed"),
            "failed_auth": lambda _: tell("failed_auth"),
            "disconnected": self.gone,
            "message": self.shown,
            "message_error": lambda stanza: tell("error", what=str(stanza)),
            "carbon_received": lambda stanza: self.carbon("received", stanza["carbon_received"]),
            "carbon_sent": lambda stanza: self.carbon("sent", stanza["carbon_sent"]),
            "presence": self.presence,
            "stream_error": lambda error: tell("stream_error", what=error["condition"]),
        }.items():
            self.add_event_handler(event, handler)
        self.add_filter("out_sync", self.wrote)

    async def get_dns_records(self, domain, port=None):
        """What SRV records of the domain would say."""
        return [(service, address, address, port) for service, address, port in self.nodes]

    async def started(self, _):
        await self.get_roster()
        tell("roster", items=sorted(self.client_roster.keys()))
        self.send_presence()
        tell("started", jid=str(self.boundjid))

    def gone(self, reason):
        tell("disconnected", reason=str(reason))
        if not self.leaving:
            self.connect()

    @staticmethod
    def wrote(stanza):
        if isinstance(stanza, Message):
            tell("wrote", id=stanza["id"])
        return stanza

    @staticmethod
    def shown(stanza):
        tell("message", id=stanza["id"], sender=str(stanza["from"]), body=stanza["body"])

    @staticmethod
    def carbon(kind, message):
        tell("carbon", kind=kind, id=message["id"], body=message["body"])

    @staticmethod
    def presence(stanza):
        tell("presence", sender=str(stanza["from"]), type=stanza["type"], status=stanza["status"])

    async def obey(self, order):
        do = order["do"]
        if do == "messages":
            for id in order["ids"]:
                stanza = self.make_message(order["to"], f"text of {id}", mtype="chat")
                stanza["id"] = id
                stanza.send()
        elif do == "subscribe":
            self.send_presence_subscription(order["to"])
        elif do == "presence":
            self.send_presence(pshow=order["show"], pstatus=order["status"])
        elif do == "carbons":
            await self.plugin["xep_0280"].enable()
            tell("carbons")
        elif do == "ping":
            await self.plugin["xep_0199"].ping(order["to"])
            tell("pong", to=order["to"])
        elif do == "disco":
            info = await self.plugin["xep_0030"].get_info(order["to"])
            tell("disco", features=sorted(info["disco_info"]["features"]))
        elif do == "leave":
            self.leaving = True
            await self.disconnect()
            sys.exit(0)


async def main():
    puppet = Puppet(json.loads(sys.argv[1]))
    puppet.connect()
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        try:
            await puppet.obey(json.loads(line))
        except Exception as error:  # The test waits for what should have come, and shows this.
            tell("error", what=repr(error))


asyncio.run(main())
