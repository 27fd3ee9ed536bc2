-- v0 -> v1: Sessions, grants, participants
-- All times are milliseconds since 1970.

-- One row for each slot of a Matrix room that anybody was given a token for.
-- sfu_room is a hash; this row is the only way back from it to the room.
CREATE TABLE call_session (
	sfu_room        TEXT    NOT NULL PRIMARY KEY,
	room_id         TEXT    NOT NULL,
	slot_id         TEXT    NOT NULL,
	-- Which SFU serves it, and how often it was moved to another, plus one.
	sfu             TEXT    NOT NULL DEFAULT 'embedded',
	epoch           INTEGER NOT NULL DEFAULT 1,
	created_at      BIGINT  NOT NULL,
	last_granted_at BIGINT  NOT NULL,
	-- When the SFU was last asked to have the room; NULL when it has closed it.
	ensured_at      BIGINT,
	ended_at        BIGINT,

	CONSTRAINT call_session_slot UNIQUE (room_id, slot_id)
);

-- One row for each identity that was given a token for an SFU room: the only
-- way back from an identity to a person.
CREATE TABLE call_grant (
	sfu_room    TEXT    NOT NULL,
	identity    TEXT    NOT NULL,
	user_id     TEXT    NOT NULL,
	device_id   TEXT    NOT NULL,
	member_id   TEXT    NOT NULL,
	server_name TEXT    NOT NULL,
	route       TEXT    NOT NULL,
	can_publish BOOLEAN NOT NULL,
	may_create  BOOLEAN NOT NULL,
	issued_at   BIGINT  NOT NULL,
	expires_at  BIGINT  NOT NULL,
	revoked     BOOLEAN NOT NULL DEFAULT false,
	-- When it was last revoked, also after it was given again: tokens from
	-- before then stay worthless.
	revoked_at  BIGINT,

	PRIMARY KEY (sfu_room, identity),
	CONSTRAINT call_grant_session FOREIGN KEY (sfu_room)
		REFERENCES call_session (sfu_room) ON DELETE CASCADE
);
CREATE INDEX call_grant_expires_idx ON call_grant (expires_at);
CREATE INDEX call_grant_user_idx ON call_grant (user_id);

-- One row for each connection of an identity to the SFU.
CREATE TABLE call_participant (
	sfu_room        TEXT   NOT NULL,
	participant_sid TEXT   NOT NULL,
	identity        TEXT   NOT NULL,
	state           TEXT   NOT NULL CHECK (state IN ('joined', 'left')),
	joined_at       BIGINT NOT NULL,
	left_at         BIGINT,
	leave_reason    TEXT,

	PRIMARY KEY (sfu_room, participant_sid),
	CONSTRAINT call_participant_leave CHECK ((state = 'left') = (left_at IS NOT NULL)),
	CONSTRAINT call_participant_session FOREIGN KEY (sfu_room)
		REFERENCES call_session (sfu_room) ON DELETE CASCADE
);
CREATE INDEX call_participant_identity_idx ON call_participant (sfu_room, identity);
CREATE INDEX call_participant_left_idx ON call_participant (left_at);

-- Events of the SFU that were recorded, so that a repetition changes nothing.
CREATE TABLE webhook_seen (
	event_key TEXT   NOT NULL PRIMARY KEY,
	seen_at   BIGINT NOT NULL
);
CREATE INDEX webhook_seen_at_idx ON webhook_seen (seen_at);
