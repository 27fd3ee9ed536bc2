// The page that hosts Element Call for one account of the demonstration. The
// attribute data-state of the document says where it is: loading, ready,
// joining, joined, left or error.
import { Call } from "./call.js";
import { account as fetchAccount, launch } from "./launch.js";
import { connect, strangers } from "./matrix.js";
import { watchPeople } from "./people.js";
import { texts } from "./text.js";
import { Trouble } from "./trouble.js";

const keysTimeout = 10_000;
const keysInterval = 250;

const $ = (id) => document.getElementById(id);

function setState(state) {
  document.documentElement.dataset.state = state;
}

function showError(text, error) {
  console.error(error.kind ?? "error", error.cause ?? error);
  const cause = error.cause?.message;
  $("error").textContent = text.errors[error.kind ?? "call"] + (cause ? ` (${cause})` : "");
  $("error").hidden = false;
  $("status").textContent = "";
  $("notice").hidden = true;
  setState("error");
}

function showFrame({ lang, name }, text) {
  document.documentElement.lang = lang;
  const [other, label] = text.other;
  Object.assign($("language"), { lang: other, hreflang: other, textContent: label, href: `?lang=${other}#${name}` });
  $("status").textContent = text.loading;
  $("join").textContent = text.join;
  $("people-title").textContent = text.inCall;
  $("nobody").textContent = text.nobody;
}

function showRoom(account, room, text) {
  const me = room.getMember(account.userId)?.name ?? account.userId;
  document.title = `${room.name} · ${me} · Passerelle`;
  $("ministry").textContent = account.ministry;
  $("room").textContent = room.name;
  $("name").textContent = me;
  $("user").textContent = account.userId;
  $("encryption").textContent = room.hasEncryptionStateEvent() ? text.encrypted : text.plain;
}

function showPeople(people, me, text) {
  $("nobody").hidden = people.length > 0;
  $("people").replaceChildren(...people.map(({ id, name }) => {
    const item = document.createElement("li");
    item.dataset.user = id;
    item.append(name + (id === me ? text.you : ""));
    const server = document.createElement("span");
    server.textContent = id.slice(id.indexOf(":") + 1);
    item.append(server);
    return item;
  }));
}

// acquaint waits until the others' devices are known, so that they can read
// what this one is about to send; not for ever, some may never come.
async function acquaint(client, room, text) {
  const deadline = Date.now() + keysTimeout;
  for (;;) {
    const missing = await strangers(client, room);
    $("notice").hidden = missing.length === 0;
    if (missing.length === 0 || Date.now() > deadline) return;
    $("notice").textContent = text.waiting(missing.map((m) => m.name).join(", "));
    await new Promise((resolve) => setTimeout(resolve, keysInterval));
  }
}

async function main() {
  const { name, lang, auto } = launch();
  const text = texts[lang];
  addEventListener("hashchange", () => location.reload());
  showFrame({ lang, name }, text);
  try {
    const account = await fetchAccount(name);
    const { client, room } = await connect(account);
    showRoom(account, room, text);
    watchPeople(client, room, (people) => showPeople(people, account.userId, text));

    const ready = (state) => {
      setState(state);
      $("status").textContent = text[state];
      $("join").textContent = state === "left" ? text.again : text.join;
      $("join").disabled = false;
      $("join").hidden = false;
      $("join").focus();
    };
    const failed = (error) => {
      showError(text, error);
      $("join").disabled = false;
    };
    const join = async () => {
      $("join").disabled = true;
      $("error").hidden = true;
      await acquaint(client, room, text);
      setState("joining");
      new Call({
        client, room, account, lang, auto,
        title: text.frame,
        stage: $("stage"),
        joined: () => setState("joined"),
        left: () => ready("left"),
        failed,
      });
    };
    $("join").addEventListener("click", () => join().catch((cause) => failed(new Trouble("call", cause))));
    ready("ready");
    if (auto) $("join").click();
  } catch (error) {
    showError(text, error instanceof Trouble ? error : new Trouble("server", error));
  }
}

main();
