-- v1 -> v2 (compatible with v1+): Whether membership was proved
-- 'verified': our homeserver said that the user is joined to the room, when the
-- grant was given. 'unverified': nobody was asked.
ALTER TABLE call_grant ADD COLUMN membership TEXT NOT NULL DEFAULT 'unverified';
