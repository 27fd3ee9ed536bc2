-- v2 -> v3 (compatible with v1+): Delayed leaves

-- One row for each leave that a client has handed over and that is not done
-- with. It does not hang on call_session: a leave may be handed over before any
-- token was asked for. All times are milliseconds since 1970.
CREATE TABLE delayed_leave (
	job_id        TEXT   NOT NULL PRIMARY KEY,
	sfu_room      TEXT   NOT NULL,
	identity      TEXT   NOT NULL,
	-- Another identity of the same client; empty if there is none.
	also_identity TEXT   NOT NULL,
	user_id       TEXT   NOT NULL,
	server_name   TEXT   NOT NULL,
	-- A secret: who knows it may send the leave.
	delay_id      TEXT   NOT NULL,
	delay_ms      BIGINT NOT NULL,
	state         TEXT   NOT NULL,
	created_at    BIGINT NOT NULL,
	-- When it was last put off; created_at before the first time.
	restarted_at  BIGINT NOT NULL,
	-- When the participant was found to be gone.
	gone_at       BIGINT,
	-- Which process looks after it, and until when it surely does.
	owner         TEXT   NOT NULL,
	lease_until   BIGINT NOT NULL
);
CREATE INDEX delayed_leave_identity_idx ON delayed_leave (sfu_room, identity);
CREATE INDEX delayed_leave_lease_idx ON delayed_leave (lease_until);
