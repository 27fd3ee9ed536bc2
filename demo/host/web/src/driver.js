import { EventType, MatrixError } from "matrix-js-sdk";
import { OpenIDRequestState, WidgetDriver } from "matrix-widget-api";

// Driver does for Element Call what a Matrix client does for a widget: it
// sends with this account, and reads from what the client has in memory.
export class Driver extends WidgetDriver {
  constructor(client, room) {
    super();
    this.client = client;
    this.room = room;
  }

  // The page hosts one widget that it ships itself: it grants all it asks for.
  async validateCapabilities(requested) {
    return requested;
  }

  getKnownRooms() {
    return [this.room.roomId];
  }

  async sendEvent(type, content, stateKey = null) {
    const { client, room: { roomId } } = this;
    let sent;
    if (stateKey !== null) {
      sent = await client.sendStateEvent(roomId, type, content, stateKey);
    } else if (type === EventType.RoomRedaction) {
      sent = await client.redactEvent(roomId, content.redacts);
    } else {
      sent = await client.sendEvent(roomId, type, content);
    }
    return { roomId, eventId: sent.event_id };
  }

  async sendStickyEvent(duration, type, content) {
    const { roomId } = this.room;
    const sent = await this.client._unstable_sendStickyEvent(roomId, duration, null, type, content);
    return { roomId, eventId: sent.event_id };
  }

  async sendDelayedEvent(delay, type, content, stateKey = null) {
    const { client, room: { roomId } } = this;
    const sent = stateKey !== null
      ? await client._unstable_sendDelayedStateEvent(roomId, { delay }, type, content, stateKey)
      : await client._unstable_sendDelayedEvent(roomId, { delay }, null, type, content);
    return { roomId, delayId: sent.delay_id };
  }

  async sendDelayedStickyEvent(delay, duration, type, content) {
    const { roomId } = this.room;
    const sent = await this.client._unstable_sendStickyDelayedEvent(roomId, duration, { delay }, null, type, content);
    return { roomId, delayId: sent.delay_id };
  }

  async cancelScheduledDelayedEvent(id) {
    await this.client._unstable_cancelScheduledDelayedEvent(id);
  }

  async restartScheduledDelayedEvent(id) {
    await this.client._unstable_restartScheduledDelayedEvent(id);
  }

  async sendScheduledDelayedEvent(id) {
    await this.client._unstable_sendScheduledDelayedEvent(id);
  }

  async sendToDevice(type, encrypted, contents) {
    if (!encrypted) {
      const map = new Map(Object.entries(contents).map(([user, devices]) => [user, new Map(Object.entries(devices))]));
      await this.client.sendToDevice(type, map);
      return;
    }
    // A device that was not seen yet is asked for once: without its keys
    // nothing can be encrypted for it.
    await this.client.getCrypto().getUserDeviceInfo(Object.keys(contents), true);
    const sends = Object.entries(contents).flatMap(([userId, devices]) =>
      Object.entries(devices).map(([deviceId, content]) =>
        this.client.encryptAndSendToDevice(type, [{ userId, deviceId }], content)));
    await Promise.all(sends);
  }

  // Read without any request: an answer that takes time would let newer events
  // overtake the state that they stand on.
  async readRoomState(roomId, type, stateKey) {
    const state = this.room.currentState;
    const found = stateKey === undefined ? state.getStateEvents(type) : [state.getStateEvents(type, stateKey)];
    return found.filter(Boolean).map((e) => e.getEffectiveEvent());
  }

  async readStickyEvents() {
    return [...this.room._unstable_getStickyEvents()].filter(readable).map((e) => e.getEffectiveEvent());
  }

  async readRoomTimeline(roomId, type, msgtype, stateKey, limit) {
    const events = this.room.getLiveTimeline().getEvents().filter((e) =>
      e.getType() === type &&
      (stateKey === undefined || e.getStateKey() === stateKey) &&
      (msgtype === undefined || e.getContent().msgtype === msgtype));
    return events.slice(-limit).reverse().map((e) => e.getEffectiveEvent());
  }

  async readEventRelations(eventId, roomId, relationType, eventType, from, to, limit, direction) {
    const { events, nextBatch, prevBatch } = await this.client.relations(
      this.room.roomId, eventId, relationType ?? null, eventType ?? null,
      { from, to, limit, dir: direction });
    return { chunk: events.map((e) => e.getEffectiveEvent()), nextBatch, prevBatch };
  }

  askOpenID(observer) {
    this.client.getOpenIdToken().then(
      (token) => observer.update({ state: OpenIDRequestState.Allowed, token }),
      () => observer.update({ state: OpenIDRequestState.Blocked }));
  }

  async getRtcTransports() {
    return { rtc_transports: (await this.client._unstable_getRTCTransports()) ?? [] };
  }

  async downloadFile(uri) {
    const url = this.client.mxcUrlToHttp(uri, undefined, undefined, undefined, false, true, true);
    const answer = await fetch(url, { headers: { Authorization: `Bearer ${this.client.getAccessToken()}` } });
    if (!answer.ok) throw new Error(`media: status ${answer.status}`);
    return { file: await answer.blob() };
  }

  // The call's client must see a 404 or a 429 as such.
  processError(error) {
    return error instanceof MatrixError ? { matrix_api_error: error.asWidgetApiErrorData() } : undefined;
  }
}

// readable: not encrypted, or already decrypted.
export function readable(event) {
  return !event.isBeingDecrypted() && !event.isDecryptionFailure() && !event.shouldAttemptDecryption();
}
