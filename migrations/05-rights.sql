-- v4 -> v5 (compatible with v1+): Rights

-- When the first participant of the call that goes on came, by the SFU's clock;
-- NULL when none goes on. The server whose user had its SFU room made: the rule
-- of that server bounds the call.
ALTER TABLE call_session ADD COLUMN started_at BIGINT;
ALTER TABLE call_session ADD COLUMN started_by TEXT NOT NULL DEFAULT '';
CREATE INDEX call_session_started_idx ON call_session (sfu_room) WHERE started_at IS NOT NULL;

-- What its holder may send, where can_publish allows anything: 1 microphone,
-- 2 camera, 4 screen; they are added.
ALTER TABLE call_grant ADD COLUMN sources INTEGER NOT NULL DEFAULT 7;
-- When the door let its holder in while the number of participants was bounded:
-- a place is kept until the SFU reports the participant.
ALTER TABLE call_grant ADD COLUMN admitted_at BIGINT;
