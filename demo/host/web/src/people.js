import { MatrixRTCSessionEvent } from "matrix-js-sdk/lib/matrixrtc/index.js";

// watchPeople calls back with the members of the room who are in the call, by
// their membership events, now and on each change.
export function watchPeople(client, room, show) {
  const session = client.matrixRTC.getRoomSession(room);
  const tell = () => {
    const ids = [...new Set(session.memberships.map((m) => m.userId))].sort();
    show(ids.map((id) => ({ id, name: room.getMember(id)?.name ?? id })));
  };
  session.on(MatrixRTCSessionEvent.MembershipsChanged, tell);
  tell();
}
