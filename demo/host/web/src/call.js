import { ClientEvent, MatrixEventEvent, RoomStateEvent } from "matrix-js-sdk";
import { ClientWidgetApi, Widget } from "matrix-widget-api";
import { Driver, readable } from "./driver.js";
import { Trouble } from "./trouble.js";

// Until Element Call has loaded. What comes then may wait for a person, who is
// asked for camera and microphone.
const openTimeout = 45_000;

// Call is one stay in the call: Element Call in a frame, fed from the client.
// It calls back joined(), left() and failed(error), each at most once.
export class Call {
  constructor({ client, room, account, lang, title, auto, stage, joined, left, failed }) {
    Object.assign(this, { client, room, joined, left });
    this.failed = (error) => { this.end(); failed(error); };
    this.seen = new Set();
    this.stops = [];
    this.frame = document.createElement("iframe");
    this.frame.title = title;
    this.frame.allow = "camera; microphone; display-capture; autoplay; clipboard-write; fullscreen";
    const widget = new Widget({
      id: `passerelle-${crypto.randomUUID()}`,
      creatorUserId: client.getUserId(),
      type: "m.custom",
      url: new URL("ec/index.html", location.href).href,
      waitForIframeLoad: false,
      roomId: room.roomId,
      data: {},
    });
    this.frame.src = address(widget, { client, room, account, lang, auto });
    stage.append(this.frame);
    this.api = new ClientWidgetApi(widget, this.frame, new Driver(client, room));
    this.api.setViewedRoomId(room.roomId);
    this.listen();
    this.api.once("ready", () => {
      clearTimeout(this.timer);
      this.feed();
    });
    this.api.once("error:preparing", (cause) => this.failed(new Trouble("call", cause)));
    this.timer = setTimeout(() => this.failed(new Trouble("call")), openTimeout);
  }

  // listen answers what Element Call asks of its host. content_loaded is not
  // among it: ClientWidgetApi answers that itself.
  listen() {
    const answer = (action, then, data = {}) =>
      this.api.on(`action:${action}`, (event) => {
        event.preventDefault();
        this.api.transport.reply(event.detail, data);
        then?.();
      });
    answer("set_always_on_screen", null, { success: true });
    answer("io.element.device_mute", null);
    answer("io.element.join", this.joined);
    answer("im.vector.hangup", null);
    answer("io.element.close", () => { this.end(); this.left(); });
  }

  // feed passes on what the client receives from now on.
  feed() {
    const on = (source, event, handler) => {
      source.on(event, handler);
      this.stops.push(() => source.off(event, handler));
    };
    on(this.client, ClientEvent.Event, (event) => this.pass(event));
    on(this.client, MatrixEventEvent.Decrypted, (event) => this.pass(event));
    on(this.client, RoomStateEvent.Events, (event) => {
      if (event.getRoomId() === this.room.roomId) this.deliver(this.api.feedStateUpdate(event.getEffectiveEvent()));
    });
    on(this.client, ClientEvent.ReceivedToDeviceMessage, ({ message, encryptionInfo }) => {
      this.deliver(this.api.feedToDevice(message, encryptionInfo !== null));
    });
  }

  // pass hands over a timeline event once it can be read. The client reports
  // some events twice.
  pass(event) {
    if (event.getRoomId() !== this.room.roomId || !event.getId()) return;
    if (!readable(event)) {
      this.client.decryptEventIfNeeded(event);
      return;
    }
    if (this.seen.has(event.getId())) return;
    this.seen.add(event.getId());
    this.deliver(this.api.feedEvent(event.getEffectiveEvent()));
  }

  deliver(promise) {
    promise.catch((error) => console.warn("Element Call did not take an event", error));
  }

  end() {
    clearTimeout(this.timer);
    this.stops.splice(0).forEach((stop) => stop());
    this.api.stop();
    this.frame.remove();
  }
}

function address(widget, { client, room, account, lang, auto }) {
  const parameters = new URLSearchParams({
    widgetId: widget.id,
    parentUrl: location.origin,
    roomId: room.roomId,
    userId: account.userId,
    deviceId: account.deviceId,
    baseUrl: client.baseUrl,
    displayName: room.getMember(account.userId)?.name ?? account.userId,
    lang,
    theme: "dark",
    header: "none",
    confineToRoom: "true",
    intent: "join_existing",
    skipLobby: "true",
    allowIceFallback: "false",
  });
  // A machine that joins sends a steady tone, which noise suppression would
  // take for noise.
  if (auto) {
    parameters.set("echoCancellation", "false");
    parameters.set("noiseSuppression", "false");
  }
  return `ec/index.html#?${parameters}`;
}
