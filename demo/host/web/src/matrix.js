import { ClientEvent, createClient, SyncState } from "matrix-js-sdk";
import { Trouble } from "./trouble.js";

// connect starts a Matrix client with encryption and waits for its first sync,
// so that the whole state of the room is in memory before the call is opened.
export async function connect(account) {
  const client = createClient({
    baseUrl: account.homeserver,
    userId: account.userId,
    deviceId: account.deviceId,
    accessToken: account.accessToken,
    disableVoip: true,
    fallbackICEServerAllowed: false,
  });
  await whoami(client);
  try {
    await client.initRustCrypto({
      // A device keeps its keys when the page is loaded again.
      cryptoDatabasePrefix: `passerelle-demo/${account.userId}/${account.deviceId}`,
    });
  } catch (cause) {
    throw new Trouble("crypto", cause);
  }
  const elsewhere = await keysElsewhere(client);
  const synced = firstSync(client);
  await client.startClient({ initialSyncLimit: 20, disablePresence: true });
  await synced;
  const room = client.getRoom(account.roomId);
  if (room?.getMyMembership() !== "join") throw new Trouble("room");
  if (elsewhere && room.hasEncryptionStateEvent()) throw new Trouble("browser");
  return { client, room };
}

async function whoami(client) {
  try {
    await client.whoami();
  } catch (cause) {
    throw new Trouble(cause.httpStatus === 401 ? "session" : "server", cause);
  }
}

// keysElsewhere says whether this device has published other keys than those of
// this browser. It must be asked before the client starts and publishes its own.
async function keysElsewhere(client) {
  const [user, device] = [client.getUserId(), client.getDeviceId()];
  const published = (await client.downloadKeysForUsers([user])).device_keys?.[user]?.[device];
  const own = await client.getCrypto().getOwnDeviceKeys();
  return published !== undefined && published.keys[`ed25519:${device}`] !== own.ed25519;
}

function firstSync(client) {
  return new Promise((resolve, reject) => {
    client.on(ClientEvent.Sync, (state, _, data) => {
      if (state === SyncState.Prepared || state === SyncState.Syncing) resolve();
      if (state === SyncState.Error) reject(new Trouble("server", data?.error));
    });
  });
}

// strangers are the other members of an encrypted room of whom no device is
// known yet: what is encrypted now they will never read.
export async function strangers(client, room) {
  if (!room.hasEncryptionStateEvent()) return [];
  const others = room.getJoinedMembers().filter((m) => m.userId !== client.getUserId());
  const devices = await client.getCrypto().getUserDeviceInfo(others.map((m) => m.userId), true);
  return others.filter((m) => !devices.get(m.userId)?.size);
}
