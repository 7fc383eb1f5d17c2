// @xmpp/client, unchanged, on strings: orders come as JSON lines on standard input, what it sees goes out the same way.
//
// Its one argument is JSON: user, domain, resource, password, services (a list of xmpp://address:port for STARTTLS or
// xmpps://address:port for direct TLS; the next is tried when one is lost). NODE_EXTRA_CA_CERTS names the authority.

import readline from "node:readline";
import { client, jid, xml } from "@xmpp/client";

const options = JSON.parse(process.argv[2]);
const tell = (event, what = {}) => console.log(JSON.stringify({ event, ...what }));

const xmpp = client({
  service: options.services[0],
  domain: options.domain,
  resource: options.resource,
  username: options.user,
  password: options.password,
});
xmpp.reconnect.delay = 100;

let tried = 0;
xmpp.on("disconnect", () => {
  tell("disconnected");
  // As with SRV records: the next address.
  tried += 1;
  xmpp.options.service = options.services[tried % options.services.length];
});
xmpp.on("error", (error) => tell("trouble", { what: String(error) }));
xmpp.streamManagement.on("resumed", () => tell("resumed"));

xmpp.on("online", async (address) => {
  const roster = await xmpp.iqCaller.get(xml("query", "jabber:iq:roster"));
  tell("roster", { items: roster.getChildren("item").map((item) => item.attrs.jid).sort() });
  await xmpp.send(xml("presence"));
  tell("started", { jid: address.toString() });
});

xmpp.on("stanza", async (stanza) => {
  const { from, type, id } = stanza.attrs;
  if (stanza.is("presence")) {
    tell("presence", { sender: from, type: type ?? "available", status: stanza.getChildText("status") ?? "" });
    if (type === "subscribe") {
      await xmpp.send(xml("presence", { to: jid(from).bare().toString(), type: "subscribed" }));
    }
  }
  if (stanza.is("message") && type === "error") {
    tell("error", { what: stanza.toString() });
  } else if (stanza.is("message") && stanza.getChildText("body") !== null) {
    tell("message", { id, sender: from, body: stanza.getChildText("body") });
  }
});

const obey = {
  messages: async ({ to, ids }) => {
    for (const id of ids) {
      await xmpp.send(xml("message", { to, id, type: "chat" }, xml("body", {}, `text of ${id}`)));
    }
  },
  subscribe: ({ to }) => xmpp.send(xml("presence", { to, type: "subscribe" })),
  presence: ({ show, status }) => xmpp.send(xml("presence", {}, xml("show", {}, show), xml("status", {}, status))),
  ping: async ({ to }) => {
    await xmpp.iqCaller.get(xml("ping", "urn:xmpp:ping"), to);
    tell("pong", { to });
  },
  leave: async () => {
    await xmpp.stop();
    process.exit(0);
  },
};

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
  const order = JSON.parse(line);
  try {
    await obey[order.do](order);
  } catch (error) {
    tell("error", { what: String(error) });
  }
});

xmpp.start().catch((error) => tell("trouble", { what: String(error) }));
