-- v5 -> v6 (compatible with v1+): An index of those who are in calls
-- Those who have left, by far the most, are kept for a day; who asks who is there
-- shall not pass over their rows.
CREATE INDEX call_participant_joined_idx ON call_participant (sfu_room, identity) WHERE state = 'joined';
